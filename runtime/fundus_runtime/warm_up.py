"""Prepares drawn eyes before the first exam, so that the first exam is not slower."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.preparer import EyePreparer
from fundus_runtime.side_by_side import SideBySide

__all__ = ["warm_up"]


def warm_up(preparer: EyePreparer, both: SideBySide) -> None:
    """Take a drawn pair through preprocessing and gates, on the threads that a pair takes."""
    frame = _drawn_disc()
    both.run(
        lambda: preparer.frame("left", frame, color="rgb"),
        lambda: preparer.frame("right", frame, color="rgb"),
        lambda *_: None,
    )


def _drawn_disc() -> NDArray[np.uint8]:
    """A bright disc on black, 256 pixels a side."""
    y, x = np.ogrid[-128:128, -128:128]
    disc = (x * x + y * y < 120 * 120).astype(np.uint8)
    return np.repeat(disc[:, :, None] * np.uint8(128), 3, axis=2)
