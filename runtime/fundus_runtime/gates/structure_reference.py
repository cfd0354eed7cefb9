"""The reference of the fine structure, in NumPy: the definition that the native core follows.

Whole numbers are summed exactly, in any order; the core differs in the last bits of one mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fine_structure", "local_mean"]

# cells; smaller than the optic disc, larger than a vessel
_WINDOW = 5
# a camera's own reflections and its shaded rim are alike in every photograph; vessels are fainter
_CLIP = 3.0

# in a type that holds the sum of a box
WholeNumbers = NDArray[Any]


def fine_structure(
    green: NDArray[np.uint16], inside: NDArray[np.bool_], cells: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Green of some cells without its local mean, bounded, without its own mean.

    Args:
        green: (96, 96) in sixteenths of a level, nought outside.
        inside: (96, 96), cells inside disc and frame.
        cells: (96, 96), those that are wanted.
    """
    levels = green.astype(np.int32)
    fine = (levels - local_mean(levels, inside.astype(np.int32), _WINDOW))[cells]
    if not fine.size:
        return fine
    bound = _CLIP * np.median(np.abs(fine))
    bounded = np.clip(fine, -bound, bound)
    centred: NDArray[np.float64] = bounded - bounded.mean()
    return centred


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
