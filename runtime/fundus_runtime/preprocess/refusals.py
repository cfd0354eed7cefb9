"""What the preprocessing refuses, with the words for it: alike in every implementation."""

from __future__ import annotations

import numpy as np

from fundus_runtime.errors import ImageError, UngradableError
from fundus_runtime.preprocess.eye import FieldOfView

__all__ = [
    "MIN_DISC_PX",
    "MIN_FRAME_SIDE_PX",
    "field_of_view_too_small",
    "no_field_of_view",
    "no_fundus",
    "require_frame",
]

MIN_DISC_PX = 64
MIN_FRAME_SIDE_PX = 64


def require_frame(frame: object) -> None:
    """Refuse what is no frame.

    Raises:
        ImageError: `frame` is not an H x W x 3 array of 8 bits, or too small.
    """
    if not isinstance(frame, np.ndarray):
        raise ImageError(f"a frame is a NumPy array, not {type(frame).__name__}")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ImageError(
            f"the frame is {frame.dtype} of shape {frame.shape}, "
            "expected uint8 of shape (height, width, 3)"
        )
    if min(frame.shape[:2]) < MIN_FRAME_SIDE_PX:
        raise ImageError(
            f"the frame is {frame.shape[1]} x {frame.shape[0]} px, "
            f"expected at least {MIN_FRAME_SIDE_PX} on each side"
        )


def no_fundus() -> UngradableError:
    """Nothing in the frame is as large as a fundus."""
    return UngradableError(
        "no_fundus",
        "the photograph is dark, nothing in it is as large as a fundus; "
        "check the lens cap and the alignment with the pupil, then retake",
    )


def no_field_of_view(why: str) -> UngradableError:
    """Something is there, but it is no disc."""
    hint = "no round field of view; photograph the whole disc with its dark surround"
    return UngradableError("no_field_of_view", f"{hint} ({why})")


def field_of_view_too_small(disc: FieldOfView) -> UngradableError:
    """The disc has too few pixels to resample."""
    return UngradableError(
        "field_of_view_too_small",
        f"the disc is {2 * disc.radius_x_px} x {2 * disc.radius_y_px} px, at least "
        f"{MIN_DISC_PX} are needed; move closer or use the camera's full resolution",
    )
