"""The mean of what surrounds each cell, of cells inside the disc alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["local_mean"]

Floats = NDArray[np.float64]


def local_mean(sums: Floats, counts: Floats, window: int) -> Floats:
    """Sum over sum of a box of `window` x `window`, nought where that holds nothing.

    Args:
        sums: H x W, nought outside the disc.
        counts: H x W, what each sum is of.
        window: odd side of the box.
    """
    total, count = _box(sums, window), _box(counts, window)
    mean: Floats = total / np.maximum(count, 1.0)
    return mean


def _box(values: Floats, window: int) -> Floats:
    reach = window // 2
    total = np.pad(values, ((reach + 1, reach), (reach + 1, reach))).cumsum(0).cumsum(1)
    below, above = total[window:], total[:-window]
    sums: Floats = below[:, window:] - below[:, :-window] - above[:, window:] + above[:, :-window]
    return sums
