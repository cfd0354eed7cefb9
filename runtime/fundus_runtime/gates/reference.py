"""The reference of the gates' readings, in NumPy: the definition that the native core equals.

The disc's bounding box is divided into 96 x 96 cells. Of each, the one frame row through its middle
is read and averaged across, so that at most 96 rows of the frame are touched. All arithmetic is in
whole numbers.
"""

from __future__ import annotations

from math import isqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.gates.readings import CELLS, GateReadings
from fundus_runtime.preprocess.eye import FieldOfView

__all__ = ["measure"]

Frame = NDArray[np.uint8]
Integers = NDArray[np.int32]
Bools = NDArray[np.bool_]

# levels are counted in sixteenths
_STEP = 16
# a cell's centre lies within 0.96 of the radius: (0.96 * 96) ** 2 in half cells
_INSIDE = 8493
_CLIPPED = 245 * _STEP
_NOISE_TO_DETAIL = 90283
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


def measure(
    frame: Frame, field_of_view: FieldOfView, *, color: Literal["rgb", "bgr"]
) -> GateReadings:
    """Measure one photograph.

    Args:
        frame: H x W x 3, 8 bits.
        field_of_view: the disc in it.
        color: channel order of `frame`.
    """
    rgb = frame if color == "rgb" else frame[:, :, ::-1]
    rows, begin, end = _lattice(field_of_view)
    inside = _inside(rows, begin, end, frame.shape[0], frame.shape[1])
    levels, second_differences = _read_rows(rgb, rows, begin, end, inside)
    cells = int(inside.sum())
    red, green, blue = (_ranked(levels[:, :, c][inside], 500) for c in range(3))
    red_levels = levels[:, :, 0][inside]
    shaded = int((5 * red_levels < 2 * _ranked(red_levels, 800)).sum())
    clipped = int((levels[:, :, 1][inside] >= _CLIPPED).sum())
    return GateReadings(
        cells=cells,
        red=red,
        green=green,
        blue=blue,
        red_over_blue=_ranked((levels[:, :, 0] - levels[:, :, 2])[inside], 900),
        shaded_permille=1000 * shaded // max(cells, 1),
        clipped_permille=1000 * clipped // max(cells, 1),
        detail=_detail(levels[:, :, 1], inside),
        noise=_noise(second_differences, 2 * field_of_view.radius_x_px),
        levels=levels.astype(np.uint16),
        inside=inside,
    )


def _lattice(disc: FieldOfView) -> tuple[Integers, Integers, Integers]:
    """Frame rows of the cells, and the half-open ranges of frame columns."""
    width, height = 2 * disc.radius_x_px, 2 * disc.radius_y_px
    cell = np.arange(CELLS, dtype=np.int64)
    rows = disc.center_y_px - disc.radius_y_px + (2 * cell + 1) * height // (2 * CELLS)
    begin = disc.center_x_px - disc.radius_x_px + cell * width // CELLS
    end = disc.center_x_px - disc.radius_x_px + (cell + 1) * width // CELLS
    # a disc narrower than the lattice gives a cell the pixel that it lies in
    end = np.maximum(end, begin + 1)
    return rows.astype(np.int32), begin.astype(np.int32), end.astype(np.int32)


def _inside(rows: Integers, begin: Integers, end: Integers, height: int, width: int) -> Bools:
    offset = 2 * np.arange(CELLS) + 1 - CELLS
    disc = offset[:, None] ** 2 + offset[None, :] ** 2 <= _INSIDE
    in_rows, in_columns = (rows >= 0) & (rows < height), (begin >= 0) & (end <= width)
    inside: Bools = disc & in_rows[:, None] & in_columns[None, :]
    return inside


def _read_rows(
    rgb: Frame, rows: Integers, begin: Integers, end: Integers, inside: Bools
) -> tuple[Integers, NDArray[np.int64]]:
    """Levels of the cells (0 outside), and the histogram of green's second differences."""
    levels = np.zeros((CELLS, CELLS, 3), np.int32)
    histogram = np.zeros(1021, np.int64)
    for i in np.flatnonzero(inside.any(axis=1)):
        columns = np.flatnonzero(inside[i])
        first, last = int(columns[0]), int(columns[-1])
        start = int(begin[first])
        pixels = rgb[rows[i], start : int(end[last])].astype(np.int64)
        total = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(pixels, axis=0)])
        span = slice(first, last + 1)
        sums = total[end[span] - start] - total[begin[span] - start]
        count = (end[span] - begin[span])[:, None]
        levels[i, span] = (2 * _STEP * sums + count) // (2 * count)
        green = pixels[:, 1]
        bend = np.abs(2 * green[1:-1] - green[:-2] - green[2:])
        histogram += np.bincount(bend, minlength=1021)
    return levels * inside[:, :, None], histogram


def _ranked(values: Integers, permille: int) -> int:
    """The value of that rank, nought of none."""
    if len(values) == 0:
        return 0
    rank = (len(values) - 1) * permille // 1000
    return int(np.partition(values, rank)[rank])


def _detail(green: Integers, inside: Bools) -> int:
    """How dark the dark lines are; only cells whose eight neighbours are inside count."""
    centre, whole = green[1:-1, 1:-1], inside[1:-1, 1:-1].copy()
    last = CELLS - 1
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            whole &= inside[1 + dy : last + dy, 1 + dx : last + dx]
    depth = np.zeros_like(centre)
    for dy, dx in _DIRECTIONS:
        one = green[1 + dy : last + dy, 1 + dx : last + dx]
        other = green[1 - dy : last - dy, 1 - dx : last - dx]
        depth = np.maximum(depth, np.minimum(one, other) - centre)
    return _ranked(depth[whole], 970)


def _noise(histogram: NDArray[np.int64], width: int) -> int:
    """What pixel noise alone makes of `_detail`.

    The smaller three quarters of the second differences have a mean of 1.2 standard deviations of
    white noise; a cell's average over width / 96 pixels keeps the square root of their inverse, and
    the detail of such cells is 2.3 of that. Squared: (16 * 2.3 / 1.2) ** 2 * 96 = 90283.
    """
    keep = int(histogram.sum()) * 3 // 4
    if keep == 0:
        return 0
    kept = np.diff(np.minimum(np.cumsum(histogram), keep), prepend=0)
    hundredths = 100 * int((kept * np.arange(len(histogram))).sum()) // keep
    return isqrt(_NOISE_TO_DETAIL * hundredths * hundredths // (10000 * width))
