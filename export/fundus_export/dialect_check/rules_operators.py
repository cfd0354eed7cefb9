"""Which operators a graph uses, and that their arguments are known beforehand."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto, TensorProto

from fundus_export.dialect_check.findings import Breach, dialect_rule, rule
from fundus_export.dialect_check.operators import (
    CONSTANT_ARGUMENTS,
    CONTROL_FLOW,
    LOOK_UPS,
    QUANTISED,
    SHAPE_ARITHMETIC,
)
from fundus_export.dialect_check.pairs import DEQUANTIZE, QUANTIZE
from fundus_export.dialect_check.sources import OPERATOR_TABLES, PLACEMENT, TORCH_EXPORTER
from fundus_export.dialect_check.traits import Traits
from fundus_export.dialect_check.view import UntrustedView, called

__all__ = ["RULES"]

_DEFAULT_DOMAINS = ("", "ai.onnx")
_INTEGERS = (TensorProto.INT32, TensorProto.INT64)
_BATCH_NORM = "BatchNormalization"
_NAMED_ELSEWHERE = CONTROL_FLOW | SHAPE_ARITHMETIC | QUANTISED | {_BATCH_NORM}


@rule(
    "op-domain",
    "only ONNX's own operators, no custom domain and no local function",
    source=OPERATOR_TABLES,
)
def _domain(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes:
        if node.domain not in _DEFAULT_DOMAINS:
            yield Breach(
                called(node),
                f"{node.op_type} is of the domain {node.domain!r}, which engines know only with a "
                "plug-in; export it as ONNX's own operators",
            )
    for function in view.model.functions:
        yield Breach(function.name, "it is a function inside the file; inline it before saving")


@rule("op-control-flow", "no If, Loop or Scan", source=OPERATOR_TABLES)
def _control_flow(view: UntrustedView) -> Iterator[Breach]:
    for node in _own(view):
        if node.op_type in CONTROL_FLOW:
            yield Breach(
                called(node),
                f"{node.op_type} keeps engines from building one fused graph; trace the model with "
                "fixed control flow",
            )


@dialect_rule(
    "op-shape-arithmetic",
    "no shapes or sizes computed while the graph runs, no adaptive pooling, no resizing "
    "(`int8-cpu`: indices may be computed)",
    source=TORCH_EXPORTER,
)
def _shape_arithmetic(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    banned = SHAPE_ARITHMETIC - LOOK_UPS if traits.looks_up else SHAPE_ARITHMETIC
    for node in _own(view):
        if node.op_type in banned:
            yield Breach(
                called(node),
                f"{node.op_type} stems from a shape, a pool or a resize that the exporter could "
                "not fix; write it as a constant matrix or a constant shape",
            )
        elif not traits.looks_up and _makes_integers(view, node):
            yield Breach(
                called(node),
                f"{node.op_type} computes with whole numbers while the graph runs; make the shape "
                "or the index that it stands for a constant",
            )


@rule(
    "op-batch-norm",
    "no batch norm is left over",
    source=PLACEMENT,
)
def _batch_norm(view: UntrustedView) -> Iterator[Breach]:
    for node in _own(view):
        if node.op_type == _BATCH_NORM:
            yield Breach(
                called(node), "the norm was not folded; fold it into the convolution before it"
            )


@rule(
    "op-quantised",
    "quantisation is written as Q/DQ, not as operators on 8 bits",
    source=OPERATOR_TABLES,
)
def _quantised(view: UntrustedView) -> Iterator[Breach]:
    for node in _own(view):
        if node.op_type in QUANTISED:
            yield Breach(
                called(node), f"{node.op_type} is no Q/DQ; quantise with pairs (QuantFormat.QDQ)"
            )


@dialect_rule("op-unknown", "only operators that the dialect's engines run", source=OPERATOR_TABLES)
def _unknown(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    allowed = traits.operators | {QUANTIZE, DEQUANTIZE} | _NAMED_ELSEWHERE
    for node in _own(view):
        if node.op_type not in allowed:
            yield Breach(
                called(node),
                f"{node.op_type} is not among the operators of {traits.name} "
                "(dialect_check/operators.py); express it by those",
            )


@rule("op-arguments", "shapes, axes and limits are constants", source=OPERATOR_TABLES)
def _arguments(view: UntrustedView) -> Iterator[Breach]:
    for node in _own(view):
        for index in CONSTANT_ARGUMENTS.get(node.op_type, ()):
            name = node.input[index] if index < len(node.input) else ""
            if name and not view.is_constant(name):
                yield Breach(
                    called(node),
                    f"{node.op_type} takes {name}, which is computed; the parser wants a constant",
                )


def _own(view: UntrustedView) -> Iterator[NodeProto]:
    return (node for node in view.nodes if node.domain in _DEFAULT_DOMAINS)


def _makes_integers(view: UntrustedView, node: NodeProto) -> bool:
    if node.op_type == "Constant" or node.op_type in SHAPE_ARITHMETIC | QUANTISED:
        return False
    return any(view.element_type(name) in _INTEGERS for name in node.output if name)


RULES = (
    _domain,
    _control_flow,
    _shape_arithmetic,
    _batch_norm,
    _quantised,
    _unknown,
    _arguments,
)
