"""Preprocessing: from a photograph to the network's input, by one hashed contract.

`PreprocessSpec` says what is done. `NativePreprocessor` does it on a device. The reference defines
it: `preprocess`, and its two halves `crop_eye` and `normalise_crop`, between which training
augments. Either is imported when one of its names is first asked for. The reference needs OpenCV;
without it the name raises `ReferenceMissingError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fundus_runtime.preprocess.eye import CropBox, EyeCrop, EyeTensor, FieldOfView, crop_box
from fundus_runtime.preprocess.illumination import visible_crop
from fundus_runtime.preprocess.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Illumination,
    PreprocessSpec,
)

if TYPE_CHECKING:
    from fundus_runtime.preprocess.field_of_view import find_field_of_view, thumbnail_stride
    from fundus_runtime.preprocess.native import NativePreprocessor
    from fundus_runtime.preprocess.reference import crop_eye, normalise_crop, preprocess

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CropBox",
    "EyeCrop",
    "EyeTensor",
    "FieldOfView",
    "Illumination",
    "NativePreprocessor",
    "PreprocessSpec",
    "crop_box",
    "crop_eye",
    "find_field_of_view",
    "normalise_crop",
    "preprocess",
    "thumbnail_stride",
    "visible_crop",
]

_LAZY = {
    "NativePreprocessor": "native",
    "crop_eye": "reference",
    "find_field_of_view": "field_of_view",
    "normalise_crop": "reference",
    "preprocess": "reference",
    "thumbnail_stride": "field_of_view",
}


def __getattr__(name: str) -> object:
    """Import an implementation at the first use of one of its names."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
