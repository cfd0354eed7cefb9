"""Preprocessing: from a photograph to the network's input, by one hashed contract.

`PreprocessSpec` says what is done, `preprocess` does it; `crop_eye` and `normalise_crop` are its
two halves, between which training augments.
"""

from __future__ import annotations

from fundus_runtime.preprocess.field_of_view import (
    FieldOfView,
    find_field_of_view,
    thumbnail_stride,
)
from fundus_runtime.preprocess.reference import (
    CropBox,
    EyeCrop,
    EyeTensor,
    crop_box,
    crop_eye,
    normalise_crop,
    preprocess,
    visible_crop,
)
from fundus_runtime.preprocess.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Illumination,
    PreprocessSpec,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CropBox",
    "EyeCrop",
    "EyeTensor",
    "FieldOfView",
    "Illumination",
    "PreprocessSpec",
    "crop_box",
    "crop_eye",
    "find_field_of_view",
    "normalise_crop",
    "preprocess",
    "thumbnail_stride",
    "visible_crop",
]
