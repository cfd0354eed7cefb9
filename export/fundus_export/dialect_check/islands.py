"""Where a typed FP16 graph may stay FP32: around tensors that a calibration saw near FP16's end.

Read off the graph itself and what was measured, so that whoever wrote the graph is not taken at
their word: nodes that hang together in FP32 are an island, and an island needs a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from onnx import NodeProto, TensorProto

from fundus_export.dialect_check.pairs import origin_of
from fundus_export.dialect_check.view import UntrustedView, called
from fundus_export.half import LARGEST_SAFE

__all__ = ["islands_around", "with_pairs"]

_FLOAT = TensorProto.FLOAT
_LARGEST_HALF = 65504.0
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def islands_around(view: UntrustedView, largest: Mapping[str, float]) -> frozenset[str]:
    """Nodes that may compute in FP32 since FP16 might not reach as far.

    The reason of an island is a tensor beyond the safe range or a constant that FP16 cannot hold.

    Args:
        view: of the graph to check.
        largest: the largest magnitude that a calibration saw, by tensor.
    """
    full = [node for node in view.nodes if _is_full(view, node)]
    touching: dict[str, list[NodeProto]] = {}
    for node in full:
        for name in _full_tensors(view, node):
            touching.setdefault(name, []).append(node)
    found = {called(node): node for node in full if _has_reason(view, node, largest)}
    heads = list(found.values())
    while heads:
        for name in _full_tensors(view, heads.pop()):
            joining = [node for node in touching[name] if called(node) not in found]
            found.update((called(node), node) for node in joining)
            heads += joining
    return frozenset(found)


def with_pairs(view: UntrustedView, nodes: Collection[str]) -> frozenset[str]:
    """Nodes, and the Q and DQ through which they read."""
    attached = {
        called(pair)
        for node in view.nodes
        if called(node) in nodes
        for name in filter(None, node.input)
        for pair in (origin_of(view, name).quantize, origin_of(view, name).dequantize)
        if pair is not None
    }
    return frozenset({*nodes, *attached})


def _is_full(view: UntrustedView, node: NodeProto) -> bool:
    """Whether a node computes in FP32; conversions compute nothing and end an island."""
    return node.op_type != "Cast" and any(True for _ in _full_tensors(view, node))


def _full_tensors(view: UntrustedView, node: NodeProto) -> Iterator[str]:
    """FP32 tensors that tie a node to others: what it makes and reads, its weight included."""
    for index, name in (*((-1, name) for name in node.output), *enumerate(node.input)):
        is_weight = node.op_type in _PRODUCTS and index == 1
        if view.element_type(name) == _FLOAT and (is_weight or not view.is_constant(name)):
            yield name
            # the other side of a pair
            yield origin_of(view, name).tensor


def _has_reason(view: UntrustedView, node: NodeProto, largest: Mapping[str, float]) -> bool:
    seen = max((largest.get(name, 0.0) for name in _full_tensors(view, node)), default=0.0)
    return seen > LARGEST_SAFE or any(_is_large(view, name) for name in node.input)


def _is_large(view: UntrustedView, name: str) -> bool:
    value = view.value(name) if view.element_type(name) == _FLOAT else None
    return value is not None and float(np.abs(value).max(initial=0)) > _LARGEST_HALF
