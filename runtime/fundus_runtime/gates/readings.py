"""`GateReadings`: what the gates measure of one photograph, whole numbers alone.

The reference (`fundus_runtime.gates.reference`) defines them; the native core computes the same
integers. Everything that is floating point afterwards is derived from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOSAIC", "GateReadings"]

MOSAIC = 32


@dataclass(frozen=True, eq=False)
class GateReadings:
    """Measured on 96 x 96 cells of the disc: a row through the middle of each, averaged across.

    Attributes:
        cells: how many of the cells lie inside disc and frame.
        red: median level of the cells, in sixteenths of a level, 0 to 4080.
        green: the same.
        blue: the same.
        dark_permille: cells whose largest channel is near black, in thousandths.
        clipped_permille: cells whose green is near full scale, in thousandths.
        detail: 97th percentile of how much darker in green a cell is than both neighbours along
            one of four directions: what vessels are; sixteenths of a level.
        noise: pixel noise left after averaging over a network pixel, hundredths of a level.
        mosaic: int32 (32, 32, 3) RGB, sums over 3 x 3 cells inside, sixteenths of a level.
        counts: int32 (32, 32), how many cells each sum holds, 0 to 9.
    """

    cells: int
    red: int
    green: int
    blue: int
    dark_permille: int
    clipped_permille: int
    detail: int
    noise: int
    mosaic: NDArray[np.int32]
    counts: NDArray[np.int32]
