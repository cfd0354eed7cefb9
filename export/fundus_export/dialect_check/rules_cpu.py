"""What ONNX Runtime's CPU provider needs in order to compute in INT8."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from fundus_export.dialect_check.findings import Breach, rule
from fundus_export.dialect_check.pairs import QUANTIZE, origin_of
from fundus_export.dialect_check.sources import ORT_FUSIONS, ORT_MATMUL_ADD
from fundus_export.dialect_check.view import Array, UntrustedView, called

__all__ = ["RULES"]

_HIGHEST = 255


@rule(
    "cpu-output",
    "a Q reads what a quantised convolution makes, at most behind an activation it contains",
    source=ORT_FUSIONS,
)
def _output(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes_of("Conv"):
        if not all(origin_of(view, name).is_quantised for name in node.input[:2]):
            continue
        if (complaint := _hindrance(view, node)) is not None:
            yield Breach(called(node), f"{complaint}, so that it runs in FP32; put a Q there")


@rule(
    "cpu-matrix-bias",
    "no constant is added to what a quantised product of plain matrices makes",
    source=ORT_MATMUL_ADD,
)
def _matrix_bias(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes_of("MatMul"):
        if not all(origin_of(view, name).is_quantised for name in node.input):
            continue
        if len(view.shape(node.output[0]) or ()) != 2 or not view.is_read_by_one(node.output[0]):
            continue
        reader, index = view.readers(node.output[0])[0]
        if reader.op_type == "Add" and view.is_constant(reader.input[1 - index]):
            yield Breach(
                called(node),
                f"{called(reader)} adds the constant {reader.input[1 - index]}, which makes a Gemm "
                "with a float bias of both, in FP32; write a Gemm with an INT32 bias",
            )


def _hindrance(view: UntrustedView, node: NodeProto) -> str | None:
    """What keeps a convolution from becoming a QLinearConv."""
    name, activations = node.output[0], []
    while True:
        if not view.is_read_by_one(name):
            return f"not one Q alone reads {name}"
        reader, _ = view.readers(name)[0]
        if reader.op_type == QUANTIZE:
            break
        if reader.op_type not in ("Relu", "Clip"):
            return f"{called(reader)} ({reader.op_type}) reads {name} in FP32"
        activations.append(reader)
        name = reader.output[0]
    stays = [other for other in activations if not _is_contained(view, other, reader)]
    if stays:
        return f"{called(stays[0])} ({stays[0].op_type}) cuts off more than {called(reader)} does"
    return None


def _is_contained(view: UntrustedView, activation: NodeProto, quantize: NodeProto) -> bool:
    """Whether quantising alone leaves nothing for the activation to cut off."""
    scale, zero = (_constant(view, quantize, index) for index in (1, 2))
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return False
    step, offset = np.float32(scale.ravel()[0]), int(zero.ravel()[0])
    if activation.op_type == "Relu":
        return offset == 0
    low, high = step * np.float32(-offset), step * np.float32(_HIGHEST - offset)
    least, most = (_constant(view, activation, index) for index in (1, 2))
    slack = np.finfo(np.float32).eps
    return bool(
        (least is None or least.ravel()[0] - low <= slack)
        and (most is None or high - most.ravel()[0] <= slack)
    )


def _constant(view: UntrustedView, node: NodeProto, index: int) -> Array | None:
    return view.value(node.input[index]) if index < len(node.input) else None


RULES = (_output, _matrix_bias)
