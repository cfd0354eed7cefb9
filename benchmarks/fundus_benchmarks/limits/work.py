"""What a graph has to do, counted from the graph alone: operations and bytes.

Operations are those of convolutions and matrix products, two for each multiply-add; what else a
graph computes is small beside them and is left out. Products with zeros count, too, such as a
folded stem's (0.3 % of ResNet-152's). Bytes are those of the weights as stored, and of the
activations, each written once and read once by each node that consumes it, as an engine that fuses
well would move them:

- between a QuantizeLinear and its DequantizeLinear the INT8 tensor is what moves; both are part of
  the nodes around them, save where a graph's own input is quantised or its output dequantised,
- Relu and Clip are part of the node before them where they alone read it,
- nodes that give a tensor another shape move nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto, helper

from fundus_export.dialect_check.pairs import (
    DEQUANTIZE,
    QUANTIZE,
    is_rooted_in_constant,
    origin_of,
    quantised_type,
)
from fundus_export.dialect_check.view import UntrustedView, attribute

__all__ = ["Work", "count_work"]

# Where the factors stand among a node's inputs.
_CONVOLUTIONS = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "ConvInteger": (0, 1),
    "QLinearConv": (0, 3),
}
_MATRICES = {"Gemm": (0, 1), "MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
_INTEGER = ("ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul")
_VIEWS = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_ACTIVATIONS = ("Clip", "Relu")
_EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True)
class Work:
    """What one run of a graph takes.

    Attributes:
        operations_int8: of products with both factors in 8 bits.
        operations_float: of the other products.
        weight_bytes: of all constants that a node reads, as stored.
        activation_bytes: written and read.
    """

    operations_int8: int
    operations_float: int
    weight_bytes: int
    activation_bytes: int

    @property
    def operations(self) -> int:
        """Of all products."""
        return self.operations_int8 + self.operations_float


def count_work(graph: bytes, *, batch: int) -> Work:
    """Count one run of a graph.

    Args:
        graph: serialised ONNX, weights inline.
        batch: length of every free axis.

    Raises:
        ValueError: ONNX cannot infer the shape of a tensor that moves or is multiplied.
    """
    view = UntrustedView(_with_batch(onnx.load_from_string(graph), batch))
    operations = {True: 0, False: 0}
    for node in view.nodes:
        operations[_is_int8(view, node)] += _operations(view, node)
    return Work(operations[True], operations[False], _weight_bytes(view), _activation_bytes(view))


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The same model with every free axis of its inputs and outputs set."""
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                axis.dim_value = batch
    del model.graph.value_info[:]  # states the free axes again
    return model


def _operations(view: UntrustedView, node: NodeProto) -> int:
    if node.op_type in _CONVOLUTIONS:
        data, weight = (node.input[index] for index in _CONVOLUTIONS[node.op_type])
        # a convolution gathers for each number that it answers, its transpose spreads each it gets
        each = data if node.op_type == "ConvTranspose" else node.output[0]
        return 2 * _elements(view, each) * math.prod(_shape(view, weight)[1:])
    if node.op_type in _MATRICES:
        left = _shape(view, node.input[_MATRICES[node.op_type][0]])
        is_turned = node.op_type == "Gemm" and bool(attribute(node, "transA"))
        return 2 * _elements(view, node.output[0]) * left[0 if is_turned else -1]
    return 0


def _is_int8(view: UntrustedView, node: NodeProto) -> bool:
    """Whether a product multiplies 8-bit numbers."""
    if node.op_type in _INTEGER:
        return True
    indices = {**_CONVOLUTIONS, **_MATRICES}.get(node.op_type)
    return indices is not None and all(_comes_in_int8(view, node.input[i]) for i in indices)


def _comes_in_int8(view: UntrustedView, name: str) -> bool:
    dequantize = origin_of(view, name).dequantize
    return dequantize is not None and quantised_type(view, dequantize) in _EIGHT_BITS


def _weight_bytes(view: UntrustedView) -> int:
    return sum(_bytes(view, tensor.name) for tensor in view.constants if view.readers(tensor.name))


def _activation_bytes(view: UntrustedView) -> int:
    reads = Counter(name for node in view.nodes for name in _loaded(view, node))
    moved = {*reads, *(_stored(view, name) for name in view.outputs)}
    times = {name: reads[name] + (name not in view.inputs) for name in moved}
    return sum(_bytes(view, name) * count for name, count in times.items())


def _loaded(view: UntrustedView, node: NodeProto) -> set[str]:
    """The tensors in memory that a node reads, weights aside."""
    if _is_part_of_another(view, node):
        return set()
    read = (name for name in node.input if name and not is_rooted_in_constant(view, name))
    return {_in_memory(view, name) for name in read}


def _is_part_of_another(view: UntrustedView, node: NodeProto) -> bool:
    """Whether an engine does a node's work within those around it, or has nothing to do."""
    kind = node.op_type
    if kind in _VIEWS:
        return True
    if kind == DEQUANTIZE:
        return node.output[0] not in view.outputs
    if kind == QUANTIZE:
        return _computes(view.producer(_in_memory(view, node.input[0])))
    alone = kind in _ACTIVATIONS and view.is_read_by_one(node.input[0])
    return alone and _computes(view.producer(node.input[0]))


def _computes(node: NodeProto | None) -> bool:
    """Whether a node makes numbers, rather than write or place the same ones otherwise."""
    return node is not None and node.op_type not in (QUANTIZE, DEQUANTIZE, *_VIEWS)


def _in_memory(view: UntrustedView, name: str) -> str:
    """What is loaded where a node reads this tensor: its INT8 form, in its first shape."""
    node = view.producer(name)
    while node is not None and node.op_type in (DEQUANTIZE, *_VIEWS):
        name = node.input[0]
        node = view.producer(name)
    return name


def _stored(view: UntrustedView, output: str) -> str:
    """What is written for an output of the graph, which no engine leaves in INT8."""
    node = view.producer(output)
    return output if node is None or node.op_type == DEQUANTIZE else _in_memory(view, output)


def _bytes(view: UntrustedView, name: str) -> int:
    kind = view.element_type(name)
    if kind is None:
        raise ValueError(f"the type of {name!r} is unknown, so that its bytes cannot be counted")
    return _elements(view, name) * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _elements(view: UntrustedView, name: str) -> int:
    return math.prod(_shape(view, name))


def _shape(view: UntrustedView, name: str) -> tuple[int, ...]:
    shape = view.shape(name)
    whole = () if shape is None else tuple(axis for axis in shape if isinstance(axis, int))
    if shape is None or len(whole) != len(shape):
        raise ValueError(
            f"ONNX infers the shape {shape} for {name!r}, expected whole numbers; export the graph "
            "with shapes that follow from its inputs"
        )
    return whole
