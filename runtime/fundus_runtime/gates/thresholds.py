"""`GateThresholds`: when a photograph is refused; defaults in code, a JSON file for a camera.

Levels are 0 to 255. The file is written by ``fundus-screen calibrate-gates``; a key that is not
known is refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_runtime.errors import UsageError

__all__ = ["THRESHOLDS_FORMAT", "GateThresholds", "read_thresholds"]

THRESHOLDS_FORMAT = "fundus-edge gate thresholds"
_MAX_FILE_BYTES = 1 << 16


@dataclass(frozen=True)
class GateThresholds:
    """The bounds of every gate; a figure equal to its bound passes.

    Attributes:
        min_visible_percent: part of the disc's bounding box that must be in the frame.
        min_level: level of the median cell's red.
        max_clipped_percent: part of the disc that may be near full scale.
        min_warmth_percent: how much redder than blue the warmest tenth must be; less is no retina.
        min_redness: red over green of the median cell; less is no retina.
        max_shaded_percent: part of the disc that may be far darker than the rest.
        max_noise: pixel noise, as the detail that it would feign, in levels.
        min_detail: how much darker than their surround the vessels are, in levels.
        min_quality: log odds of a gradable photograph, of detail, red and green together.
        min_side: log odds below which the side of the optic disc is not stated.
        min_same: correlation from which two photographs are the same one.
    """

    min_visible_percent: float = 50.0
    min_level: float = 25.0
    max_clipped_percent: float = 20.0
    min_warmth_percent: float = 9.0
    min_redness: float = 0.75
    max_shaded_percent: float = 30.0
    max_noise: float = 7.0
    min_detail: float = 3.5
    min_quality: float = 0.5
    min_side: float = 1.5
    min_same: float = 0.6

    def __post_init__(self) -> None:
        """Require finite numbers.

        Raises:
            UsageError: a bound is none.
        """
        for name, value in dataclasses.asdict(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value)):
                raise UsageError(f"gate threshold {name} is {value!r}, expected a finite number")
            object.__setattr__(self, name, float(value))

    def to_dict(self) -> dict[str, Any]:
        """The thresholds as JSON values, with the name of the format."""
        return {"format": THRESHOLDS_FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GateThresholds:
        """The thresholds of `to_dict`'s values; one that is not there keeps its default.

        Raises:
            UsageError: a key is unknown, or a value is no number.
        """
        values = dict(fields)
        if (found := values.pop("format", None)) != THRESHOLDS_FORMAT:
            raise UsageError(
                f"gate thresholds carry the format {found!r}, expected {THRESHOLDS_FORMAT!r}; "
                "write them with: fundus-screen calibrate-gates DIR --out FILE"
            )
        if unknown := sorted(set(values) - {f.name for f in dataclasses.fields(cls)}):
            raise UsageError(
                f"gate thresholds have unknown keys {unknown}; write them again with: "
                "fundus-screen calibrate-gates DIR --out FILE"
            )
        return cls(**values)


def read_thresholds(path: str | Path) -> GateThresholds:
    """Read a file of thresholds.

    Raises:
        UsageError: the file cannot be read or holds something else.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES)
        fields = json.loads(data)
    except (OSError, ValueError) as error:
        raise UsageError(f"gate thresholds {path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise UsageError(f"gate thresholds {path} hold no JSON object")
    return GateThresholds.from_dict(fields)
