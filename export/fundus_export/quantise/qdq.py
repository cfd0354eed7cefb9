"""Writes Q/DQ pairs into an FP32 graph: activations per tensor, weights per output channel.

Contract: the graph that comes in is not changed; the one that goes out computes the same function
but for rounding to 8 bits. Names of the FP32 tensors are kept; what is added is named after them
with the endings `_quantized`, `_dequantized`, `_scale` and `_zero_point`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from fundus_export.errors import ExportError
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
) -> onnx.ModelProto:
    """A quantised copy of an FP32 graph.

    Args:
        model: FP32, weights inline.
        placement: where pairs stand.
        ranges: of every tensor that `placement.tensors` names.
        scheme: types and zero points.

    Raises:
        ExportError: a range is missing or a weight is not finite.
    """
    writer = _Writer(model, placement, ranges, scheme)
    return writer.written()


class _Writer:
    def __init__(
        self,
        model: onnx.ModelProto,
        placement: Placement,
        ranges: Mapping[str, TensorRange],
        scheme: Scheme,
    ) -> None:
        self.view = GraphView(model)
        self.placement = placement
        self.ranges = ranges
        self.scheme = scheme
        self.scale_type = np.dtype(np.float16 if scheme.half else np.float32)
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}
        # W - W_q of every quantised weight, for bias correction
        self.rounding: dict[str, npt.NDArray[np.float64]] = {}

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
        added = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(added)
        _drop_unread(graph)
        del graph.value_info[:]
        return self.model

    def _rewire(self, node: onnx.NodeProto) -> None:
        """Let a node read its tensors through their pairs."""
        source = node.input[0]
        for index, name in enumerate(node.input):
            if (node.name, index) in self.placement.pairs.get(name, ()):
                node.input[index] = f"{name}_dequantized"
        if node.name in self.placement.quantised:
            self._write_bias(node, source)
            node.input[1] = f"{node.input[1]}_dequantized"

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
        low, high = min(measured.low, 0.0), max(measured.high, 0.0)
        if self.scheme.symmetric:
            scale = self._usable_scale(max(-low, high) / _LARGEST_INT8)
            return scale, np.zeros((), np.int8)
        scale = self._usable_scale((high - low) / _LARGEST_UINT8)
        zero_point = np.clip(np.rint(-low / float(scale)), 0, _LARGEST_UINT8)
        return scale, zero_point.astype(np.uint8)

    def _range(self, name: str) -> TensorRange:
        source = self.placement.same_range.get(name, name)
        if source not in self.ranges:
            raise ExportError(
                f"there is no range of the tensor {source!r}; the recipe was made for another "
                "graph: calibrate again"
            )
        return self.ranges[source]

    def _usable_scale(self, scale: Any) -> Float32Array:
        """A number of the dialect's type, above zero: the parser stops at a scale of zero.

        It is written as FP32 here; typing the graph in FP16 later loses nothing.
        """
        smallest = _SMALLEST_SCALE[self.scale_type]
        return np.asarray(np.maximum(scale, smallest), self.scale_type).astype(np.float32)

    def _write_weights(self) -> None:
        for node in products(self.view):
            name = node.input[1]
            if node.name not in self.placement.quantised or f"{name}_scale" in self.constants:
                continue
            self._write_weight(name, weight_axis(node))

    def _write_weight(self, name: str, axis: int) -> None:
        weight = self.view.constant(name).astype(np.float64)
        if not np.isfinite(weight).all():
            raise ExportError(f"the weight {name!r} holds NaN or infinity; use another checkpoint")
        others = tuple(i for i in range(weight.ndim) if i != axis)
        scale = self._usable_scale(
            np.maximum(np.abs(weight).max(axis=others) / _LARGEST_INT8, self._least_scale(name))
        )
        self.constants[f"{name}_scale"] = scale
        self.constants[f"{name}_zero_point"] = np.zeros(scale.shape, np.int8)
        wide = np.expand_dims(scale.astype(np.float64), others)
        limited = np.clip(np.rint(weight / wide), -_LARGEST_INT8, _LARGEST_INT8)
        self.rounding[name] = weight - limited * wide
        if self.scheme.weights_as_int8:
            self.constants[f"{name}_quantized"] = limited.astype(np.int8)
        else:
            self._append("QuantizeLinear", name, f"{name}_quantized", name, axis=axis)
        self._append(
            "DequantizeLinear", f"{name}_quantized", f"{name}_dequantized", name, axis=axis
        )

    def _least_scale(self, weight: str) -> npt.NDArray[np.float64] | float:
        """What keeps a small channel's bias within INT32 for every node that uses the weight."""
        if not self.scheme.integer_bias:
            return 0.0
        least: Any = 0.0
        for node, _ in self.view.readers(weight):
            if len(node.input) > 2 and node.input[2] and node.name in self.placement.quantised:
                bias = np.abs(self.view.constant(node.input[2]).astype(np.float64))
                scale, _ = self._activation_scale(node.input[0])
                least = np.maximum(least, bias / (float(scale) * _LARGEST_BIAS))
        return least  # type: ignore[no-any-return]

    def _write_bias(self, node: onnx.NodeProto, source: str) -> None:
        """The corrected bias; one a node, since weights and biases may be shared."""
        bias = self._corrected_bias(node, source)
        if bias is None:
            return
        name = f"{node.name}_bias"
        if self.scheme.integer_bias:
            # in units of both scales, as the integer sums are
            scale = self.constants[f"{node.input[1]}_scale"] * self.constants[f"{source}_scale"]
            self.constants[f"{name}_scale"] = scale.astype(np.float32)
            self.constants[f"{name}_zero_point"] = np.zeros(scale.shape, np.int32)
            self.constants[f"{name}_quantized"] = np.rint(bias / scale).astype(np.int32)
            self._append(
                "DequantizeLinear", f"{name}_quantized", f"{name}_dequantized", name, axis=0
            )
            name = f"{name}_dequantized"
        else:
            self.constants[name] = bias.astype(np.float32)
        if len(node.input) > 2:
            node.input[2] = name
        else:
            node.input.append(name)

    def _corrected_bias(self, node: onnx.NodeProto, source: str) -> Floats | None:
        shifts = bias_shifts(node, source, self.rounding[node.input[1]], self.ranges)
        if len(node.input) < 3 or not node.input[2]:
            return shifts
        bias = self.view.constant(node.input[2]).astype(np.float64)
        return bias if shifts is None else bias + shifts


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
