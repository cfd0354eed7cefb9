"""The mean of what surrounds each cell, of cells inside the disc alone."""

from __future__ import annotations

from functools import lru_cache
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
    held = _held(counts.tobytes(), counts.dtype.str, counts.shape, window)
    mean: NDArray[np.float64] = _box(sums, window) / held
    return mean


# Discs that the camera did not cut have the same cells in every photograph.
@lru_cache(maxsize=4)
def _held(counts: bytes, dtype: str, shape: tuple[int, ...], window: int) -> WholeNumbers:
    """What each box holds, at least 1."""
    values = np.frombuffer(counts, dtype).reshape(shape).astype(np.int64)
    held: WholeNumbers = np.maximum(_box(values, window), 1)
    held.flags.writeable = False
    return held


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
