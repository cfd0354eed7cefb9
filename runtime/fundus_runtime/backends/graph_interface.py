"""Holds the inputs and outputs of an ONNX Runtime session to the protocol's names and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fundus_runtime.backends.protocol import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    HEAD_INPUTS,
    HEAD_OUTPUTS,
    named_as,
)
from fundus_runtime.errors import EngineError

__all__ = ["Names", "require_interface"]

Names = tuple[str, ...]


def require_interface(
    encoder: Any, head: Any, *, size: int, class_count: int
) -> tuple[Names, Names]:
    """Which of the protocol's inputs and outputs an encoder has, both sessions being whole.

    Args:
        encoder: its session.
        head: its session.
        size: side S of the input in pixels.
        class_count: K.

    Raises:
        EngineError: a graph has other inputs and outputs, or of other shapes.
    """
    inputs = _require_names("encoder", "inputs", encoder.get_inputs(), ENCODER_INPUTS)
    outputs = _require_names("encoder", "outputs", encoder.get_outputs(), ENCODER_OUTPUTS)
    _require_names("head", "inputs", head.get_inputs(), (HEAD_INPUTS,))
    _require_names("head", "outputs", head.get_outputs(), (HEAD_OUTPUTS,))
    image, *is_left = _in_order(encoder.get_inputs(), inputs)
    _require_shape("encoder", image, (None, 3, size, size))
    features, *of_eyes = _in_order(encoder.get_outputs(), outputs)
    _require_shape("encoder", features, (None, None, None, None))
    for node in is_left:
        _require_shape("encoder", node, (None,))
    # eye_logits, then eye_maps; a graph may leave the grid's size open
    for node, grid in zip(of_eyes, ((), (None, None)), strict=False):
        _require_shape("encoder", node, (None, class_count, *grid))
    left, right, *present = _in_order(head.get_inputs(), HEAD_INPUTS)
    for side in (left, right):
        _require_shape("head", side, (None, *features.shape[1:]))
    for flag in present:
        _require_shape("head", flag, (None,))
    _require_shape("head", head.get_outputs()[0], (None, class_count))
    return inputs, outputs


def _in_order(nodes: Sequence[Any], names: Sequence[str]) -> list[Any]:
    by_name = {node.name: node for node in nodes}
    return [by_name[name] for name in names]


def _require_names(graph: str, kind: str, nodes: Sequence[Any], forms: Sequence[Names]) -> Names:
    came = [node.name for node in nodes]
    form = named_as(came, forms)
    if form is None:
        raise EngineError(
            f"the {graph} graph has the {kind} {came}, expected "
            f"{' or '.join(str(list(form)) for form in forms)}; export the bundle again"
        )
    for node in nodes:
        if node.type != "tensor(float)":
            raise EngineError(
                f"the {graph} graph's {node.name!r} is {node.type}, expected tensor(float)"
            )
    return form


def _require_shape(graph: str, node: Any, expected: tuple[object, ...]) -> None:
    """Compare a node's shape with the expected one; names and None fit every size."""
    came = list(node.shape)
    fits = len(came) == len(expected) and all(
        not isinstance(size, int) or not isinstance(wanted, int) or size == wanted
        for size, wanted in zip(came, expected, strict=True)
    )
    # a batch written into the graph as a number would fail on the other exams
    if not fits or isinstance(came[0], int):
        words = ["N", *("any" if not isinstance(size, int) else size for size in expected[1:])]
        raise EngineError(
            f"the {graph} graph's {node.name!r} has the shape {came}, expected "
            f"{words} with a dynamic first axis; export the bundle again"
        )
