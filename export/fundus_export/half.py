"""Writes a graph in typed FP16: FP32 inputs and outputs, FP32 islands where range demands.

Contract: the graph that comes in is FP32, with or without Q/DQ pairs, and is not changed. Types are
in the graph alone, so that an engine that takes them literally computes what was certified.

FP16 ends at 65504 and thins out below 6e-5. An island is where that is not enough: sums of squares
and the norms and quotients made of them, and whatever a calibration saw beyond `LARGEST_SAFE`. What
leads only into islands or out of them stays with them, so that there are few borders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fundus_export.errors import ExportError
from fundus_export.graph_view import GraphView

__all__ = ["LARGEST_SAFE", "island_of", "to_half"]

# An eighth of FP16's largest number: another eye may go beyond what a calibration saw.
LARGEST_SAFE = 65504.0 / 8
_ALWAYS = ("ReduceSum", "Sqrt", "Div")
# The first product of a sum of squares or of products overflows before the sum does.
_FEEDS_SUM = ("Mul",)
_SMALLEST_NORMAL = 2.0**-14
# These read or write other types than the graph's own; only what they share with it is typed.
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_INDEX_INPUTS = {
    "Reshape": (1,),
    "Unsqueeze": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "Slice": (1, 2, 3, 4),
    "Gather": (1,),
    "GatherND": (1,),
}


def island_of(
    view: GraphView, largest: Mapping[str, float], extra: Collection[str] = ()
) -> frozenset[str]:
    """Names of the nodes that stay FP32.

    Args:
        view: of the FP32 graph.
        largest: the largest magnitude that a calibration saw, by tensor; may be empty.
        extra: nodes that stay FP32 because somebody asked for it.
    """
    island = {
        node.name
        for node in view.nodes
        if _needs_range(node, largest) or _has_tiny_constant(view, node)
    } | set(extra)
    # backwards, so that a product of products joins as well, once what reads it has joined
    for node in reversed(view.nodes):
        if node.op_type in _FEEDS_SUM and _all_in(island, view.readers(node.output[0])):
            island.add(node.name)
    return frozenset(island)


def _needs_range(node: onnx.NodeProto, largest: Mapping[str, float]) -> bool:
    if node.op_type in _ALWAYS:
        return True
    return any(largest.get(name, 0.0) > LARGEST_SAFE for name in node.output)


def _all_in(island: Collection[str], readers: list[tuple[onnx.NodeProto, int]]) -> bool:
    return bool(readers) and all(reader.name in island for reader, _ in readers)


def _has_tiny_constant(view: GraphView, node: onnx.NodeProto) -> bool:
    """A single number that FP16 would round to zero or to a subnormal, such as an epsilon."""
    if node.op_type in _QUANTISERS:
        return False
    for name in node.input:
        if view.is_constant(name) and view.element_type(name) == TensorProto.FLOAT:
            value = np.abs(view.constant(name))
            if value.size == 1 and 0 < float(value.max()) < _SMALLEST_NORMAL:
                return True
    return False


def to_half(model: onnx.ModelProto, island: Collection[str]) -> onnx.ModelProto:
    """A typed FP16 copy of a graph.

    Args:
        model: FP32; scales of Q/DQ pairs may be FP16 already.
        island: names of the nodes that stay FP32.

    Raises:
        ExportError: a weight does not fit FP16.
    """
    return _Writer(model, frozenset(island)).written()


class _Writer:
    def __init__(self, model: onnx.ModelProto, island: frozenset[str]) -> None:
        self.view = GraphView(model)
        self.island = island
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, npt.NDArray[Any]] = {}
        # which float tensors are there in which type
        self.half: dict[str, str] = {}
        self.full: dict[str, str] = {name: name for name in self._float_inputs()}

    def written(self) -> onnx.ModelProto:
        graph = self.model.graph
        for node in graph.node:
            self._write(node)
        for name in self.view.outputs:
            self._write_output(name)
        added = [numpy_helper.from_array(value, name) for name, value in self.added.items()]
        nodes = [node.SerializeToString() for node in self.nodes]
        del graph.node[:]
        graph.node.extend(onnx.NodeProto.FromString(node) for node in nodes)
        graph.initializer.extend(added)
        read = {name for node in graph.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]
        return self.model

    def _float_inputs(self) -> list[str]:
        return [n for n in self.view.inputs if self.view.element_type(n) == TensorProto.FLOAT]

    def _write(self, node: onnx.NodeProto) -> None:
        full = node.name in self.island
        untyped = self._untyped_inputs(node)
        for index, name in enumerate(node.input):
            if name and index not in untyped:
                node.input[index] = self._as(name, node, full=full)
        self.nodes.append(node)
        for name in node.output:
            if self._is_float(name):
                (self.full if full else self.half)[name] = name

    def _untyped_inputs(self, node: onnx.NodeProto) -> tuple[int, ...]:
        if node.op_type == "DequantizeLinear":
            return (0, 2)
        if node.op_type == "QuantizeLinear":
            return (2,)
        return _INDEX_INPUTS.get(node.op_type, ())

    def _is_float(self, name: str) -> bool:
        return self.view.element_type(name) in (TensorProto.FLOAT, TensorProto.FLOAT16)

    def _as(self, name: str, node: onnx.NodeProto, *, full: bool) -> str:
        """The name under which a tensor is there in the type that a node computes in."""
        if self.view.is_constant(name):
            return self._constant_as(name, node, full=full)
        if not self._is_float(name):
            return name
        there = self.full if full else self.half
        if name not in there:
            there[name] = f"{name}_fp32" if full else f"{name}_fp16"
            source = (self.half if full else self.full)[name]
            self._append_cast(source, there[name], full=full)
        return there[name]

    def _append_cast(self, source: str, target: str, *, full: bool) -> None:
        to = TensorProto.FLOAT if full else TensorProto.FLOAT16
        self.nodes.append(helper.make_node("Cast", [source], [target], f"{target}_Cast", to=to))

    def _constant_as(self, name: str, node: onnx.NodeProto, *, full: bool) -> str:
        if self.view.element_type(name) != TensorProto.FLOAT or full:
            return name
        target = f"{name}_fp16"
        if target not in self.added:
            self.added[target] = _half_weight(name, self.view.constant(name), node.name)
        return target

    def _write_output(self, name: str) -> None:
        if name in self.full or not self._is_float(name):
            return
        producer = self.view.producer(name)
        assert producer is not None  # a graph's output that is an input is in `full`
        # the output keeps its name: what makes it gets another, and so do its readers
        inner = f"{name}_fp16"
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, used in enumerate(names):
                    if used == name:
                        names[index] = inner
        self._append_cast(inner, name, full=True)


def _half_weight(name: str, value: npt.NDArray[Any], node: str) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise ExportError(
            f"the constant {name!r} of {node} reaches {float(np.abs(value).max()):.3g}, FP16 ends "
            "at 65504; the node needs FP32: raise it"
        )
    return half
