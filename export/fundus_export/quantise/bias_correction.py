"""Bias correction: what rounding the weights adds to every output on average is taken off the bias.

Rounding changes a channel's weights by W_q - W, and with it the channel's mean answer by
(W_q - W) E[x]: a shift that the next layers cannot tell from a finding. With the mean input of each
channel, measured on the calibration photographs, it is known beforehand and costs nothing to undo
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
section 4.2). Zero padding at a map's rim is left out of account.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fundus_export.errors import ExportError
from fundus_export.graph_view import int_attribute
from fundus_export.quantise.ranges import TensorRange

__all__ = ["bias_shifts"]

Floats = npt.NDArray[np.float64]


def bias_shifts(
    node: onnx.NodeProto,
    source: str,
    rounding: Floats,
    ranges: Mapping[str, TensorRange],
) -> Floats | None:
    """What to add to a product's bias.

    Args:
        node: a convolution or a matrix product.
        source: the node's input in the FP32 graph.
        rounding: W - W_q, in the shape of the weights.
        ranges: with the means of the node's input.

    Returns:
        A number an output channel; None where the means are unknown or the node takes no bias.

    Raises:
        ExportError: there are means of another number of channels.
    """
    measured = ranges.get(source)
    if measured is None or not measured.means or node.op_type == "MatMul":
        return None
    means = np.asarray(measured.means)
    groups = int_attribute(node, "group", 1)
    transposed = int_attribute(node, "transB", 0)
    channels = rounding.shape[1] * groups if node.op_type == "Conv" or transposed else len(rounding)
    if means.shape != (channels,):
        raise ExportError(
            f"the recipe has {means.size} means of {source!r}, of which {node.name} reads "
            f"{channels} channels; the recipe was made for another graph: calibrate again"
        )
    if node.op_type == "Conv":
        return _of_convolution(rounding, means, groups)
    return rounding @ means if transposed else means @ rounding


def _of_convolution(rounding: Floats, means: Floats, groups: int) -> Floats:
    """Each group's outputs see the group's inputs alone."""
    per_input = rounding.sum(axis=tuple(range(2, rounding.ndim)))
    outputs, inputs = per_input.shape
    by_group = per_input.reshape(groups, outputs // groups, inputs)
    shifts: Any = np.einsum("goi,gi->go", by_group, means.reshape(groups, inputs))
    return shifts.reshape(outputs)  # type: ignore[no-any-return]
