"""Which rules a dialect has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fundus_export.dialect_check import (
    rules_cpu,
    rules_graph,
    rules_operators,
    rules_pairs,
    rules_placement,
    rules_types,
    rules_weights,
)
from fundus_export.dialect_check.findings import Rule

__all__ = ["ALL_RULES", "RULES"]

_ALWAYS = (
    *rules_graph.RULES,
    *rules_operators.RULES,
    *rules_types.FLOAT_RULES,
    *rules_weights.FLOAT_RULES,
)
_HALF = (*rules_types.HALF_RULES, *rules_weights.HALF_RULES)
_FLOAT_ONLY = rules_placement.FLOAT_RULES
_QUANTISED = (
    *rules_pairs.RULES,
    *rules_weights.QUANTISED_RULES,
    *rules_placement.QUANTISED_RULES,
)
_TENSORRT = (*rules_weights.TENSORRT_RULES, *rules_placement.TENSORRT_RULES)
_CPU = (*rules_weights.CPU_RULES, *rules_cpu.RULES)

RULES: Mapping[str, tuple[Rule, ...]] = {
    "fp32": (*_ALWAYS, *_FLOAT_ONLY),
    "fp16": (*_ALWAYS, *_HALF, *_FLOAT_ONLY),
    "int8-cpu": (*_ALWAYS, *_QUANTISED, *_CPU),
    "int8-trt": (*_ALWAYS, *_HALF, *_QUANTISED, *_TENSORRT),
    "int8-trt8": (*_ALWAYS, *_QUANTISED, *_TENSORRT),
}


def _all() -> Iterator[Rule]:
    yield from dict.fromkeys(rule for rules in RULES.values() for rule in rules)


ALL_RULES = tuple(_all())
