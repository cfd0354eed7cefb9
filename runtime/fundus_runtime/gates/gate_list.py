"""The gates of one photograph, in the order in which they are looked at.

Each compares one figure with one bound, and has a reason in snake_case for programs and a hint for
the operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fundus_runtime.gates.figures import EyeFigures
from fundus_runtime.gates.thresholds import GateThresholds

__all__ = ["GATES", "LIKENESS_MEANING", "Gate", "GateFigure", "gate_figures"]

Bound = Literal["at_least", "at_most"]

# significant digits that tell any two floats apart
_ALL_DIGITS = 17


@dataclass(frozen=True)
class Gate:
    """One gate.

    Attributes:
        figure: field of `EyeFigures`.
        threshold: field of `GateThresholds`.
        bound: whether the figure must be ``at_least`` or ``at_most`` the threshold.
        reason: why a photograph is refused.
        hint: what the operator should do then.
        unit: of figure and threshold; empty where it has none.
        meaning: what the figure is, in a line for readers who do not know the gates.
    """

    figure: str
    threshold: str
    bound: Bound
    reason: str
    hint: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class GateFigure:
    """One gate's answer.

    Attributes:
        name: of the figure.
        value: measured.
        threshold: its bound.
        bound: whether the value must be ``at_least`` or ``at_most`` the threshold.
        passed: whether it is.
        reason: why the photograph is refused; None where passed.
        hint: what the operator should do; None where passed.
        unit: of value and threshold; empty where they have none. Not part of the JSON form.
        meaning: what the figure is, in a line for readers. Not part of the JSON form.
    """

    name: str
    value: float
    threshold: float
    bound: Bound
    passed: bool
    reason: str | None = None
    hint: str | None = None
    unit: str = ""
    meaning: str = ""

    def rounded(self, digits: int) -> float:
        """The value to so many significant digits, or as many more as keep it on its side.

        So a refused value never reads as equal to its threshold.
        """
        for more in range(digits, _ALL_DIGITS):
            shown = float(f"{self.value:.{more}g}")
            if _meets(shown, self.threshold, self.bound) == self.passed:
                return shown
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """The figure as JSON values; the value `rounded` to four significant digits."""
        return {
            "name": self.name,
            "value": self.rounded(4),
            "threshold": self.threshold,
            "bound": self.bound,
            "passed": self.passed,
        }


_NO_FUNDUS = "this does not have the colours of a retina; check what the camera looks at, retake"

# the gate of a pair has no place among those of one photograph
LIKENESS_MEANING = (
    "how alike the fine structure of both photographs is, -1 to 1; 1 is one photograph given twice"
)

GATES: tuple[Gate, ...] = (
    Gate(
        "visible_percent",
        "min_visible_percent",
        "at_least",
        "field_of_view_cut",
        "much of the field of view is outside the picture; centre the pupil and retake",
        "%",
        "part of the field of view that lies in the picture",
    ),
    # colours say little in the dark, and nothing where they are clipped
    Gate(
        "level",
        "min_level",
        "at_least",
        "underexposed",
        "too dark; raise the flash, wait for the pupil to widen, then retake",
        "of 255",
        "median brightness of the retina in red",
    ),
    Gate(
        "clipped_percent",
        "max_clipped_percent",
        "at_most",
        "overexposed",
        "too bright; lower the flash, mind reflections of lashes and lens, then retake",
        "%",
        "part of the retina so bright that nothing can be seen in it",
    ),
    Gate(
        "warmth_percent",
        "min_warmth_percent",
        "at_least",
        "no_fundus",
        _NO_FUNDUS,
        "%",
        "how much more red than blue the warmest tenth of the picture is; little is no retina",
    ),
    Gate(
        "redness",
        "min_redness",
        "at_least",
        "no_fundus",
        _NO_FUNDUS,
        "times",
        "how many times as bright in red as in green the picture is; little is no retina",
    ),
    Gate(
        "shaded_percent",
        "max_shaded_percent",
        "at_most",
        "partly_dark",
        "part of the retina is in shadow; open the lid wider, centre the pupil, then retake",
        "%",
        "part of the retina in shadow, as of lid, lashes or a small pupil",
    ),
    Gate(
        "noise",
        "max_noise",
        "at_most",
        "noisy",
        "the picture is noisy; raise the flash and lower the gain, then retake",
        "levels",
        "grain of the picture, in brightness levels of 255",
    ),
    Gate(
        "detail",
        "min_detail",
        "at_least",
        "blurred",
        "hardly a vessel can be seen; focus, keep the eye still, clean the lens, then retake",
        "levels",
        "how much darker than their surround the clearest vessels are, in brightness levels of 255",
    ),
    Gate(
        "quality",
        "min_quality",
        "at_least",
        "poor_contrast",
        "too little contrast, as of haze or a small pupil; focus, let the pupil widen, then retake",
        "log odds",
        "whether a grader would accept the photograph, from detail and colours; 0 is even, "
        "more is better",
    ),
)


def gate_figures(figures: EyeFigures, thresholds: GateThresholds) -> tuple[GateFigure, ...]:
    """Every gate's answer, in the order of `GATES`."""
    return tuple(_answer(gate, figures, thresholds) for gate in GATES)


def _answer(gate: Gate, figures: EyeFigures, thresholds: GateThresholds) -> GateFigure:
    value: float = getattr(figures, gate.figure)
    threshold: float = getattr(thresholds, gate.threshold)
    passed = _meets(value, threshold, gate.bound)
    return GateFigure(
        gate.figure,
        value,
        threshold,
        gate.bound,
        passed,
        reason=None if passed else gate.reason,
        hint=None if passed else gate.hint,
        unit=gate.unit,
        meaning=gate.meaning,
    )


def _meets(value: float, threshold: float, bound: Bound) -> bool:
    return value >= threshold if bound == "at_least" else value <= threshold
