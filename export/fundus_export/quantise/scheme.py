"""How each INT8 dialect writes quantised numbers: types, zero points, where Q/DQ pairs stand.

`int8-cpu` follows what ONNX Runtime's CPU provider fuses into integer kernels, the other two what
TensorRT's builder does (docs/engines.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "DIALECTS",
    "DIALECTS_OF_PRECISION",
    "INT8_DIALECTS",
    "RAISED_AS",
    "Dialect",
    "Scheme",
    "precision_of",
    "scheme_of",
]

Dialect = Literal["fp32", "fp16", "int8-cpu", "int8-trt", "int8-trt8"]
DIALECTS: tuple[Dialect, ...] = ("fp32", "fp16", "int8-cpu", "int8-trt", "int8-trt8")
# What the targets of a precision need: INT8 for CPUs, INT8 and FP16 for TensorRT, and FP16 for CPUs
# without dot-product instructions as well.
DIALECTS_OF_PRECISION = {
    "fp32": ("fp32",),
    "fp16": ("fp16",),
    "int8": ("int8-cpu", "int8-trt", "fp16"),
}
# Both have the same pairs, so that what had to be raised in one has to be in the other, unless a
# recipe says what.
RAISED_AS = {"int8-trt8": "int8-trt"}


@dataclass(frozen=True)
class Scheme:
    """One way of writing Q/DQ.

    Attributes:
        opset: operator set of the finished graph.
        symmetric: activations are signed with zero point 0; else unsigned with any zero point.
        outputs_too: Q/DQ on what quantised nodes answer as well, and on the additions,
            concatenations and pools between them, because the engine computes those in INT8 only
            then.
        integer_bias: biases are INT32 in units of both scales; else they stay as they are.
        weights_as_int8: weights are stored in 8 bits behind a DequantizeLinear; else in FP32
            behind a pair, which the older parser demands.
        half: everything that is not quantised is FP16, scales included.
    """

    opset: int
    symmetric: bool
    outputs_too: bool
    integer_bias: bool
    weights_as_int8: bool
    half: bool


_SCHEMES: dict[str, Scheme] = {
    "int8-cpu": Scheme(18, False, True, True, True, False),
    "int8-trt": Scheme(19, True, False, False, True, True),
    "int8-trt8": Scheme(17, True, False, False, False, False),
}
INT8_DIALECTS = tuple(_SCHEMES)


def scheme_of(dialect: str) -> Scheme:
    """The scheme of an INT8 dialect."""
    return _SCHEMES[dialect]


def precision_of(dialect: str) -> str:
    """`fp32`, `fp16` or `int8`."""
    return dialect.split("-", 1)[0]
