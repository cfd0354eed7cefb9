"""`PreprocessSpec`: the one contract by which training, calibration and device prepare an eye.

The spec is immutable, serialises to canonical JSON and is named by the SHA-256 of those bytes. The
hash travels with checkpoint, ONNX graphs, bundle and engine; two artefacts may only meet when
their hashes agree, and whoever refuses them names both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fundus_runtime.canonical import canonical_json, sha256_hex
from fundus_runtime.errors import SpecError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Illumination", "PreprocessSpec"]

Illumination = Literal["subtract", "divide", "none"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_FP32_MAX = 3.4e38


@dataclass(frozen=True)
class PreprocessSpec:
    """How a photograph becomes the network's input; see `fundus_runtime.preprocess.reference`.

    Attributes:
        size: side S of the square input, in pixels.
        field_of_view: name of the rule that finds the disc. Only ``"disc"`` exists.
        crop_permille: side of the crop in thousandths of the disc's diameter.
        resampling: only ``"area"``: antialiased, rounded half to even to 8 bits.
        illumination: ``"subtract"`` gives ``gain * (I - local mean) + constant``, ``"divide"``
            gives ``gain * I / local mean * constant``, ``"none"`` leaves the levels as they are.
        illumination_window_px: odd side of the box over which the local mean is taken, at size S.
        illumination_gain: contrast factor of the correction.
        illumination_constant: level, 0 to 255, that the local mean is moved to.
        mask_permille: radius of the mask in thousandths of the disc's radius; what lies outside, or
            where the camera cut the disc, is exactly 0 in the tensor.
        mean: per-channel mean of the normalisation, in units of full scale (255), RGB.
        std: per-channel standard deviation of the normalisation, same units.
        color: channel order of the tensor. Only ``"rgb"``.
        layout: only ``"NCHW"``, FP32.
        version: version of the algorithm that the names above refer to.
    """

    size: int = 224
    field_of_view: Literal["disc"] = "disc"
    crop_permille: int = 1000
    resampling: Literal["area"] = "area"
    illumination: Illumination = "subtract"
    illumination_window_px: int = 37
    illumination_gain: float = 2.0
    illumination_constant: float = 128.0
    mask_permille: int = 980
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    color: Literal["rgb"] = "rgb"
    layout: Literal["NCHW"] = "NCHW"
    version: int = 1

    def __post_init__(self) -> None:
        """Validate every field once, so that the implementations need not.

        Raises:
            SpecError: a field is of the wrong type or out of range.
        """
        _require_int("size", self.size, 32, 2048)
        _require_int("crop_permille", self.crop_permille, 500, 2000)
        _require_int("illumination_window_px", self.illumination_window_px, 3, 2047)
        _require_int("mask_permille", self.mask_permille, 500, 1000)
        _require_int("version", self.version, 1, 1)
        if self.illumination_window_px % 2 == 0:
            raise SpecError(
                f"illumination_window_px is {self.illumination_window_px}, expected an odd number"
            )
        _require_choice("field_of_view", self.field_of_view, ("disc",))
        _require_choice("resampling", self.resampling, ("area",))
        _require_choice("illumination", self.illumination, ("subtract", "divide", "none"))
        _require_choice("color", self.color, ("rgb",))
        _require_choice("layout", self.layout, ("NCHW",))
        # ints given for floats would hash differently from the floats that they equal
        for name in ("illumination_gain", "illumination_constant"):
            object.__setattr__(self, name, _finite(name, getattr(self, name)))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_floats(name, getattr(self, name)))
        if not 0 <= self.illumination_constant <= 255:
            raise SpecError(
                f"illumination_constant is {self.illumination_constant}, expected 0 to 255"
            )
        if self.illumination_gain <= 0 or min(self.std) <= 0:
            raise SpecError("illumination_gain and every std must be greater than 0")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PreprocessSpec:
        """The spec of `to_dict`'s values.

        Raises:
            SpecError: a key is unknown or missing, or a value does not fit.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown, missing = sorted(set(fields) - known), sorted(known - set(fields))
        if unknown or missing:
            raise SpecError(
                f"preprocess spec has unknown keys {unknown} and lacks {missing}; "
                "it was written by another version of fundus-edge: use the version that wrote it"
            )
        values: dict[str, Any] = dict(fields)
        for name in ("mean", "std"):
            if isinstance(values[name], list):
                values[name] = tuple(values[name])
        return cls(**values)

    def canonical(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8."""
        return canonical_json(self.to_dict())

    @property
    def sha256(self) -> str:
        """SHA-256 of `canonical`, in hexadecimal."""
        return sha256_hex(self.canonical())


def _require_int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SpecError(f"{name} is {value!r}, expected an integer from {low} to {high}")


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def _finite(name: str, value: object) -> float:
    # the comparison is false for NaN, and exact for whole numbers beyond any float
    if isinstance(value, bool) or not (isinstance(value, int | float) and abs(value) <= _FP32_MAX):
        raise SpecError(f"{name} is {value!r}, expected a finite FP32 number")
    return float(value)


def _three_floats(name: str, value: object) -> tuple[float, float, float]:
    if not isinstance(value, tuple) or len(value) != 3:
        raise SpecError(f"{name} is {value!r}, expected three numbers (red, green, blue)")
    red, green, blue = (_finite(name, v) for v in value)
    return red, green, blue
