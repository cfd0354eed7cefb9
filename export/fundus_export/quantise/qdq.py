"""Writes Q/DQ pairs into an FP32 graph: activations per tensor, weights per output channel.

Contract: the graph that comes in is not changed; the one that goes out computes the same function
but for rounding to 8 bits. Names of the FP32 tensors are kept; what is added is named after them
with the endings `_quantized`, `_dequantized`, `_scale` and `_zero_point`. A weight or a bias that
several nodes share is quantised for those that are quantised, and stays as it is for the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from fundus_export.errors import ExportError
from fundus_export.graph_edit import add_constants, drop_unread_constants, replace_nodes
from fundus_export.graph_view import GraphView
from fundus_export.quantise.bias_correction import bias_shifts
from fundus_export.quantise.placement import Placement, products, weight_axis
from fundus_export.quantise.ranges import TensorRange
from fundus_export.quantise.scheme import Scheme

__all__ = ["insert_pairs"]

Floats = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

_LARGEST_INT8 = 127
_LARGEST_UINT8 = 255
# An INT32 bias counts in units of both scales; this leaves the sums room next to it.
_LARGEST_BIAS = 2.0**30
# The smallest scale of a dead channel or tensor: any would do, as long as the parser takes it.
_SMALLEST_SCALE = {np.dtype(np.float32): 1e-12, np.dtype(np.float16): 2.0**-14}


def insert_pairs(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Mapping[str, TensorRange],
    scheme: Scheme,
    *,
    wide: Collection[str] = (),
) -> onnx.ModelProto:
    """A quantised copy of an FP32 graph.

    Args:
        model: FP32, weights inline.
        placement: where pairs stand.
        ranges: of every tensor that `placement.tensors` names.
        scheme: types and zero points.
        wide: nodes that stay FP32 where the rest becomes FP16; so do the scales of their pairs.

    Raises:
        ExportError: a range is missing or a weight is not finite.
    """
    return _Writer(model, placement, ranges, scheme, frozenset(wide)).written()


class _Writer:
    def __init__(
        self,
        model: onnx.ModelProto,
        placement: Placement,
        ranges: Mapping[str, TensorRange],
        scheme: Scheme,
        wide: frozenset[str],
    ) -> None:
        self.view = GraphView(model)
        self.placement = placement
        self.ranges = ranges
        self.scheme = scheme
        self.wide = wide
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}
        # W - W_q of every quantised weight, for bias correction
        self.rounding: dict[str, Floats] = {}

    def written(self) -> onnx.ModelProto:
        self._write_weights()
        for name in self.view.inputs:
            self._write_pair(name)
        for node in self.model.graph.node:
            self._rewire(node)
            self.nodes.append(node)
            for name in node.output:
                self._write_pair(name)
        graph = self.model.graph
        replace_nodes(graph, self.nodes)
        add_constants(graph, self.constants)
        drop_unread_constants(graph)
        return self.model

    def _rewire(self, node: onnx.NodeProto) -> None:
        """Let a node read its tensors through their pairs."""
        source = node.input[0]
        for index, name in enumerate(node.input):
            if (node.name, index) in self.placement.pairs.get(name, ()):
                node.input[index] = f"{name}_dequantized"
        if node.name in self.placement.quantised:
            weight = self._weight_name(node)
            self._write_bias(node, source, weight)
            node.input[1] = f"{weight}_dequantized"

    def _write_pair(self, name: str) -> None:
        if name not in self.placement.pairs:
            return
        scale, zero_point = self._activation_scale(name)
        self.constants[f"{name}_scale"] = scale
        self.constants[f"{name}_zero_point"] = zero_point
        self._append("QuantizeLinear", name, f"{name}_quantized", name)
        self._append("DequantizeLinear", f"{name}_quantized", f"{name}_dequantized", name)

    def _append(self, op: str, source: str, target: str, name: str, **attributes: Any) -> None:
        inputs = [source, f"{name}_scale", f"{name}_zero_point"]
        self.nodes.append(helper.make_node(op, inputs, [target], f"{name}_{op}", **attributes))

    def _activation_scale(self, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        measured = self._range(name)
        readers = [node for node, _ in self.placement.pairs[name]]
        if self.scheme.symmetric:
            scale = self._usable_scale(measured.magnitude / _LARGEST_INT8, readers)
            return scale, np.zeros((), np.int8)
        scale = self._usable_scale((measured.high - measured.low) / _LARGEST_UINT8, readers)
        zero_point = np.clip(np.rint(-measured.low / float(scale)), 0, _LARGEST_UINT8)
        return scale, zero_point.astype(np.uint8)

    def _range(self, name: str) -> TensorRange:
        source = self.placement.same_range.get(name, name)
        if source not in self.ranges:
            raise ExportError(
                f"there is no range of the tensor {source!r}; the recipe was made for another "
                "graph: calibrate again"
            )
        return self.ranges[source]

    def _usable_scale(self, scale: Any, readers: Iterable[str]) -> Float32Array:
        """A number of the readers' type, above zero: the parser stops at a scale of zero.

        It is written as FP32 here; typing the graph in FP16 later loses nothing.
        """
        half = self.scheme.half and self.wide.isdisjoint(readers)
        kind = np.dtype(np.float16 if half else np.float32)
        return np.asarray(np.maximum(scale, _SMALLEST_SCALE[kind]), kind).astype(np.float32)

    def _write_weights(self) -> None:
        for node in products(self.view):
            if node.name not in self.placement.quantised:
                continue
            name = self._weight_name(node)
            if name not in self.rounding:
                self._write_weight(node.input[1], name, weight_axis(node))

    def _weight_name(self, node: onnx.NodeProto) -> str:
        """What a node's quantised weight is named after; a matrix may be read along either axis."""
        name, axis = str(node.input[1]), weight_axis(node)
        return name if axis == weight_axis(self._users(name)[0]) else f"{name}_axis_{axis}"

    def _users(self, weight: str) -> list[onnx.NodeProto]:
        """The quantised nodes that read a weight."""
        quantised = self.placement.quantised
        readers = self.view.readers(weight)
        return [node for node, index in readers if index == 1 and node.name in quantised]

    def _write_weight(self, weight: str, name: str, axis: int) -> None:
        value = self.view.constant(weight).astype(np.float64)
        if not np.isfinite(value).all():
            raise ExportError(f"{weight!r} holds NaN or infinity; use another checkpoint")
        users = [node for node in self._users(weight) if weight_axis(node) == axis]
        others = tuple(i for i in range(value.ndim) if i != axis)
        wanted = np.abs(value).max(axis=others) / _LARGEST_INT8
        scale = self._usable_scale(
            np.maximum(wanted, self._least_scale(users)), [node.name for node in users]
        )
        self.constants[f"{name}_scale"] = scale
        self.constants[f"{name}_zero_point"] = np.zeros(scale.shape, np.int8)
        steps = np.expand_dims(scale.astype(np.float64), others)
        limited = np.clip(np.rint(value / steps), -_LARGEST_INT8, _LARGEST_INT8)
        self.rounding[name] = value - limited * steps
        if self.scheme.weights_as_int8:
            self.constants[f"{name}_quantized"] = limited.astype(np.int8)
        else:
            self._append("QuantizeLinear", weight, f"{name}_quantized", name, axis=axis)
        self._append(
            "DequantizeLinear", f"{name}_quantized", f"{name}_dequantized", name, axis=axis
        )

    def _least_scale(self, users: Iterable[onnx.NodeProto]) -> Any:
        """What keeps a small channel's bias within INT32 for every node that uses the weight."""
        least: Any = 0.0
        for node in users if self.scheme.integer_bias else ():
            if _has_bias(node):
                bias = np.abs(self.view.constant(node.input[2]).astype(np.float64))
                scale, _ = self._activation_scale(node.input[0])
                least = np.maximum(least, bias / (float(scale) * _LARGEST_BIAS))
        return least

    def _write_bias(self, node: onnx.NodeProto, source: str, weight: str) -> None:
        """The corrected bias; one a node, since weights and biases may be shared."""
        bias = self._corrected_bias(node, source, weight)
        if bias is None:
            return
        name = f"{node.name}_bias"
        if self.scheme.integer_bias:
            # in units of both scales, as the integer sums are
            scale = self.constants[f"{weight}_scale"] * self.constants[f"{source}_scale"]
            self.constants[f"{name}_scale"] = scale.astype(np.float32)
            self.constants[f"{name}_zero_point"] = np.zeros(scale.shape, np.int32)
            self.constants[f"{name}_quantized"] = np.rint(bias / scale).astype(np.int32)
            self._append(
                "DequantizeLinear", f"{name}_quantized", f"{name}_dequantized", name, axis=0
            )
            name = f"{name}_dequantized"
        else:
            self.constants[name] = bias.astype(np.float32)
        inputs = [*node.input[:2], name]
        del node.input[:]
        node.input.extend(inputs)

    def _corrected_bias(self, node: onnx.NodeProto, source: str, weight: str) -> Floats | None:
        shifts = bias_shifts(node, source, self.rounding[weight], self.ranges)
        if not _has_bias(node):
            return shifts
        bias = self.view.constant(node.input[2]).astype(np.float64)
        return bias if shifts is None else bias + shifts


def _has_bias(node: onnx.NodeProto) -> bool:
    return len(node.input) > 2 and bool(node.input[2])
