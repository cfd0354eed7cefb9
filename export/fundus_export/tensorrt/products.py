"""The convolutions and matrix products of a graph, and the precision that the graph gives each.

They are where the time goes and where precision is lost, so that an engine is held to exactly
these. A product whose two factors come out of DequantizeLinear is marked INT8; any other is marked
with the type of its first factor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import onnx

    from fundus_export.graph_view import GraphView

__all__ = [
    "Product",
    "ProductPrecision",
    "count_by_precision",
    "float_nodes",
    "layer_name",
    "products_of",
]

ProductPrecision = Literal["int8", "fp16", "fp32"]

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# between a DequantizeLinear and its product these move or retype values, and compute nothing
_PASSIVE = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# what a weakly typed network is told the precision of, besides products: nodes that compute
_COMPUTING = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Sum", "Max", "Min"),
        *("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "LeakyRelu"),
        *("Softmax", "ReduceMean", "ReduceSum", "ReduceMax", "LayerNormalization"),
        *("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization"),
    }
)


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product.

    Attributes:
        name: of the node, as TensorRT's parser names the layer.
        operator: ONNX's name of what it does.
        precision: what the graph has it compute in.
    """

    name: str
    operator: str
    precision: ProductPrecision


def products_of(view: GraphView) -> tuple[Product, ...]:
    """All products of a graph, in its order; those of constants alone are folded and left out."""
    found = []
    for node in view.nodes:
        if node.op_type in _PRODUCTS and not all(map(view.is_constant, node.input[:2])):
            found.append(Product(layer_name(node), node.op_type, _precision(view, node)))
    return tuple(found)


def float_nodes(view: GraphView) -> dict[str, ProductPrecision]:
    """Names of the nodes that compute on floating point, with the type that they compute in."""
    names = {}
    for node in view.nodes:
        if node.op_type in _PRODUCTS | _COMPUTING:
            precision = _element_precision(view, node.input[0])
            if precision is not None:
                names[layer_name(node)] = precision
    return names


def layer_name(node: onnx.NodeProto) -> str:
    """The node's name; the parser makes one from its first output where it has none."""
    return node.name or f"node_of_{node.output[0]}"


def _precision(view: GraphView, node: onnx.NodeProto) -> ProductPrecision:
    if all(_is_dequantised(view, factor) for factor in node.input[:2]):
        return "int8"
    return _element_precision(view, node.input[0]) or "fp32"


def _is_dequantised(view: GraphView, tensor: str) -> bool:
    node = view.producer(tensor)
    while node is not None and node.op_type in _PASSIVE:
        node = view.producer(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def _element_precision(view: GraphView, tensor: str) -> ProductPrecision | None:
    import onnx

    kinds: dict[int, ProductPrecision] = {
        onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.FLOAT: "fp32",
    }
    return kinds.get(view.element_type(tensor))


def count_by_precision(products: Iterable[Product]) -> dict[str, int]:
    """How many products are marked with each precision."""
    counts = {"int8": 0, "fp16": 0, "fp32": 0}
    for product in products:
        counts[product.precision] += 1
    return {precision: count for precision, count in counts.items() if count}
