"""Small edits of an ONNX graph that several writers need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt
import onnx
from onnx import numpy_helper

__all__ = ["add_constants", "drop_unread_constants", "replace_nodes"]


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph these nodes, which may be its own; shapes that it stated are forgotten."""
    texts = [node.SerializeToString() for node in nodes]
    del graph.node[:]
    graph.node.extend(onnx.NodeProto.FromString(text) for text in texts)
    del graph.value_info[:]


def add_constants(graph: onnx.GraphProto, constants: Mapping[str, npt.NDArray[Any]]) -> None:
    """Add initializers."""
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())


def drop_unread_constants(graph: onnx.GraphProto) -> None:
    """Drop the initializers that no node reads."""
    read = {name for node in graph.node for name in node.input}
    unread = [i for i, tensor in enumerate(graph.initializer) if tensor.name not in read]
    for index in reversed(unread):
        del graph.initializer[index]
