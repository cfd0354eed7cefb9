"""Correction of the illumination inside the mask, and the picture of it for people.

The local mean is a box sum of masked levels over a box sum of the mask, so that the dark surround
does not bleed in. Box sums of 8-bit levels are whole numbers, added up exactly and rounded once to
FP32, so that the correction is the same to the bit whoever adds them up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fundus_runtime.preprocess.eye import Frame, Mask
from fundus_runtime.preprocess.spec import PreprocessSpec

__all__ = ["box_sum", "correct_illumination", "visible_crop"]

Levels = npt.NDArray[np.float32]
BoxSum = Callable[[Levels, int], Levels]


def visible_crop(image: Frame, mask: Mask, spec: PreprocessSpec) -> Frame:
    """What the illumination correction made of a crop, as a picture for people: S x S x 3 RGB."""
    levels = correct_illumination(image, mask, spec, box_sum=box_sum)
    levels *= mask[:, :, None]
    picture: Frame = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return picture


def correct_illumination(
    image: Frame, mask: Mask, spec: PreprocessSpec, *, box_sum: BoxSum
) -> Levels:
    """Step 4 of the preprocessing: S x S x 3 levels of 0 to 255.

    Args:
        image: S x S x 3 RGB, 8 bits.
        mask: S x S.
        spec: what to do.
        box_sum: sums S x S (x 3) levels over a box of so many pixels on a side, 0 beyond the edge.
    """
    levels = image.astype(np.float32)
    if spec.illumination == "none":
        return levels
    mean = _local_mean(levels, mask, spec.illumination_window_px, box_sum)
    gain, constant = np.float32(spec.illumination_gain), np.float32(spec.illumination_constant)
    if spec.illumination == "subtract":
        corrected = (levels - mean) * gain + constant
    else:
        corrected = levels / np.maximum(mean, 1.0) * (gain * constant)
    clipped: Levels = np.clip(corrected, 0.0, 255.0)
    return clipped


def box_sum(levels: Levels, window_px: int) -> Levels:
    """Sum over the box around each pixel, of whole levels; 0 beyond the edge."""
    sums = levels.astype(np.int64)
    for axis in (0, 1):
        sums = _running_sum(sums, axis, window_px)
    return sums.astype(np.float32)


def _running_sum(levels: npt.NDArray[np.int64], axis: int, window_px: int) -> npt.NDArray[np.int64]:
    length, half = levels.shape[axis], window_px // 2
    up_to = np.insert(np.cumsum(levels, axis=axis), 0, 0, axis=axis)
    cell = np.arange(length)
    end, start = np.minimum(cell + half + 1, length), np.maximum(cell - half, 0)
    sums: npt.NDArray[np.int64] = up_to.take(end, axis) - up_to.take(start, axis)
    return sums


def _local_mean(levels: Levels, mask: Mask, window_px: int, box_sum: BoxSum) -> Levels:
    """Mean over a box, of pixels inside the mask alone; 0 where the box holds none."""
    inside = mask.astype(np.float32)
    total = box_sum(levels * inside[:, :, None], window_px)
    count = box_sum(inside, window_px)
    mean: Levels = np.divide(total, np.maximum(count, 1.0)[:, :, None], dtype=np.float32)
    return mean
