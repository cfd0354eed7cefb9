"""Where a typed FP16 graph may stay FP32: around tensors that a calibration saw near FP16's end.

Read off the graph itself and what was measured, so that whoever wrote the graph is not taken at
their word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from onnx import NodeProto, TensorProto

from fundus_export.dialect_check.pairs import QUANTIZE, origin_of, products
from fundus_export.dialect_check.view import GraphView, called
from fundus_export.half import LARGEST_SAFE

__all__ = ["islands_around", "with_pairs"]

_FLOAT = TensorProto.FLOAT
_LARGEST_HALF = 65504.0


def islands_around(view: GraphView, largest: Mapping[str, float]) -> frozenset[str]:
    """Nodes that may compute in FP32 since FP16 might not reach as far.

    These are nodes that make or read a tensor beyond the safe range, those between them and the
    next conversion or product, products that share a factor with one of these, and nodes with a
    constant that FP16 cannot hold.

    Args:
        view: of the graph to check.
        largest: the largest magnitude that a calibration saw, by tensor.
    """
    heads = [name for name, value in largest.items() if value > LARGEST_SAFE]
    allowed = {called(node) for node in view.nodes if _has_large_constant(view, node)}
    seen = set(heads)
    weighted = {called(product.node) for product in products(view)}
    while heads:
        name = heads.pop()
        for node in _neighbours(view, name):
            allowed.add(called(node))
            if called(node) in weighted:
                continue
            reached = set(_full_tensors(view, node)) - seen
            seen |= reached
            heads += sorted(reached)
    return frozenset(allowed | set(_sharing(view, allowed)))


def with_pairs(view: GraphView, nodes: Collection[str]) -> frozenset[str]:
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


def _has_large_constant(view: GraphView, node: NodeProto) -> bool:
    values = (view.value(name) for name in node.input if view.element_type(name) == _FLOAT)
    return any(v is not None and np.abs(v).max(initial=0) > _LARGEST_HALF for v in values)


def _neighbours(view: GraphView, name: str) -> Iterator[NodeProto]:
    """Who makes and reads a tensor, through its pair as well, conversions left out."""
    made = view.producer(name)
    readers = [reader for reader, _ in view.readers(name)]
    for reader in [reader for reader in readers if reader.op_type == QUANTIZE]:
        for dequantize, _ in view.readers(reader.output[0]):
            readers += [node for node, _ in view.readers(dequantize.output[0])]
    for node in (*([] if made is None else [made]), *readers):
        if node.op_type not in ("Cast", QUANTIZE):
            yield node


def _full_tensors(view: GraphView, node: NodeProto) -> Iterator[str]:
    """FP32 tensors that a node makes or reads, before their pairs."""
    for name in filter(None, (*node.input, *node.output)):
        tensor = origin_of(view, name).tensor
        if not view.is_constant(tensor) and view.element_type(tensor) == _FLOAT:
            yield tensor


def _sharing(view: GraphView, allowed: Collection[str]) -> Iterator[str]:
    """Products that read a factor of an allowed product's."""
    factors = {
        name
        for product in products(view)
        if called(product.node) in allowed
        for name in product.node.input[:2]
    }
    for product in products(view):
        if factors.intersection(product.node.input[:2]):
            yield called(product.node)
