"""`GateReadings`: what the gates measure of one photograph, whole numbers alone.

The reference (`fundus_runtime.gates.reference`) defines them; the native core computes the same
integers. Everything that is floating point afterwards is derived from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CELLS", "GateReadings"]

CELLS = 96


@dataclass(frozen=True, eq=False)
class GateReadings:
    """Measured on 96 x 96 cells of the disc: a row through the middle of each, averaged across.

    Attributes:
        cells: how many of the cells lie inside disc and frame.
        red: median level of the cells, in sixteenths of a level, 0 to 4080.
        green: the same.
        blue: the same.
        red_over_blue: 90th percentile of the cells' red minus blue, sixteenths of a level.
        shaded_permille: cells whose red is under 40 % of its 80th percentile, in thousandths.
        clipped_permille: cells whose green is near full scale, in thousandths.
        detail: 97th percentile of how much darker in green a cell is than both neighbours along
            one of four directions: what vessels are; sixteenths of a level.
        noise: what `detail` would be of the pixels' noise alone, sixteenths of a level.
        levels: uint16 (96, 96, 3) RGB, the cells in sixteenths of a level, 0 outside.
        inside: bool (96, 96), cells inside disc and frame.
    """

    cells: int
    red: int
    green: int
    blue: int
    red_over_blue: int
    shaded_permille: int
    clipped_permille: int
    detail: int
    noise: int
    levels: NDArray[np.uint16]
    inside: NDArray[np.bool_]
