"""How the native core is asked and answers: alike for its CPU and its CUDA preprocessing.

The core speaks plain values: a spec as keyword arguments, an eye as (reason, detail, field of
view, box) with an empty reason where it was prepared.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from fundus_runtime.errors import UngradableError, UsageError
from fundus_runtime.preprocess.eye import CropBox, FieldOfView
from fundus_runtime.preprocess.refusals import (
    field_of_view_too_small,
    no_field_of_view,
    no_fundus,
)
from fundus_runtime.preprocess.spec import Illumination, PreprocessSpec

__all__ = [
    "MAX_FRAME_SIDE_PX",
    "Answer",
    "Color",
    "SpecArguments",
    "geometry_of",
    "require_color",
    "spec_arguments",
]

Color = Literal["rgb", "bgr"]
Answer = tuple[str, str, tuple[int, ...], tuple[int, ...]]

MAX_FRAME_SIDE_PX = 1 << 20


class SpecArguments(TypedDict):
    """A spec's fields that the core computes with."""

    size: int
    crop_permille: int
    illumination: Illumination
    illumination_window_px: int
    illumination_gain: float
    illumination_constant: float
    mask_permille: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def spec_arguments(spec: PreprocessSpec) -> SpecArguments:
    """The keyword arguments that a preprocessor of the core is made with."""
    return {
        "size": spec.size,
        "crop_permille": spec.crop_permille,
        "illumination": spec.illumination,
        "illumination_window_px": spec.illumination_window_px,
        "illumination_gain": spec.illumination_gain,
        "illumination_constant": spec.illumination_constant,
        "mask_permille": spec.mask_permille,
        "mean": spec.mean,
        "std": spec.std,
    }


def require_color(color: str) -> None:
    """Refuse a channel order that is neither of the two.

    Raises:
        UsageError: it is neither.
    """
    if color not in ("rgb", "bgr"):
        raise UsageError(f"color is {color!r}, expected 'rgb' or 'bgr'")


def geometry_of(answer: Answer) -> tuple[FieldOfView, CropBox]:
    """Where the disc lies and what was cropped.

    Raises:
        UngradableError: the core refused the frame.
    """
    reason, detail, field, box = answer
    if reason:
        raise _refusal(reason, detail, FieldOfView(*field))
    return FieldOfView(*field), CropBox(*box)


def _refusal(reason: str, detail: str, disc: FieldOfView) -> UngradableError:
    if reason == "no_fundus":
        return no_fundus()
    if reason == "no_field_of_view":
        return no_field_of_view(detail)
    return field_of_view_too_small(disc)
