"""Calibrated probabilities and operating points.

`probability = sigmoid(logit / temperature + bias)`, one temperature and one bias for each class
(class weights in a training loss shift the odds, which a temperature alone cannot undo). An
operating point is one threshold for each class with the rule that chose it; a class is present
when its probability is at or above its threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fundus_runtime.errors import BundleError, UsageError

__all__ = ["Calibration", "ClassCalibration", "OperatingPoint", "OperatingPoints"]


@dataclass(frozen=True)
class ClassCalibration:
    """One class's correction of its logit.

    Attributes:
        temperature: divides the logit; above 0.
        bias: added afterwards, in logits.
    """

    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (_is_finite_number(self.temperature) and self.temperature > 0):
            raise BundleError(f"a temperature must be above 0 and finite, got {self.temperature!r}")
        if not _is_finite_number(self.bias):
            raise BundleError(f"a calibration bias must be finite, got {self.bias!r}")


@dataclass(frozen=True)
class Calibration:
    """A correction for each class, in the order of the class list.

    Attributes:
        letters: the classes' letters, in the order of the logits.
        classes: one correction for each letter.
    """

    letters: tuple[str, ...]
    classes: tuple[ClassCalibration, ...]

    def __post_init__(self) -> None:
        if len(self.letters) != len(self.classes):
            raise BundleError(
                f"{len(self.letters)} classes but {len(self.classes)} calibrations; give one each"
            )

    @classmethod
    def identity(cls, letters: tuple[str, ...]) -> Calibration:
        """The calibration that leaves every logit as it is."""
        return cls(tuple(letters), tuple(ClassCalibration() for _ in letters))

    def apply(self, logits: ArrayLike) -> NDArray[np.float32]:
        """Turn logits (..., K) into probabilities (..., K); computed in float64.

        Raises:
            UsageError: the last axis is not one value for each class.
        """
        return _sigmoid(self._corrected(logits, axis=-1)).astype(np.float32)

    def logits(self, logits: ArrayLike, *, axis: int = -1) -> NDArray[np.float32]:
        """The corrected logits, whose sigmoids are the probabilities; `axis` is the classes'.

        Raises:
            UsageError: that axis is not one value for each class.
        """
        return self._corrected(logits, axis=axis).astype(np.float32)

    def _corrected(self, logits: ArrayLike, *, axis: int) -> NDArray[np.float64]:
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim == 0 or values.shape[axis] != len(self.letters):
            raise UsageError(
                f"logits of shape {values.shape} do not fit {len(self.letters)} classes "
                f"({' '.join(self.letters)}); axis {axis} must be the classes"
            )
        along = [1] * values.ndim
        along[axis] = len(self.letters)
        temperature, bias = self._corrections
        corrected: NDArray[np.float64] = values / temperature.reshape(along) + bias.reshape(along)
        return corrected

    @cached_property
    def _corrections(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Temperatures and biases, K each."""
        pairs = np.array([(one.temperature, one.bias) for one in self.classes], np.float64)
        temperatures, biases = pairs.reshape(-1, 2).T
        return temperatures, biases

    def to_dict(self) -> dict[str, Any]:
        """The calibration as `{letter: {"temperature", "bias"}}`."""
        return {
            letter: {"temperature": one.temperature, "bias": one.bias}
            for letter, one in zip(self.letters, self.classes, strict=True)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], letters: tuple[str, ...]) -> Calibration:
        """Read a calibration back for exactly these classes.

        Raises:
            BundleError: other classes, other keys, or values that are no numbers.
        """
        _require_classes("calibration", values, letters)
        classes = []
        for letter in letters:
            one = _require_keys(f"calibration of {letter}", values[letter], {"temperature", "bias"})
            classes.append(ClassCalibration(one["temperature"], one["bias"]))
        return cls(tuple(letters), tuple(classes))


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold for each class, and how it was chosen.

    Attributes:
        name: what the point is called, for example `best_f1`.
        letters: the classes' letters.
        thresholds: one probability for each letter; present means at or above it.
        rules: one text for each letter saying how its threshold was chosen.
    """

    name: str
    letters: tuple[str, ...]
    thresholds: tuple[float, ...]
    rules: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (len(self.letters) == len(self.thresholds) == len(self.rules)):
            raise BundleError(
                f"operating point {self.name!r} has {len(self.letters)} classes, "
                f"{len(self.thresholds)} thresholds and {len(self.rules)} rules; they must match"
            )
        for letter, threshold in zip(self.letters, self.thresholds, strict=True):
            if not (_is_finite_number(threshold) and 0 <= threshold <= 1):
                raise BundleError(
                    f"operating point {self.name!r}: the threshold of {letter} must be within "
                    f"0 and 1, got {threshold!r}"
                )

    @property
    def threshold_of(self) -> dict[str, float]:
        """Thresholds by letter."""
        return dict(zip(self.letters, self.thresholds, strict=True))

    @property
    def rule_of(self) -> dict[str, str]:
        """Rules by letter."""
        return dict(zip(self.letters, self.rules, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The point as `{letter: {"threshold", "rule"}}`; its name is the key outside."""
        return {
            letter: {"threshold": threshold, "rule": rule}
            for letter, threshold, rule in zip(
                self.letters, self.thresholds, self.rules, strict=True
            )
        }

    @classmethod
    def from_dict(
        cls, name: str, values: Mapping[str, Any], letters: tuple[str, ...]
    ) -> OperatingPoint:
        """Read a point back for exactly these classes.

        Raises:
            BundleError: other classes, other keys, or a threshold outside 0 and 1.
        """
        what = f"operating point {name!r}"
        _require_classes(what, values, letters)
        entries = [
            _require_keys(f"{what} of {letter}", values[letter], {"threshold", "rule"})
            for letter in letters
        ]
        return cls(
            name=name,
            letters=tuple(letters),
            thresholds=tuple(entry["threshold"] for entry in entries),
            rules=tuple(str(entry["rule"]) for entry in entries),
        )


@dataclass(frozen=True)
class OperatingPoints:
    """Every operating point that a bundle offers, and the one used unless another is named."""

    default: str
    points: tuple[OperatingPoint, ...]

    def __post_init__(self) -> None:
        if self.default not in self.names:
            raise BundleError(
                f"the default operating point {self.default!r} is not among {list(self.names)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The points' names."""
        return tuple(point.name for point in self.points)

    def get(self, name: str | None = None) -> OperatingPoint:
        """The named point, or the default one.

        Raises:
            UsageError: there is no point of that name.
        """
        wanted = self.default if name is None else name
        for point in self.points:
            if point.name == wanted:
                return point
        raise UsageError(
            f"the bundle has no operating point {wanted!r}; it has {', '.join(self.names)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The points as the manifest stores them."""
        return {
            "default": self.default,
            "points": {point.name: point.to_dict() for point in self.points},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], letters: tuple[str, ...]) -> OperatingPoints:
        """Read the points back for exactly these classes.

        Raises:
            BundleError: the values are not a set of operating points for these classes.
        """
        entry = _require_keys("operating_points", values, {"default", "points"})
        if not isinstance(entry["points"], Mapping):
            raise BundleError("operating_points: `points` must map names to thresholds")
        points = tuple(
            OperatingPoint.from_dict(str(name), point, letters)
            for name, point in entry["points"].items()
        )
        return cls(default=str(entry["default"]), points=points)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # exp only ever sees values at or below 0, so it cannot overflow
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require_classes(what: str, values: Any, letters: tuple[str, ...]) -> None:
    if not isinstance(values, Mapping) or set(values) != set(letters):
        came = sorted(values) if isinstance(values, Mapping) else type(values).__name__
        raise BundleError(
            f"{what} is for the classes {came}, but the class list is {sorted(letters)}; "
            "both must name the same classes"
        )


def _require_keys(what: str, values: Any, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or set(values) != keys:
        came = sorted(values) if isinstance(values, Mapping) else type(values).__name__
        raise BundleError(f"{what} needs exactly the keys {sorted(keys)}, got {came}")
    return values
