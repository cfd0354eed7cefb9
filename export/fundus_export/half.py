"""Writes a graph in typed FP16: FP32 inputs and outputs, FP32 islands where range demands.

Contract: the graph that comes in is FP32, with or without Q/DQ pairs, and is not changed. Types are
in the graph alone, so that an engine that takes them literally computes what was certified. Which
nodes are islands is decided in `fundus_export.islands`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from fundus_export.errors import ExportError
from fundus_export.graph_edit import add_constants, drop_unread_constants, replace_nodes
from fundus_export.graph_view import GraphView
from fundus_export.islands import LARGEST_SAFE, island_of

__all__ = ["LARGEST_SAFE", "island_of", "to_half"]

_PAIR = ("QuantizeLinear", "DequantizeLinear")


def to_half(model: onnx.ModelProto, island: Collection[str]) -> onnx.ModelProto:
    """A typed FP16 copy of a graph.

    Args:
        model: FP32.
        island: names of the nodes that stay FP32; a Q/DQ pair stays FP32 where one of its readers
            does.

    Raises:
        ExportError: a constant does not fit FP16.
    """
    return _Writer(model, frozenset(island)).written()


class _Writer:
    def __init__(self, model: onnx.ModelProto, island: frozenset[str]) -> None:
        self.view = GraphView(model)
        self.island = island
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}
        # under which names float tensors are there in either type
        self.half: dict[str, str] = {}
        self.full: dict[str, str] = {name: name for name in self.view.inputs}

    def written(self) -> onnx.ModelProto:
        graph = self.model.graph
        for node in graph.node:
            self._write(node)
        for name in self.view.outputs:
            if self._is_float(name) and name not in self.full:
                self._computed_as(name, full=True)
        replace_nodes(graph, self.nodes)
        add_constants(graph, self.constants)
        drop_unread_constants(graph)
        return self.model

    def _write(self, node: onnx.NodeProto) -> None:
        full = self._is_full(node)
        for index, name in enumerate(node.input):
            if name and self._is_float(name):
                node.input[index] = self._as(name, node, full=full)
        self._retype(node, full=full)
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if self._is_float(name):
                # an output's name is kept for what leaves the graph, in FP32
                made = name if full or not self.view.is_output(name) else f"{name}_fp16"
                (self.full if full else self.half)[name] = made
                node.output[index] = made

    def _is_full(self, node: onnx.NodeProto) -> bool:
        """A pair is of the type of those who read it."""
        if node.op_type in _PAIR:
            return any(self._is_full(reader) for reader, _ in self.view.readers(node.output[0]))
        return node.name in self.island

    def _retype(self, node: onnx.NodeProto, *, full: bool) -> None:
        """A conversion of something else to the graph's type is one to the node's type."""
        if node.op_type == "Cast" and self._is_float(node.output[0]):
            to = TensorProto.FLOAT if full else TensorProto.FLOAT16
            node.attribute[0].CopyFrom(helper.make_attribute("to", to))

    def _is_float(self, name: str) -> bool:
        return self.view.element_type(name) == TensorProto.FLOAT

    def _as(self, name: str, node: onnx.NodeProto, *, full: bool) -> str:
        """The name under which a tensor is there in the type that a node computes in."""
        if not self.view.is_constant(name):
            return self._computed_as(name, full=full)
        return name if full else self._half_constant(name, node)

    def _computed_as(self, name: str, *, full: bool) -> str:
        there = self.full if full else self.half
        if name not in there:
            wide = name if self.view.is_output(name) else f"{name}_fp32"
            there[name] = wide if full else f"{name}_fp16"
            source = (self.half if full else self.full)[name]
            to = TensorProto.FLOAT if full else TensorProto.FLOAT16
            cast = helper.make_node("Cast", [source], [there[name]], f"{there[name]}_Cast", to=to)
            self.nodes.append(cast)
        return there[name]

    def _half_constant(self, name: str, node: onnx.NodeProto) -> str:
        target = f"{name}_fp16"
        if target not in self.constants:
            self.constants[target] = _half_weight(name, self.view.constant(name), node.name)
        return target


def _half_weight(name: str, value: npt.NDArray[Any], node: str) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half: npt.NDArray[np.float16] = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise ExportError(
            f"the constant {name!r} of {node} reaches {float(np.abs(value).max()):.3g}, FP16 ends "
            "at 65504; the node needs FP32"
        )
    return half
