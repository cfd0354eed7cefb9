"""The gates' figures in the units that people read, derived from the whole-number readings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fundus_runtime.gates.readings import GateReadings
from fundus_runtime.preprocess.eye import FieldOfView

__all__ = ["EyeFigures", "figures_of", "quality_features"]

_STEP = 16
# fitted on the graded eyes of EyePACS; docs/gates.md says how, benchmarks/gates.py does it again
_QUALITY_WEIGHTS = (5.1, 6.1, -3.3)
_QUALITY_CONSTANT = -24.7


@dataclass(frozen=True)
class EyeFigures:
    """What the gates look at; levels are 0 to 255.

    Attributes:
        visible_percent: part of the disc's bounding box that is in the frame.
        level: red of the median cell.
        warmth_percent: how much redder than blue the warmest tenth is, of that level; 0 is grey.
        redness: red over green of the median cell.
        clipped_percent: part of the disc whose green is near full scale.
        shaded_percent: part of the disc under 40 % of its own bright parts' red.
        noise: what `detail` would be of the pixels' noise alone.
        detail: how much darker than both sides the vessels are, without what noise adds.
        quality: log odds of a gradable photograph, of detail, red and green together.
    """

    visible_percent: float
    level: float
    warmth_percent: float
    redness: float
    clipped_percent: float
    shaded_percent: float
    noise: float
    detail: float
    quality: float


def figures_of(readings: GateReadings, field_of_view: FieldOfView) -> EyeFigures:
    """The figures of a photograph that was measured."""
    features = quality_features(readings)
    weighted = sum(w * x for w, x in zip(_QUALITY_WEIGHTS, features, strict=True))
    return EyeFigures(
        visible_percent=field_of_view.visible_permille / 10,
        level=readings.red / _STEP,
        warmth_percent=100 * readings.red_over_blue / (readings.red + _STEP),
        redness=(readings.red + _STEP) / (readings.green + _STEP),
        clipped_percent=readings.clipped_permille / 10,
        shaded_percent=readings.shaded_permille / 10,
        noise=readings.noise / _STEP,
        detail=_detail(readings),
        quality=weighted + _QUALITY_CONSTANT,
    )


def quality_features(readings: GateReadings) -> tuple[float, float, float]:
    """Natural logarithms of detail, red and green, each with one level added."""
    red, green = readings.red / _STEP, readings.green / _STEP
    return math.log(_detail(readings) + 1), math.log(red + 1), math.log(green + 1)


def _detail(readings: GateReadings) -> float:
    """Noise adds to the vessels' contrast as squares do."""
    return math.sqrt(max(readings.detail**2 - readings.noise**2, 0)) / _STEP
