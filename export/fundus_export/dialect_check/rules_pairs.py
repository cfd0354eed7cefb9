"""Parameters of Q/DQ: scales, zero points, types and axes, and that pairs are pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from fundus_export.dialect_check.findings import Breach, dialect_rule, rule
from fundus_export.dialect_check.pairs import (
    DEQUANTIZE,
    QUANTIZE,
    bias_of,
    is_of_constant,
    pair_nodes,
    quantised_type,
)
from fundus_export.dialect_check.sources import (
    IMPORTERS,
    LAYERS,
    ORT_FUSIONS,
    ORT_TENSORRT,
    PLACEMENT,
)
from fundus_export.dialect_check.traits import Traits
from fundus_export.dialect_check.view import Array, UntrustedView, attribute, called, type_name

__all__ = ["RULES"]


@dialect_rule(
    "qdq-inputs",
    "a Q names its zero point (`int8-trt8`: every Q and DQ has three inputs)",
    source=IMPORTERS + ": 8.x asserts three inputs; without one ONNX means UINT8, TensorRT INT8",
)
def _inputs(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    for node in pair_nodes(view):
        needed = node.op_type == QUANTIZE or traits.always_zero_point
        if needed and _zero_point_name(node) is None:
            yield Breach(
                called(node),
                f"it has {len(node.input)} inputs, expected scale and zero point; write the zero "
                "point out",
            )


@rule(
    "qdq-constant",
    "scales and zero points are initializers",
    source=LAYERS + ": scale and zero point must be build-time constants",
)
def _constant(view: UntrustedView) -> Iterator[Breach]:
    for node in pair_nodes(view):
        for name in filter(None, node.input[1:]):
            if not view.is_constant(name):
                yield Breach(called(node), f"{name} is computed; quantise with fixed ranges")


@dialect_rule(
    "qdq-type",
    "activations and weights are INT8 (`int8-cpu`: activations UINT8)",
    source=IMPORTERS + ": UINT8 is refused",
)
def _type(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    biases = {bias_of(node) for node in view.nodes}
    for node in pair_nodes(view):
        is_weight = is_of_constant(view, node)
        if node.output[0] in biases and is_weight:
            continue  # the rules for biases are their own
        expected = TensorProto.INT8 if is_weight else traits.activation_type
        if (found := quantised_type(view, node)) != expected:
            yield Breach(
                called(node),
                f"it quantises {'a weight' if is_weight else 'an activation'} to "
                f"{type_name(found)}, expected {type_name(expected)}; quantise again for "
                f"{traits.name}",
            )


@dialect_rule(
    "qdq-scale-type",
    "scales are FP32 (`int8-trt`: FP16, as everything around them)",
    source=IMPORTERS + ": 8.x reads scales as float; from 10.0 on the scale's type is the DQ's",
)
def _scale_type(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    for node in pair_nodes(view):
        if (found := view.element_type(node.input[1])) != traits.scale_type:
            yield Breach(
                called(node),
                f"its scale is {type_name(found)}, expected {type_name(traits.scale_type)}; "
                f"write it for {traits.name}",
            )


@rule(
    "qdq-scale",
    "scales are finite, above zero and normal numbers of their type",
    source=IMPORTERS + ": scale coefficients must all be positive",
)
def _scale(view: UntrustedView) -> Iterator[Breach]:
    for node in pair_nodes(view):
        scale = view.value(node.input[1])
        if scale is None or scale.dtype.kind != "f":
            continue
        smallest = float(np.finfo(scale.dtype).tiny)
        good = np.isfinite(scale) & (scale.astype(np.float64) >= smallest)
        if not good.all():
            worst = np.ravel(scale)[np.ravel(~good)][0]
            yield Breach(
                called(node),
                f"{int((~good).sum())} of its {scale.size} scales are like {worst}, expected at "
                f"least {smallest:.3g}; a channel is dead or small: clamp its scale",
            )


@dialect_rule(
    "qdq-zero-point",
    "zero points are zero, as many as scales (`int8-cpu`: activations may have any)",
    source=IMPORTERS + ": only symmetric quantisation; scale and zero point have the same volume",
)
def _zero_point(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    for node in pair_nodes(view):
        name = _zero_point_name(node)
        zero = None if name is None else view.value(name)
        scale = view.value(node.input[1])
        if zero is None or scale is None:
            continue
        if zero.size != scale.size:
            yield Breach(
                called(node),
                f"it has {zero.size} zero points for {scale.size} scales; write one each",
            )
        elif zero.any() and (
            traits.activation_type == TensorProto.INT8 or is_of_constant(view, node)
        ):
            yield Breach(
                called(node),
                f"its zero point is {zero.ravel()[zero.ravel() != 0][0]}, expected 0; quantise "
                "symmetrically (ActivationSymmetric, WeightSymmetric)",
            )


@rule(
    "qdq-axis",
    "activations have one scale, weights a stated axis as long as their scales",
    source=IMPORTERS + ": without an axis ONNX means 1 and TensorRT 0; " + LAYERS,
)
def _axis(view: UntrustedView) -> Iterator[Breach]:
    for node in pair_nodes(view):
        scale = view.value(node.input[1])
        if scale is None or scale.size == 1:
            continue
        if not is_of_constant(view, node):
            yield Breach(
                called(node),
                f"it has {scale.size} scales for an activation, expected one; quantise"
                " activations per tensor",
            )
        elif (complaint := _complaint_of_axis(view, node, scale)) is not None:
            yield Breach(called(node), complaint)


@rule(
    "qdq-pair",
    "a DQ has the scale and the zero point of its Q",
    source=ORT_FUSIONS,
)
def _pair(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes_of(DEQUANTIZE):
        quantize = view.producer(node.input[0])
        if quantize is None or quantize.op_type != QUANTIZE:
            continue
        for index, what in ((1, "scale"), (2, "zero point")):
            if not _is_same(view, _input(quantize, index), _input(node, index)):
                yield Breach(
                    called(node), f"its {what} is not that of {called(quantize)}; share both"
                )


@rule(
    "qdq-dangling",
    "a Q is read by a DQ alone, a DQ reads a Q or a constant, and somebody reads it",
    source=LAYERS,
)
def _dangling(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes_of(QUANTIZE, DEQUANTIZE):
        if (complaint := _loose_end(view, node)) is not None:
            yield Breach(called(node), complaint)


@rule(
    "qdq-chain",
    "a Q does not read a DQ",
    source=PLACEMENT,
)
def _chain(view: UntrustedView) -> Iterator[Breach]:
    for node in view.nodes_of(QUANTIZE):
        producer = view.producer(node.input[0])
        if producer is not None and producer.op_type == DEQUANTIZE:
            yield Breach(
                called(node), f"it quantises what {called(producer)} dequantised; drop one pair"
            )


@rule(
    "qdq-double",
    "a tensor has one pair, which its readers share",
    source=ORT_TENSORRT,
)
def _double(view: UntrustedView) -> Iterator[Breach]:
    for name in dict.fromkeys(node.input[0] for node in view.nodes_of(QUANTIZE, DEQUANTIZE)):
        if view.is_constant(name):
            continue  # layers that share weights may have a DQ each
        for operator in (QUANTIZE, DEQUANTIZE):
            count = sum(node.op_type == operator for node, _ in view.readers(name))
            if count > 1:
                yield Breach(name, f"{count} {operator} read it, expected one; share the pair")


def _loose_end(view: UntrustedView, node: NodeProto) -> str | None:
    readers = [reader for reader, _ in view.readers(node.output[0])]
    is_output = node.output[0] in view.outputs
    if not readers and not is_output:
        return "nobody reads it; take it out"
    if node.op_type == QUANTIZE:
        if is_output or any(reader.op_type != DEQUANTIZE for reader in readers):
            return "something else than a DQ reads it; put a DQ behind it"
        return None
    producer = view.producer(node.input[0])
    if view.is_constant(node.input[0]) or (producer and producer.op_type == QUANTIZE):
        return None
    return f"{node.input[0]} comes out of no Q; put a Q before it"


def _complaint_of_axis(view: UntrustedView, node: NodeProto, scale: Array) -> str | None:
    axis, shape = attribute(node, "axis"), view.shape(node.input[0])
    if axis is None:
        return "it states no axis, which ONNX reads as 1 and TensorRT as 0; write it"
    if shape is None:
        return None
    if scale.ndim != 1 or not -len(shape) <= axis < len(shape) or shape[axis] != scale.size:
        return (
            f"it has {scale.size} scales on axis {axis} of {' x '.join(map(str, shape))}; quantise "
            "per channel, not in blocks"
        )
    return None


def _is_same(view: UntrustedView, one: str | None, other: str | None) -> bool:
    if one == other:
        return True
    values = [None if name is None else view.value(name) for name in (one, other)]
    if one is None or other is None:  # only zero points may be left out, and then they are zero
        return not any(value is not None and value.any() for value in values)
    first, second = values
    return first is not None and second is not None and np.array_equal(first, second)


def _zero_point_name(node: NodeProto) -> str | None:
    return _input(node, 2)


def _input(node: NodeProto, index: int) -> str | None:
    return (node.input[index] or None) if index < len(node.input) else None


RULES = (
    _inputs,
    _constant,
    _type,
    _scale_type,
    _scale,
    _zero_point,
    _axis,
    _pair,
    _dangling,
    _chain,
    _double,
)
