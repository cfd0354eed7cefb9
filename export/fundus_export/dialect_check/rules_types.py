"""Element types: one float type throughout, FP32 islands with casts at their shores alone."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto, TensorProto

from fundus_export.dialect_check.findings import Breach, dialect_rule, rule
from fundus_export.dialect_check.pairs import DEQUANTIZE, QUANTIZE, products
from fundus_export.dialect_check.sources import STRONG_TYPING
from fundus_export.dialect_check.traits import Traits
from fundus_export.dialect_check.view import UntrustedView, called, type_name

__all__ = ["RULES"]

_FLOATS = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.BFLOAT16,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.FLOAT8E5M2,
        TensorProto.FLOAT8E5M2FNUZ,
    }
)
_CONVERTING = ("Cast", QUANTIZE, DEQUANTIZE)


@dialect_rule("type-float", "no float type but the dialect's own and FP32", source=STRONG_TYPING)
def _foreign(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    for node in view.nodes:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            continue  # theirs is the type of the scale
        for element_type in sorted(_float_types(view, node) - set(traits.float_types)):
            yield Breach(
                called(node),
                f"it reads or makes {type_name(element_type)}, but {traits.name} has "
                f"{_named(traits)} alone; convert the graph again from FP32",
            )


@rule("type-mixed", "what a node reads and makes is of one float type", source=STRONG_TYPING)
def _mixed(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes:
        found = _float_types(view, node)
        if node.op_type in _CONVERTING or len(found) < 2:
            continue
        yield Breach(
            called(node),
            f"it mixes {' and '.join(type_name(kind) for kind in sorted(found))}; convert its "
            "constants with it, and cast where an island begins or ends",
        )


@dialect_rule(
    "type-high",
    "no convolution and no matrix product in FP32",
    source=STRONG_TYPING,
)
def _high(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    for product in products(view):
        if _float_types(view, product.node) == {TensorProto.FLOAT}:
            yield Breach(
                called(product.node),
                f"it computes in float, expected {type_name(traits.compute_type)}; keep islands to "
                "what needs the range, or name the layer as one that stays high",
            )


@rule(
    "cast-place",
    "casts stand at the graph's borders and at islands' shores, one a tensor",
    source=STRONG_TYPING,
)
def _casts(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes_of("Cast"):
        source = node.input[0]
        producer = view.producer(source)
        before, after = view.element_type(source), view.element_type(node.output[0])
        if before is not None and before == after:
            yield Breach(called(node), f"it casts {type_name(before)} to itself; take it out")
        elif producer is not None and producer.op_type == "Cast":
            yield Breach(called(node), f"it casts what {called(producer)} has cast; merge them")
        elif view.is_constant(source):
            yield Breach(called(node), f"it casts the constant {source}; store that converted")
        elif any(other is not node for other in _same_casts(view, node)):
            yield Breach(called(node), f"{source} is cast more than once; share one cast")


def _same_casts(view: UntrustedView, node: NodeProto) -> Iterator[NodeProto]:
    """Casts of the same tensor to the same type."""
    target = view.element_type(node.output[0])
    for reader, _ in view.readers(node.input[0]):
        if reader.op_type == "Cast" and view.element_type(reader.output[0]) == target:
            yield reader


def _float_types(view: UntrustedView, node: NodeProto) -> set[int]:
    found = {view.element_type(name) for name in (*node.input, *node.output) if name}
    return {kind for kind in found if kind in _FLOATS and kind is not None}


def _named(traits: Traits) -> str:
    return " and ".join(sorted(type_name(kind) for kind in traits.float_types))


FLOAT_RULES = (_foreign, _mixed, _casts)
HALF_RULES = (_high,)
RULES = (*FLOAT_RULES, *HALF_RULES)
