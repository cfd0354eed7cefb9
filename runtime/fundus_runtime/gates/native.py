"""The gates' readings by the native core: what the runtime runs, equal to the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fundus_runtime import _native
from fundus_runtime.gates.readings import CELLS, GateReadings
from fundus_runtime.preprocess.core_call import Color, require_color
from fundus_runtime.preprocess.eye import FieldOfView
from fundus_runtime.preprocess.refusals import require_frame

__all__ = ["measure"]


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
