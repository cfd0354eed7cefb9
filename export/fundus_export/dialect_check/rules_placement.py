"""Where Q/DQ pairs stand for TensorRT: on products' inputs, and nowhere a fusion would break."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from fundus_export.dialect_check.findings import Breach, dialect_rule, rule
from fundus_export.dialect_check.pairs import (
    DEQUANTIZE,
    QUANTIZE,
    bias_of,
    has_quantised_product,
    is_of_constant,
    origin_of,
    products,
)
from fundus_export.dialect_check.residuals import residual_of
from fundus_export.dialect_check.sources import ORT_TENSORRT, PLACEMENT, PRECISION, RESIDUALS
from fundus_export.dialect_check.traits import Traits
from fundus_export.dialect_check.view import UntrustedView, called

__all__ = ["FLOAT_RULES", "QUANTISED_RULES", "RULES", "TENSORRT_RULES"]

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = (
    *("Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid"),
    *("Softplus", "Tanh"),
)


@dialect_rule("qdq-unexpected", "no Q and no DQ in a float dialect", source=PRECISION)
def _unexpected(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    for node in view.nodes_of(QUANTIZE, DEQUANTIZE):
        yield Breach(
            called(node),
            f"{node.op_type} in a graph that is to be {traits.name}; take the graph "
            "that was exported, or name its dialect",
        )


@rule(
    "qdq-missing",
    "an INT8 graph has at least one quantised product, unless the bundle's recipe raised them and "
    "the form's other graph has one",
    source=PRECISION,
)
def _missing(view: UntrustedView) -> Iterator[Breach]:
    if not has_quantised_product(view):
        yield Breach(
            "graph",
            "no convolution and no matrix product is quantised; quantise it, or name its dialect",
        )


@dialect_rule(
    "qdq-half",
    "a product is quantised on both inputs or on neither",
    source=PLACEMENT,
)
def _half(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    for product in products(view):
        quantised = _is_quantised(view, product.node)
        if all(quantised) or not any(quantised):
            continue
        if traits.integer_bias and not quantised[product.weight]:
            continue  # ONNX Runtime: what was made in INT8 is there in INT8 alone
        bare = product.node.input[quantised.index(False)]
        yield Breach(
            called(product.node),
            f"{bare} is not quantised beside the other input, so that the product runs high; put a "
            "pair on both or on neither",
        )


@rule(
    "qdq-needless",
    "pairs are read by products and residual additions alone",
    source=PLACEMENT,
)
def _needless(view: UntrustedView) -> Iterator[Breach]:
    for node, reader, index in _pair_readers(view):
        if not _may_read(view, node, reader, index) and not _splits(view, node, reader):
            yield Breach(
                called(node),
                f"{called(reader)} ({reader.op_type}) reads it, which is no product and no "
                "residual addition; let that read the tensor before the pair",
            )


@rule(
    "qdq-splits-fusion",
    "no pair between a product and the activation that fuses with it",
    source=PLACEMENT,
)
def _splits_fusion(view: UntrustedView) -> Iterator[Breach]:
    for node, reader, _ in _pair_readers(view):
        if _splits(view, node, reader):
            yield Breach(
                called(node),
                f"it stands between a product and {called(reader)} ({reader.op_type}), which would "
                "fuse; put the pair behind the activation",
            )


@rule(
    "qdq-output",
    "the graph's outputs are not quantised",
    source=ORT_TENSORRT,
)
def _output(view: UntrustedView) -> Iterator[Breach]:
    for name in view.outputs:
        if origin_of(view, name).is_quantised:
            yield Breach(
                name, "it comes out of a DQ; let the graph answer the tensor before the pair"
            )


@rule(
    "residual-identity",
    "beside a quantised convolution a residual addition reads the other branch through a pair",
    source=RESIDUALS,
)
def _identity(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes_of("Add"):
        residual = residual_of(view, node)
        if residual is not None and residual.lacks_pair:
            yield Breach(
                called(node),
                f"it adds {' and '.join(node.input)} without a pair on the identity branch, so "
                "that it runs high; quantise the branch that does not end in the convolution it "
                "fuses with",
            )


@rule(
    "residual-fused",
    "no pair on the branch whose convolution fuses with the addition",
    source=RESIDUALS,
)
def _fused(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes_of("Add"):
        residual = residual_of(view, node)
        if residual is not None and residual.cut:
            yield Breach(
                called(node),
                f"a pair keeps {called(residual.cut[0])} from fusing with it; take that away and "
                "quantise the other branch",
            )


def _pair_readers(view: UntrustedView) -> Iterator[tuple[NodeProto, NodeProto, int]]:
    """Each DQ with each of its readers; biases are for another rule."""
    biases = {bias_of(node) for node in view.nodes}
    for node in view.nodes_of(DEQUANTIZE):
        if node.output[0] not in biases:
            for reader, index in view.readers(node.output[0]):
                yield node, reader, index


def _may_read(view: UntrustedView, node: NodeProto, reader: NodeProto, index: int) -> bool:
    if reader.op_type == QUANTIZE:
        return True  # a chain, which has a rule of its own
    if reader.op_type in _PRODUCTS:
        return index < 2
    is_weight = is_of_constant(view, node)
    return reader.op_type == "Add" and not is_weight and residual_of(view, reader) is not None


def _splits(view: UntrustedView, node: NodeProto, reader: NodeProto) -> bool:
    maker = view.producer(origin_of(view, node.output[0]).tensor)
    return reader.op_type in _ACTIVATIONS and maker is not None and maker.op_type in _PRODUCTS


def _is_quantised(view: UntrustedView, node: NodeProto) -> list[bool]:
    return [origin_of(view, name).is_quantised for name in node.input[:2]]


FLOAT_RULES = (_unexpected,)
QUANTISED_RULES = (_missing, _half)
TENSORRT_RULES = (_needless, _splits_fusion, _output, _identity, _fused)
RULES = (*FLOAT_RULES, *QUANTISED_RULES, *TENSORRT_RULES)
