"""Q/DQ pairs, products, and what a node reads when its pairs are looked through.

A *product* is a convolution or matrix product. Its *weight* is the constant operand, where it has
one. A *pair* is a QuantizeLinear and the DequantizeLinear behind it; a weight may have the latter
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from onnx import NodeProto, TensorProto

from fundus_export.dialect_check.view import UntrustedView, attribute, called

__all__ = [
    "DEQUANTIZE",
    "QUANTIZE",
    "Origin",
    "Product",
    "bias_of",
    "has_quantised_product",
    "is_of_constant",
    "is_rooted_in_constant",
    "origin_of",
    "pair_nodes",
    "products",
    "quantised_type",
    "raised_layers",
]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")


class Origin(NamedTuple):
    """Where a tensor comes from.

    Attributes:
        tensor: before the pair: an activation, or a constant; the tensor itself without a pair.
        quantize: the pair's Q; None without a pair and where the constant is stored quantised.
        dequantize: the pair's DQ; None without a pair.
    """

    tensor: str
    quantize: NodeProto | None
    dequantize: NodeProto | None

    @property
    def is_quantised(self) -> bool:
        """Whether the tensor comes out of a DQ."""
        return self.dequantize is not None


class Product(NamedTuple):
    """A convolution or matrix product.

    Attributes:
        node: the node.
        data: index of the input that is no weight.
        weight: index of the other one.
        has_weight: whether that one is a constant.
    """

    node: NodeProto
    data: int
    weight: int
    has_weight: bool

    @property
    def weight_axis(self) -> int:
        """The weight's axis that counts output channels, from the end for matrices."""
        op, node = self.node.op_type, self.node
        if op in ("Conv", "ConvTranspose"):
            return int(op == "ConvTranspose")
        if op == "Gemm":
            turned = bool(attribute(node, "transB" if self.weight == 1 else "transA"))
            return -2 if turned == (self.weight == 1) else -1
        return -1 if self.weight == 1 else -2


def origin_of(view: UntrustedView, name: str) -> Origin:
    """Look through a tensor's pair."""
    dequantize = view.producer(name)
    if dequantize is None or dequantize.op_type != DEQUANTIZE:
        return Origin(name, None, None)
    quantize = view.producer(dequantize.input[0])
    if quantize is None or quantize.op_type != QUANTIZE:
        return Origin(dequantize.input[0], None, dequantize)
    return Origin(quantize.input[0], quantize, dequantize)


def products(view: UntrustedView) -> Iterator[Product]:
    """All convolutions and matrix products, in order."""
    for node in view.nodes_of("Conv", "ConvTranspose", "Gemm", "MatMul"):
        if len(node.input) < 2:
            continue  # the checker of ONNX refuses it
        constant = [is_rooted_in_constant(view, name) for name in node.input[:2]]
        left = constant[0] and not constant[1] and node.op_type in ("Gemm", "MatMul")
        yield Product(node, int(left), int(not left), constant[int(not left)])


def has_quantised_product(view: UntrustedView) -> bool:
    """Whether any product reads both its factors through pairs."""
    return any(
        all(origin_of(view, name).is_quantised for name in product.node.input[:2])
        for product in products(view)
    )


def raised_layers(view: UntrustedView) -> tuple[str, ...]:
    """Products with a weight that is not quantised."""
    return tuple(
        called(product.node)
        for product in products(view)
        if product.has_weight
        and not origin_of(view, product.node.input[product.weight]).is_quantised
    )


def pair_nodes(view: UntrustedView) -> Iterator[NodeProto]:
    """All Q and DQ that name a scale, in order."""
    return (node for node in view.nodes_of(QUANTIZE, DEQUANTIZE) if len(node.input) >= 2)


def is_rooted_in_constant(view: UntrustedView, name: str) -> bool:
    """Whether a tensor is a constant, directly or behind its pair."""
    return view.is_constant(origin_of(view, name).tensor)


def is_of_constant(view: UntrustedView, node: NodeProto) -> bool:
    """Whether a Q or DQ stands behind a constant, not behind an activation."""
    return view.is_constant(node.input[0]) or is_rooted_in_constant(view, node.output[0])


def bias_of(node: NodeProto) -> str | None:
    """The tensor that a product adds, where it has one."""
    if node.op_type in _WITH_BIAS and len(node.input) > 2 and node.input[2]:
        return str(node.input[2])
    return None


def quantised_type(view: UntrustedView, node: NodeProto) -> int | None:
    """The type of the numbers that a Q makes or a DQ reads."""
    name = node.output[0] if node.op_type == QUANTIZE else node.input[0]
    if len(node.input) > 2 and node.input[2]:
        return view.element_type(node.input[2])
    if node.op_type == QUANTIZE:  # ONNX's default, whatever TensorRT takes it for
        return int(attribute(node, "output_dtype") or TensorProto.UINT8)
    return view.element_type(name)
