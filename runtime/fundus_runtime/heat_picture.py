"""A heat map as a picture to lay over a photograph: uint8, height x width x 4, RGBA.

Transparent at 0, yellow at one half, red at 1. The scale is fixed, so that two pictures compare and
an eye without findings stays clear.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["heat_picture"]

_CELL_PX = 12
# Probability, and red, green, blue, opacity there.
_STOPS = (0.0, 0.5, 1.0)
_COLOURS = ((255, 235, 60, 0), (255, 235, 60, 140), (225, 30, 20, 191))


def heat_picture(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw one map.

    Args:
        shares: probabilities (h, w) of the cells.
    """
    rows, columns = (_enlarging(count) for count in shares.shape)
    smooth = rows @ shares.astype(np.float64) @ columns.T
    channels = [np.interp(smooth, _STOPS, values) for values in zip(*_COLOURS, strict=True)]
    return np.rint(np.stack(channels, axis=2)).astype(np.uint8)


def _enlarging(count: int) -> NDArray[np.float64]:
    """Weights of `count` cells for pixels across them, linear between their centres."""
    at = np.clip((np.arange(count * _CELL_PX) + 0.5) / _CELL_PX - 0.5, 0, count - 1)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(count)))
