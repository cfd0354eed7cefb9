"""Prepares a drawn eye before the first exam, so that the first exam is not slower."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.preparer import EyePreparer

__all__ = ["warm_up"]


def warm_up(preparer: EyePreparer) -> None:
    """Take a drawn eye through preprocessing and gates."""
    preparer.frame("left", _drawn_disc(), color="rgb")


def _drawn_disc() -> NDArray[np.uint8]:
    """A bright disc on black, 256 pixels a side."""
    y, x = np.ogrid[-128:128, -128:128]
    disc = (x * x + y * y < 120 * 120).astype(np.uint8)
    return np.repeat(disc[:, :, None] * np.uint8(128), 3, axis=2)
