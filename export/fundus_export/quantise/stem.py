"""A trunk's first convolution for the CPU: each block of 2 x 2 pixels becomes one with 12 channels.

ResNet begins with 7 x 7 weights that step by two pixels over three colours. ONNX Runtime gathers
49 times three bytes for each of its answers, which takes longer than the products. Over blocks it
is a convolution with 4 x 4 weights that steps by one and gathers 16 times twelve bytes: the same
products, and some with weights that are zero. On the CPUs that the dialect is for, which sum
integers exactly, every answer stays the same bit.

Contract: the zero point of the weights is 0, as in every dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from fundus_export.graph_edit import replace_nodes
from fundus_export.graph_view import GraphView, attribute, int_attribute

__all__ = ["fold_stem"]

_BLOCK = 2
# What smaller kernels gather is not worth the rearrangement, nor are images of many channels.
_LEAST_KERNEL = 5
_MOST_CHANNELS = 4

Weights = npt.NDArray[Any]


def fold_stem(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a quantised encoder with its first convolution folded, where that can be.

    Names of tensors and nodes are kept; the weights change their shape.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    view = GraphView(model)
    stem = next(filter(None, (_stem(view, node) for node in view.nodes)), None)
    if stem is None:
        return folded
    blocks = f"{stem.image}_blocks"
    nodes: list[onnx.NodeProto] = []
    for node in folded.graph.node:
        if node.name == stem.quantize.name:
            fold = helper.make_node(
                "SpaceToDepth", [stem.image], [blocks], f"{blocks}_SpaceToDepth", blocksize=_BLOCK
            )
            nodes.append(fold)
            node.input[0] = blocks
        elif node.name == stem.convolution.name:
            _set_attributes(node, _over_blocks(stem.kernel))
        nodes.append(node)
    replace_nodes(folded.graph, nodes)
    for tensor in folded.graph.initializer:
        if tensor.name == stem.weights:
            tensor.CopyFrom(
                numpy_helper.from_array(_folded(view.constant(tensor.name)), tensor.name)
            )
    return folded


class _Stem(NamedTuple):
    """Q of the image, and the convolution on it with `kernel` x `kernel` INT8 weights."""

    image: str
    quantize: onnx.NodeProto
    convolution: onnx.NodeProto
    weights: str
    kernel: int


def _stem(view: GraphView, node: onnx.NodeProto) -> _Stem | None:
    """The stem that a node is the convolution of, where it can be folded."""
    if node.op_type != "Conv":
        return None
    quantize = view.producer(_dequantised_alone(view, node.input[0]))
    weights = _dequantised_alone(view, node.input[1])
    if quantize is None or quantize.op_type != "QuantizeLinear" or not view.is_constant(weights):
        return None
    image, kernel = quantize.input[0], view.constant(weights).shape[2:]
    if image not in view.inputs or not _has_blocks(view.shape(image)):
        return None
    if len(set(kernel)) != 1 or not _steps_by_two(node, kernel[0]):
        return None
    return _Stem(image, quantize, node, weights, kernel[0])


def _dequantised_alone(view: GraphView, name: str) -> str:
    """The 8-bit tensor behind a DQ, where nothing else reads either; else no name."""
    producer = view.producer(name)
    if producer is None or producer.op_type != "DequantizeLinear":
        return ""
    alone = view.sole_reader(name) and view.sole_reader(producer.input[0])
    return str(producer.input[0]) if alone else ""


def _steps_by_two(node: onnx.NodeProto, kernel: int) -> bool:
    """Whether a convolution takes every second pixel, with the kernel centred on it."""
    return (
        kernel >= _LEAST_KERNEL
        and kernel % 2 == 1
        and attribute(node, "strides") == [2, 2]
        and attribute(node, "pads") == [kernel // 2] * 4
        and attribute(node, "dilations") in (None, [1, 1])
        and int_attribute(node, "group", 1) == 1
    )


def _has_blocks(shape: tuple[int | None, ...] | None) -> bool:
    """Whether an image N x C x H x W has few channels and divides into blocks."""
    if shape is None or len(shape) != 4 or None in shape[1:]:
        return False
    channels, height, width = (side or 0 for side in shape[1:])
    return channels <= _MOST_CHANNELS and height % _BLOCK == width % _BLOCK == 0


class _Reach(NamedTuple):
    """How a centred kernel lies over blocks.

    Attributes:
        before: blocks that it reaches before its own.
        after: and behind it.
        lead: pixels of the first block that lie before the kernel.
    """

    before: int
    after: int
    lead: int

    @property
    def taps(self) -> int:
        """The kernel's side in blocks."""
        return self.before + 1 + self.after


def _reach(kernel: int) -> _Reach:
    padding = kernel // 2
    before = (padding + 1) // _BLOCK
    return _Reach(before, padding // _BLOCK, _BLOCK * before - padding)


def _over_blocks(kernel: int) -> Mapping[str, list[int]]:
    """The attributes of the convolution over blocks."""
    reach = _reach(kernel)
    pads = [reach.before] * 2 + [reach.after] * 2
    return {"kernel_shape": [reach.taps] * 2, "strides": [1, 1], "pads": pads}


def _folded(weights: Weights) -> Weights:
    """K x C x k x k weights over pixels as K x 4C x t x t weights over blocks."""
    outputs, channels, kernel, _ = weights.shape
    reach = _reach(kernel)
    taps, covered = reach.taps, slice(reach.lead, reach.lead + kernel)
    padded = np.zeros((outputs, channels, _BLOCK * taps, _BLOCK * taps), weights.dtype)
    padded[:, :, covered, covered] = weights
    # SpaceToDepth counts rows of a block first, then columns, then channels
    parts = padded.reshape(outputs, channels, taps, _BLOCK, taps, _BLOCK)
    return parts.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, -1, taps, taps)


def _set_attributes(node: onnx.NodeProto, values: Mapping[str, list[int]]) -> None:
    kept = [entry for entry in node.attribute if entry.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
