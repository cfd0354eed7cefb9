"""Weights and biases: present, finite, and quantised as the dialect stores them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from fundus_export.dialect_check.findings import Breach, dialect_rule, rule
from fundus_export.dialect_check.pairs import (
    Origin,
    Product,
    bias_of,
    origin_of,
    products,
    quantised_type,
)
from fundus_export.dialect_check.sources import (
    BIAS_SCALE,
    CONSTANTS,
    CONV_BIAS,
    FP16_RANGE,
    INT8_WEIGHTS,
    LAYERS,
    PRECISION,
)
from fundus_export.dialect_check.traits import Traits
from fundus_export.dialect_check.view import (
    Array,
    UntrustedView,
    attribute,
    called,
    is_external,
    type_name,
)

__all__ = ["FLOAT_RULES", "QUANTISED_RULES", "RULES", "TENSORRT_RULES"]

_LOWEST_WEIGHT = -127
# Products of two FP32 scales are rounded once.
_SCALE_TOLERANCE = 1e-5


@rule(
    "weights-inline",
    "all weights are inside the file",
    source=PRECISION,
)
def _inline(view: UntrustedView) -> Iterator[Breach]:
    outside = [tensor.name for tensor in view.constants if is_external(tensor)]
    for name in (*outside, *(sparse.values.name for sparse in view.model.graph.sparse_initializer)):
        yield Breach(name, "its values are not in the file itself; save the model with all inside")


@rule(
    "weights-finite",
    "no weight is NaN or infinite",
    source=FP16_RANGE,
)
def _finite(view: UntrustedView) -> Iterator[Breach]:
    for tensor in view.constants:
        value = view.value(tensor.name)
        if value is None or value.dtype.kind != "f" or np.isfinite(value).all():
            continue
        bad = int(np.size(value) - np.isfinite(value).sum())
        yield Breach(
            _reader_name(view, tensor.name),
            f"{bad} of the {np.size(value)} {type_name(tensor.data_type)} numbers in {tensor.name} "
            "are NaN or infinite; use another checkpoint, or keep a layer that FP16 cannot hold in "
            "FP32",
        )


@rule(
    "weights-underflow",
    "no FP16 weight is all zero",
    source=FP16_RANGE,
)
def _underflow(view: UntrustedView) -> Iterator[Breach]:
    for product in products(view):
        name = product.node.input[product.weight]
        value = view.value(name)
        if value is not None and value.dtype == np.float16 and not value.any():
            yield Breach(
                called(product.node),
                f"its weight {name} is nothing but zeros, as after an underflow; keep the layer in "
                "FP32, or use another checkpoint",
            )


@dialect_rule(
    "weight-form",
    "a quantised weight is INT8 behind a DQ (`int8-trt8`: FP32 behind Q and DQ)",
    source=CONSTANTS,
)
def _form(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    for product, origin in _quantised_weights(view):
        stored = view.element_type(origin.tensor)
        if traits.weights_as_int8 and (origin.quantize or stored != TensorProto.INT8):
            yield Breach(
                called(product.node),
                f"its weight {origin.tensor} is stored as {type_name(stored)}"
                f"{' with a Q' if origin.quantize else ''}, expected int8 with a DQ alone; store "
                "the quantised numbers",
            )
        if not traits.weights_as_int8 and (not origin.quantize or stored != TensorProto.FLOAT):
            yield Breach(
                called(product.node),
                f"its weight {origin.tensor} is stored as {type_name(stored)}"
                f"{'' if origin.quantize else ' without a Q'}, expected float with Q and DQ, since "
                "TensorRT 8.x takes no INT8 weights; write it for int8-trt8",
            )


@rule(
    "weight-per-channel",
    "a quantised weight has one scale an output channel, on that axis",
    source=LAYERS,
)
def _per_channel(view: UntrustedView) -> Iterator[Breach]:
    for product, origin in _quantised_weights(view):
        shape = view.shape(origin.tensor)
        for node in filter(None, (origin.quantize, origin.dequantize)):
            scale = view.value(node.input[1])
            if shape is None or scale is None:
                continue
            axis = product.weight_axis % len(shape)
            if scale.size != shape[axis] or (scale.size > 1 and _axis(node, len(shape)) != axis):
                yield Breach(
                    called(product.node),
                    f"{called(node)} has {scale.size} scales on axis {attribute(node, 'axis')} of "
                    f"{origin.tensor}, expected {shape[axis]} on axis {axis}; quantise per channel",
                )


@rule(
    "weight-range",
    "a stored INT8 weight is at least -127",
    source=INT8_WEIGHTS,
)
def _range(view: UntrustedView) -> Iterator[Breach]:
    for product, origin in _quantised_weights(view):
        value = view.value(origin.tensor)
        if value is not None and value.dtype == np.int8 and value.min(initial=0) < _LOWEST_WEIGHT:
            yield Breach(
                called(product.node),
                f"its weight {origin.tensor} holds -128, expected -127 to 127; divide the largest "
                "magnitude by 127",
            )


@rule(
    "bias-float",
    "biases are constants that are not quantised",
    source=CONV_BIAS,
)
def _bias_float(view: UntrustedView) -> Iterator[Breach]:
    for product in products(view):
        name = bias_of(product.node)
        if name is not None and not view.is_constant(name):
            what = "quantised" if origin_of(view, name).is_quantised else "computed"
            yield Breach(
                called(product.node),
                f"its bias {name} is {what}, expected a constant in float; quantise with "
                "QuantizeBias=False",
            )


@rule(
    "bias-int32",
    "the bias of a quantised product is INT32 in units of both scales, from zero",
    source=BIAS_SCALE,
)
def _bias_int32(view: UntrustedView) -> Iterator[Breach]:
    for product in products(view):
        name = bias_of(product.node)
        data, weight = (origin_of(view, tensor) for tensor in product.node.input[:2])
        if name is None or not (data.is_quantised and weight.is_quantised):
            continue
        bias = origin_of(view, name)
        if _bias_type(view, bias) != TensorProto.INT32 or bias.quantize:
            yield Breach(
                called(product.node),
                f"its bias {name} is not INT32 behind a DQ, so that the product runs in FP32; "
                "quantise it with the rest",
            )
        elif not _is_product(*(_scale(view, origin) for origin in (bias, data, weight))):
            yield Breach(
                called(product.node),
                f"the scale of its bias {name} is not the product of its inputs' scales, so that "
                "integer kernels would add another bias; quantise it again",
            )


def _bias_type(view: UntrustedView, bias: Origin) -> int | None:
    return None if bias.dequantize is None else quantised_type(view, bias.dequantize)


def _is_product(bias: Array | None, data: Array | None, weight: Array | None) -> bool:
    if bias is None or data is None or weight is None or data.size != 1:
        return False
    wanted = np.ravel(weight.astype(np.float64)) * float(data.ravel()[0])
    found = np.ravel(bias.astype(np.float64))
    return found.size in (1, wanted.size) and np.allclose(
        found, wanted, rtol=_SCALE_TOLERANCE, atol=0
    )


def _scale(view: UntrustedView, origin: Origin) -> Array | None:
    node = origin.dequantize
    return None if node is None or len(node.input) < 2 else view.value(node.input[1])


def _quantised_weights(view: UntrustedView) -> Iterator[tuple[Product, Origin]]:
    for product in products(view):
        origin = origin_of(view, product.node.input[product.weight])
        if product.has_weight and origin.is_quantised:
            yield product, origin


def _axis(node: NodeProto, rank: int) -> int:
    return int(1 if (axis := attribute(node, "axis")) is None else axis) % rank


def _reader_name(view: UntrustedView, constant: str) -> str:
    readers = view.readers(constant)
    return called(readers[0][0]) if readers else constant


FLOAT_RULES = (_inline, _finite)
HALF_RULES = (_underflow,)
QUANTISED_RULES = (_form, _per_channel, _range)
TENSORRT_RULES = (_bias_float,)
CPU_RULES = (_bias_int32,)
RULES = (*FLOAT_RULES, *HALF_RULES, *QUANTISED_RULES, *TENSORRT_RULES, *CPU_RULES)
