"""What the preprocessing says of an eye: where its disc lies, what was cropped, what came out.

Plain immutable values, the same from every implementation; arrays belong to whoever holds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fundus_runtime.preprocess.spec import PreprocessSpec

__all__ = [
    "CropBox",
    "EyeCrop",
    "EyeTensor",
    "FieldOfView",
    "Frame",
    "Mask",
    "Tensor",
    "crop_box",
]

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FieldOfView:
    """The disc, in whole frame pixels.

    Attributes:
        center_x_px: column of the centre.
        center_y_px: row of the centre.
        radius_x_px: horizontal semi-axis; equals `radius_y_px` unless the frame was squashed.
        radius_y_px: vertical semi-axis.
        rim_permille: rim samples that lie on the disc's edge, in thousandths of all rim samples.
        visible_permille: part of the disc's bounding box that lies inside the frame.
    """

    center_x_px: int
    center_y_px: int
    radius_x_px: int
    radius_y_px: int
    rim_permille: int
    visible_permille: int

    def to_dict(self) -> dict[str, int]:
        """The fields as JSON-able values."""
        return dict(vars(self))


@dataclass(frozen=True)
class CropBox:
    """Half-open box in frame pixels; it may reach beyond the frame on any side."""

    left_px: int
    top_px: int
    right_px: int
    bottom_px: int

    @property
    def width_px(self) -> int:
        """Columns of the box."""
        return self.right_px - self.left_px

    @property
    def height_px(self) -> int:
        """Rows of the box."""
        return self.bottom_px - self.top_px


@dataclass(frozen=True)
class EyeCrop:
    """An eye up to the 8-bit resampled image.

    Attributes:
        image: S x S x 3 RGB, 8 bits, black outside the frame.
        mask: S x S, true where the image shows the fundus.
        field_of_view: the disc in frame pixels.
        box: what was cropped, in frame pixels.
    """

    image: Frame
    mask: Mask
    field_of_view: FieldOfView
    box: CropBox


@dataclass(frozen=True)
class EyeTensor:
    """A preprocessed eye: the network's input and the crop that it was made of.

    Attributes:
        tensor: 3 x S x S FP32, normalised, 0 outside the mask.
        crop: S x S x 3 RGB, 8 bits.
        mask: S x S, true where the image shows the fundus.
        field_of_view: the disc in frame pixels.
    """

    tensor: Tensor
    crop: Frame
    mask: Mask
    field_of_view: FieldOfView


def crop_box(disc: FieldOfView, spec: PreprocessSpec) -> CropBox:
    """The disc's bounding box, scaled by `crop_permille` about the disc's centre."""
    half_width = (disc.radius_x_px * spec.crop_permille + 500) // 1000
    half_height = (disc.radius_y_px * spec.crop_permille + 500) // 1000
    return CropBox(
        disc.center_x_px - half_width,
        disc.center_y_px - half_height,
        disc.center_x_px + half_width,
        disc.center_y_px + half_height,
    )
