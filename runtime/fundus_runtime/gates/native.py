"""The gates' measurements by the native core: what the runtime runs.

Readings equal those of `reference`; what is floating point afterwards is computed as
`structure_reference` and `laterality` define it, but for the order of some sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fundus_runtime import _native
from fundus_runtime.gates.readings import CELLS, GateReadings
from fundus_runtime.preprocess.core_call import Color, require_color
from fundus_runtime.preprocess.eye import FieldOfView
from fundus_runtime.preprocess.refusals import require_frame

__all__ = ["fine_structure", "measure", "side_score"]


def measure(frame: NDArray[np.uint8], field_of_view: FieldOfView, *, color: Color) -> GateReadings:
    """Measure one photograph; see `fundus_runtime.gates.reference.measure`.

    Raises:
        ImageError: `frame` is not H x W x 3 of 8 bits, or too small.
        UsageError: `color` is neither of the two.
    """
    require_frame(frame)
    require_color(color)
    levels = np.empty((CELLS, CELLS, 3), np.uint16)
    inside = np.empty((CELLS, CELLS), np.bool_)
    disc = (
        field_of_view.center_x_px,
        field_of_view.center_y_px,
        field_of_view.radius_x_px,
        field_of_view.radius_y_px,
    )
    figures = _native.measure_gates(frame, disc, color, levels, inside.view(np.uint8))
    return GateReadings(*figures, levels=levels, inside=inside)


def fine_structure(
    green: NDArray[np.uint16], inside: NDArray[np.bool_], cells: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The fine structure of some cells; see `structure_reference.fine_structure`."""
    values = np.empty(np.count_nonzero(cells), np.float64)
    _native.fine_structure(_packed(green), _marks(inside), _marks(cells), values)
    return values


def side_score(
    levels: NDArray[np.uint16], inside: NDArray[np.bool_], weights: NDArray[np.float64]
) -> float:
    """Log odds of a left eye: `laterality.side_features` times the weights of its classifier."""
    return _native.side_score(_packed(levels), _marks(inside), weights)


def _packed(levels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.ascontiguousarray(levels, np.uint16)


def _marks(cells: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(cells, np.bool_).view(np.uint8)
