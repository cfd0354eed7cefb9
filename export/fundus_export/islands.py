"""Which nodes of a typed FP16 graph stay FP32, because FP16's range is not enough for them.

FP16 ends at 65504 and thins out below 6e-5. An island holds sums of squares with the norms and
quotients made of them, numbers that FP16 cannot write, and whatever makes or reads a tensor that a
calibration saw beyond `LARGEST_SAFE`. What lies between two parts of an island belongs to it: a
product of two sums of squares is where FP16 ends first.

An island says nothing against INT8, whose scale reaches as far as its own type: inside an island
that is FP32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from onnx import NodeProto, TensorProto

from fundus_export.graph_view import GraphView

__all__ = ["LARGEST_SAFE", "island_of", "tensors_to_watch"]

# An eighth of FP16's largest number: another eye may go beyond what a calibration saw.
LARGEST_SAFE = 65504.0 / 8
_LARGEST = 65504.0
_SMALLEST_NORMAL = 2.0**-14

_ALWAYS = ("ReduceSum", "Sqrt", "Div")
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip")
# What they answer are numbers that they read.
_MOVING = frozenset(
    {
        *("Concat", "Flatten", "Gather", "GatherND", "Identity", "MaxPool", "ReduceMax"),
        *("Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
# A large answer of theirs comes from something that they read and that is half as large.
_NOT_ENLARGING = _MOVING | {*_ACTIVATIONS, "Abs", "Add", "Max", "Neg", "Sub"}


def island_of(
    view: GraphView, largest: Mapping[str, float], extra: Collection[str] = ()
) -> frozenset[str]:
    """Names of the nodes that stay FP32.

    Args:
        view: of the FP32 graph.
        largest: the largest magnitude that a calibration saw, by tensor; may be empty.
        extra: nodes that stay FP32 because somebody asked for it.
    """
    large = _large_tensors(view, largest)
    island = {node.name for node in view.nodes if _needs_range(view, node, large)} | set(extra)
    while joining := _joining(view, island):
        island |= joining
    return frozenset(island)


def tensors_to_watch(view: GraphView) -> tuple[str, ...]:
    """Tensors whose magnitudes tell where FP16 would end.

    What only moves numbers need not be watched, and an activation stands for what it alone reads:
    what it cuts off may become infinite before.
    """
    return tuple(
        name
        for node in view.nodes
        for name in node.output
        if view.element_type(name) == TensorProto.FLOAT
        and node.op_type not in _MOVING
        and not _is_before_activation(view, name)
    )


def _is_before_activation(view: GraphView, name: str) -> bool:
    reader = view.sole_reader(name)
    return reader is not None and reader.op_type in _ACTIVATIONS


def _large_tensors(view: GraphView, largest: Mapping[str, float]) -> frozenset[str]:
    """What was seen beyond the safe range, with what was not measured but must be as large."""
    large = {name for name, value in largest.items() if value > LARGEST_SAFE}
    for node in reversed(view.nodes):
        if node.op_type in _NOT_ENLARGING and large.intersection(node.output):
            large.update(name for name in _computed_inputs(view, node) if name not in largest)
    for node in view.nodes:
        if node.op_type in _MOVING and large.intersection(node.input):
            large.update(name for name in node.output if name not in largest)
    return frozenset(large)


def _needs_range(view: GraphView, node: NodeProto, large: Collection[str]) -> bool:
    if node.op_type in _ALWAYS or _has_extreme_constant(view, node):
        return True
    return any(name in large for name in (*node.input, *node.output))


def _has_extreme_constant(view: GraphView, node: NodeProto) -> bool:
    """A number that FP16 would make infinite, or an epsilon that it would round to nothing."""
    for name in node.input:
        if not view.is_constant(name) or view.element_type(name) != TensorProto.FLOAT:
            continue
        magnitudes = np.abs(view.constant(name))
        most = float(magnitudes.max(initial=0.0))
        tiny = node.op_type not in _PRODUCTS and magnitudes.size == 1
        if most > _LARGEST or (tiny and 0 < most < _SMALLEST_NORMAL):
            return True
    return False


def _joining(view: GraphView, island: Collection[str]) -> set[str]:
    """Nodes that belong to an island besides those that it has."""
    below = _below(view, island)
    return {
        node.name
        for node in view.nodes
        if node.name not in island
        and (
            _shares_pair(view, node, island)
            or (_leads_only_into(view, node, island) and _lies_within(node, below))
        )
    }


def _below(view: GraphView, island: Collection[str]) -> set[str]:
    """Nodes that an island's answers reach with no product in between."""
    reached: set[str] = set()
    below = set()
    for node in view.nodes:
        if not reached.isdisjoint(node.input) and node.op_type not in _PRODUCTS:
            below.add(node.name)
            reached.update(node.output)
        if node.name in island:
            reached.update(node.output)
    return below


def _lies_within(node: NodeProto, below: Collection[str]) -> bool:
    """Whether it stands between parts of an island or makes the terms of its sums."""
    # terms that are products overflow before their sum does
    return node.name in below or node.op_type == "Mul"


def _leads_only_into(view: GraphView, node: NodeProto, island: Collection[str]) -> bool:
    readers = [reader for name in node.output for reader, _ in view.readers(name)]
    return bool(readers) and all(reader.name in island for reader in readers)


def _shares_pair(view: GraphView, node: NodeProto, island: Collection[str]) -> bool:
    """Whether quantising would have it read a tensor through the same pair as one in the island.

    A pair has one type, and a conversion behind it would keep engines from computing in INT8.
    """
    if not _may_read_pairs(view, node):
        return False
    return any(
        reader.name in island and _may_read_pairs(view, reader)
        for name in _readable_through_pairs(view, node)
        for reader, _ in view.readers(name)
    )


def _may_read_pairs(view: GraphView, node: NodeProto) -> bool:
    if node.op_type in _PRODUCTS:
        return True
    made = [view.producer(name) for name in node.input]
    return node.op_type == "Add" and any(one is not None and one.op_type == "Conv" for one in made)


def _readable_through_pairs(view: GraphView, node: NodeProto) -> tuple[str, ...]:
    """Both factors of a product, both terms of a residual addition."""
    names = tuple(node.input[:2])
    return names if node.op_type in _PRODUCTS else tuple(_computed_inputs(view, node))


def _computed_inputs(view: GraphView, node: NodeProto) -> list[str]:
    return [name for name in node.input if name and not view.is_constant(name)]
