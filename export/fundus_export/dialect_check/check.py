"""Check a model against a dialect, and read a model from bytes that may be anything."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from fundus_export.dialect_check.dialects import RULES
from fundus_export.dialect_check.findings import Finding
from fundus_export.dialect_check.islands import with_pairs
from fundus_export.dialect_check.pairs import has_quantised_product, raised_layers
from fundus_export.dialect_check.rules_graph import VALID
from fundus_export.dialect_check.traits import TRAITS
from fundus_export.dialect_check.view import UntrustedView
from fundus_export.errors import ExportError

__all__ = ["check_dialect", "model_from_bytes"]

# What islands may break.
_FP32_RULES = ("type-high", "qdq-scale-type")
# What a graph may break all of whose products a recipe raised.
_INT8_RULE = "qdq-missing"


def check_dialect(
    model: onnx.ModelProto,
    dialect: str,
    *,
    graph: str = "",
    islands: Collection[str] = (),
    raised: Collection[str] = (),
    beside: onnx.ModelProto | None = None,
) -> tuple[Finding, ...]:
    """Find where a model breaks the rules of a dialect.

    Args:
        model: as parsed; anything may be in it.
        dialect: one of `fp32`, `fp16`, `int8-cpu`, `int8-trt`, `int8-trt8`.
        graph: what to call it in the findings.
        islands: names of nodes that a recipe keeps in FP32, with the pairs that they read through.
        raised: names of products that a recipe keeps in higher precision. Where they are all that
            the graph had, it has no quantised product left, and needs none as long as `beside` has.
        beside: the form's other graph; None for a graph on its own, which needs one.

    Returns:
        The findings, in the order of the rules; none for a graph that keeps its dialect.

    Raises:
        ExportError: there is no such dialect.
    """
    if dialect not in RULES:
        raise ExportError(f"there is no dialect {dialect!r}; there is {', '.join(RULES)}")
    view, traits = UntrustedView(model), TRAITS[dialect]
    # where nodes lack their inputs, the other rules would stumble
    rules = RULES[dialect] if view.fault is None else (VALID,)
    kept = with_pairs(view, islands) if islands and view.fault is None else frozenset()
    is_raised = view.fault is None and _is_raised(view, raised, beside)
    return tuple(
        Finding(graph, breach.node, rule.id, breach.mend)
        for rule in rules
        for breach in rule.search(view, traits)
        if not (rule.id in _FP32_RULES and breach.node in kept)
        and not (rule.id == _INT8_RULE and is_raised)
    )


def _is_raised(
    view: UntrustedView, raised: Collection[str], beside: onnx.ModelProto | None
) -> bool:
    """Whether a recipe raised what this graph has, while the form as a whole is in INT8."""
    if beside is None or not set(raised) & set(raised_layers(view)):
        return False
    other = UntrustedView(beside)
    return other.fault is None and has_quantised_product(other)


def model_from_bytes(data: bytes, name: str) -> onnx.ModelProto:
    """Parse a serialised model.

    Args:
        data: the bytes.
        name: what to call them in errors.

    Raises:
        ExportError: they are no ONNX model, or only a part of one.
    """
    try:
        model = onnx.load_from_string(data)
        whole = bool(model.ir_version and model.graph.node) and _is_text(model.graph)
    except Exception as error:  # protobuf's errors have no typed public base
        raise ExportError(
            f"{name} has {len(data)} bytes that are no ONNX model, or not a whole one: {error}; "
            "copy or export it again"
        ) from error
    if not whole:
        raise ExportError(
            f"{name} has {len(data)} bytes that hold no ONNX graph, or a damaged one; copy or "
            "export it again"
        )
    return model


def _is_text(graph: onnx.GraphProto) -> bool:
    """Whether names are text; protobuf takes any bytes for a string."""
    names: list[object] = [tensor.name for tensor in graph.initializer]
    names += [value.name for value in (*graph.input, *graph.output, *graph.value_info)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [entry.name for entry in node.attribute]
    return all(isinstance(name, str) for name in names)
