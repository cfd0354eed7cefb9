"""Runs a model before the first exam, so that the first exam is not slower than the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.engine import Engine
from fundus_runtime.labels import EYES
from fundus_runtime.prepared import EyePreparer

__all__ = ["warm_up"]


def warm_up(preparer: EyePreparer, engine: Engine) -> None:
    """Prepare a drawn eye, encode one eye and a pair, run the head.

    Raises:
        EngineError: the engine failed.
    """
    preparer.frame("left", _drawn_disc(), color="rgb")
    images = np.zeros((2, 3, preparer.spec.size, preparer.spec.size), np.float32)
    engine.encode(images[:1], EYES[:1])
    encoded, _ = engine.encode(images, EYES)
    engine.fuse((encoded.features[:1], encoded.features[1:]), (True, True))


def _drawn_disc() -> NDArray[np.uint8]:
    """A bright disc on black, 256 pixels a side: what the preprocessing warms up on."""
    y, x = np.ogrid[-128:128, -128:128]
    disc = (x * x + y * y < 120 * 120).astype(np.uint8)
    return np.repeat(disc[:, :, None] * np.uint8(128), 3, axis=2)
