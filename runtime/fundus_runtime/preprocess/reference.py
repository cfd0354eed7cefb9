"""The reference preprocessing, in NumPy and OpenCV: the definition that every other one matches.

Frames are H x W x 3, 8 bits, RGB (or BGR where said), any strides. The steps are

1. find the field of view on a thumbnail (`field_of_view`);
2. crop the disc's bounding square, black where the camera cut the disc;
3. resample it to S x S by area, rounded half to even to 8 bits;
4. correct the illumination inside the mask alone: the local mean is a box sum of masked levels over
   a box sum of the mask, so that the dark surround does not bleed in;
5. normalise, set everything outside the mask to 0, lay out as 3 x S x S FP32.

A disc that some program squashed into an ellipse is cropped to its bounding rectangle and so gets
its shape back. Up to the crop box everything is integer and equal in every implementation.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from fundus_runtime.errors import UsageError
from fundus_runtime.preprocess.eye import (
    CropBox,
    EyeCrop,
    EyeTensor,
    Frame,
    Mask,
    Tensor,
    crop_box,
)
from fundus_runtime.preprocess.field_of_view import find_field_of_view
from fundus_runtime.preprocess.illumination import correct_illumination, visible_crop
from fundus_runtime.preprocess.opencv import cv2
from fundus_runtime.preprocess.refusals import (
    MIN_DISC_PX,
    field_of_view_too_small,
    require_frame,
)
from fundus_runtime.preprocess.spec import PreprocessSpec

__all__ = [
    "CropBox",
    "EyeCrop",
    "EyeTensor",
    "crop_box",
    "crop_eye",
    "normalise_crop",
    "preprocess",
    "visible_crop",
]


def preprocess(
    frame: Frame, spec: PreprocessSpec, *, color: Literal["rgb", "bgr"] = "rgb"
) -> EyeTensor:
    """Prepare one photograph for the network.

    Args:
        frame: H x W x 3, 8 bits.
        spec: what to do.
        color: channel order of `frame`.

    Raises:
        ImageError: `frame` is no such array.
        UngradableError: no field of view was found.
    """
    eye = crop_eye(frame, spec, color=color)
    tensor = normalise_crop(eye.image, eye.mask, spec)
    return EyeTensor(tensor, eye.image, eye.mask, eye.field_of_view)


def crop_eye(
    frame: Frame, spec: PreprocessSpec, *, color: Literal["rgb", "bgr"] = "rgb"
) -> EyeCrop:
    """Steps 1 to 3: field of view, crop, area resampling to 8 bits.

    Raises:
        ImageError: `frame` is not an H x W x 3 array of 8 bits, or too small.
        UngradableError: no field of view was found, or it is too small to resample.
        UsageError: `color` is neither of the two.
    """
    require_frame(frame)
    if color not in ("rgb", "bgr"):
        raise UsageError(f"color is {color!r}, expected 'rgb' or 'bgr'")
    disc = find_field_of_view(frame)
    if 2 * min(disc.radius_x_px, disc.radius_y_px) < MIN_DISC_PX:
        raise field_of_view_too_small(disc)
    box = crop_box(disc, spec)
    image = _resample_area(_cut(frame, box), spec.size)
    if color == "bgr":
        image = np.ascontiguousarray(image[:, :, ::-1])
    return EyeCrop(image, _disc_mask(box, frame.shape[0], frame.shape[1], spec), disc, box)


def normalise_crop(image: Frame, mask: Mask, spec: PreprocessSpec) -> Tensor:
    """Steps 4 and 5: illumination correction inside the mask, normalisation, layout.

    Args:
        image: S x S x 3 RGB, 8 bits.
        mask: S x S.
        spec: what to do.

    Returns:
        3 x S x S FP32, 0 outside the mask.
    """
    levels = correct_illumination(image, mask, spec, box_sum=_box_sum)
    scale = 1.0 / (255.0 * np.asarray(spec.std, dtype=np.float32))
    offset = np.asarray(spec.mean, dtype=np.float32) / np.asarray(spec.std, dtype=np.float32)
    tensor = levels * scale.astype(np.float32) - offset
    tensor *= mask[:, :, None]
    return np.ascontiguousarray(tensor.transpose(2, 0, 1))


def _cut(frame: Frame, box: CropBox) -> Frame:
    height, width = frame.shape[:2]
    top, left = max(box.top_px, 0), max(box.left_px, 0)
    bottom, right = min(box.bottom_px, height), min(box.right_px, width)
    inside = frame[top:bottom, left:right]
    margins = (top - box.top_px, box.bottom_px - bottom, left - box.left_px, box.right_px - right)
    if not any(margins):
        return inside
    padded = np.zeros((box.height_px, box.width_px, 3), dtype=np.uint8)
    padded[margins[0] : margins[0] + bottom - top, margins[2] : margins[2] + right - left] = inside
    return padded


def _resample_area(crop: Frame, size: int) -> Frame:
    """Mean of the crop over each output pixel's area, rounded half to even to 8 bits."""
    height, width = crop.shape[:2]
    if min(height, width) >= size:
        return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8)
    # OpenCV leaves the area rule as soon as one axis grows; the weights say the same for any scale
    rows, columns = _area_weights(height, size), _area_weights(width, size)
    # first down, then across, channel by channel: two matrix products each
    means = np.einsum("sh,hwc->swc", rows, crop.astype(np.float32), optimize=True)
    means = np.einsum("tw,swc->stc", columns, means, optimize=True)
    resampled: Frame = np.rint(means).astype(np.uint8)
    return resampled


def _area_weights(length: int, size: int) -> npt.NDArray[np.float32]:
    """Size x length: how much of each output cell every source cell covers; rows sum to 1."""
    edges = np.arange(size + 1, dtype=np.float64) * (length / size)
    cells = np.arange(length, dtype=np.float64)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights: npt.NDArray[np.float32] = (np.clip(overlap, 0, None) * (size / length)).astype(
        np.float32
    )
    return weights


def _disc_mask(box: CropBox, height: int, width: int, spec: PreprocessSpec) -> Mask:
    """The disc's inscribed circle, without what lies beyond the frame; integer arithmetic alone."""
    size = spec.size
    # a pixel's centre is at (2 i + 1) / 2; in units of 1 / (2 S) of the box
    offset = 2 * np.arange(size, dtype=np.int64) + 1 - size
    reach = size * spec.mask_permille
    distance2 = (offset * spec.crop_permille) ** 2
    circle = distance2[:, None] + distance2[None, :] <= reach * reach
    rows = _inside_frame(size, box.top_px, box.height_px, height)
    columns = _inside_frame(size, box.left_px, box.width_px, width)
    mask: Mask = circle & rows[:, None] & columns[None, :]
    return mask


def _inside_frame(size: int, start: int, length: int, limit: int) -> npt.NDArray[np.bool_]:
    """Which output cells draw on frame pixels alone."""
    cell = np.arange(size, dtype=np.int64)
    begin = start * size + cell * length
    inside: npt.NDArray[np.bool_] = (begin >= 0) & (begin + length <= limit * size)
    return inside


def _box_sum(levels: npt.NDArray[np.float32], window_px: int) -> npt.NDArray[np.float32]:
    box = (window_px, window_px)
    return cv2.boxFilter(levels, -1, box, normalize=False, borderType=cv2.BORDER_CONSTANT).astype(
        np.float32, copy=False
    )
