"""Frames to measure on: photographs of a folder, or drawn from the one that the package carries.

Frames are uint8 RGB (height, width, 3). Several different ones take turns, so that no cache and no
branch predictor flatters what is measured.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_runtime.errors import ImageError
from fundus_runtime.photograph import decode_photograph, read_photograph

__all__ = ["FRAME_SIZE", "camera_frames", "frames_of"]

Frame = NDArray[np.uint8]

# A 5-megapixel camera, and how large the field of view stands in its frame.
FRAME_SIZE = (1944, 2592)
_DISC_PX = 1880
_ENDINGS = (".jpg", ".jpeg", ".png")
_MOST_FILES = 32


def camera_frames(count: int = 10, *, seed: int = 0) -> list[Frame]:
    """Frames of 2592 x 1944 pixels with a disc of 1880, made of the package's CC0 photograph.

    Every second one is mirrored, as the other eye would look. Place, exposure and sensor noise
    differ from frame to frame.
    """
    rng = np.random.default_rng(seed)
    data = resources.files("fundus_runtime").joinpath("data/retina.jpg").read_bytes()
    disc = _disc(decode_photograph(data, name="retina.jpg"))
    return [_frame(disc[:, ::-1] if k % 2 else disc, rng) for k in range(count)]


def frames_of(folder: str | Path) -> list[Frame]:
    """The photographs of a folder, decoded, in the order of their names; at most 32.

    Raises:
        ImageError: the folder holds fewer than two photographs, or one that cannot be used.
    """
    try:
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in _ENDINGS)
    except OSError as error:
        raise ImageError(f"{folder} cannot be listed: {error.strerror}") from error
    if len(paths) < 2:
        raise ImageError(
            f"{folder} holds {len(paths)} photographs ({', '.join(_ENDINGS)}), expected at "
            "least 2; leave --frames out to measure on drawn ones"
        )
    return [read_photograph(path) for path in paths[:_MOST_FILES]]


def _disc(photograph: Frame) -> Frame:
    """The photograph's field of view, cut close and scaled to the size it has in the frame."""
    rows, columns = (np.flatnonzero((photograph.max(2) > 24).sum(axis) > 8) for axis in (1, 0))
    cut = photograph[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scaled = Image.fromarray(cut).resize((_DISC_PX, _DISC_PX), Image.Resampling.BICUBIC)
    return np.asarray(scaled, dtype=np.uint8)


def _frame(disc: Frame, rng: np.random.Generator) -> Frame:
    height, width = FRAME_SIZE
    frame = np.zeros((height, width, 3), np.uint8)
    top = int(rng.integers(8, height - _DISC_PX - 8))
    left = int(rng.integers(200, width - _DISC_PX - 200))
    exposed = np.clip(np.rint(np.arange(256) * rng.uniform(0.9, 1.1)), 0, 255).astype(np.uint8)
    frame[top : top + _DISC_PX, left : left + _DISC_PX] = exposed[disc]
    frame += np.minimum(rng.integers(0, 5, frame.shape, dtype=np.uint8), 255 - frame)
    return frame
