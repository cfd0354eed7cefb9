"""The mean of what surrounds each cell, of cells inside the disc alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["local_mean"]

# whole numbers, in a type that holds the sum of a box: every order of summation is exact
WholeNumbers = NDArray[Any]


def local_mean(sums: WholeNumbers, counts: WholeNumbers, window: int) -> NDArray[np.float64]:
    """Sum over sum of a box of `window` x `window`, nought where that holds nothing.

    Args:
        sums: ... x H x W, nought outside the disc.
        counts: H x W, what each sum is of.
        window: odd side of the box.
    """
    mean: NDArray[np.float64] = _box(sums, window) / np.maximum(_box(counts, window), 1)
    return mean


def _box(values: WholeNumbers, window: int) -> WholeNumbers:
    across = values.copy()
    for shift in range(1, window // 2 + 1):
        across[..., shift:] += values[..., :-shift]
        across[..., :-shift] += values[..., shift:]
    total = across.copy()
    for shift in range(1, window // 2 + 1):
        total[..., shift:, :] += across[..., :-shift, :]
        total[..., :-shift, :] += across[..., shift:, :]
    return total
