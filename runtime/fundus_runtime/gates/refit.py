"""Fits the gates' thresholds to a camera, from photographs that people sorted.

The quality bound is where it tells the sorted photographs apart best, or, where all are good, where
it refuses a stated share of them. Every other bound leaves room beyond the extremes of the good
photographs, since it is there for what none of them shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fundus_runtime.errors import UsageError
from fundus_runtime.gates.figures import EyeFigures
from fundus_runtime.gates.gate_list import GATES, gate_figures
from fundus_runtime.gates.thresholds import GateThresholds

__all__ = ["GRADES", "MIN_GOOD", "Grade", "GradedEye", "Refit", "refit"]

Grade = Literal["good", "usable", "reject"]
GRADES: tuple[Grade, ...] = ("good", "usable", "reject")
MIN_GOOD = 20

_FOLDS = 5
_EYE_ENDINGS = ("_left", "_right")
# of the good photographs, so that one that was sorted wrongly among hundreds sets no bound
_EXTREME = 0.005
# the bound is this share of the least good figure
_ROOM_BELOW = {
    "visible_percent": 0.9,
    "level": 0.6,
    "warmth_percent": 0.6,
    "redness": 0.6,
    "detail": 0.6,
}
# the bound is half as much again as the largest good figure, and this
_ROOM_ABOVE = {"clipped_percent": 5.0, "shaded_percent": 5.0, "noise": 1.0}


@dataclass(frozen=True)
class GradedEye:
    """One sorted photograph; no figures where it has no field of view.

    Attributes:
        name: its file, which is no other photograph's.
        grade: as people sorted it.
        figures: what the gates look at.
    """

    name: str
    grade: Grade
    figures: EyeFigures | None

    @property
    def patient(self) -> str:
        """The file's name without folder, suffix and the ending `_left` or `_right`."""
        # the folder is the grade, which may differ between both eyes
        stem = Path(self.name).stem
        return next((stem[: -len(e)] for e in _EYE_ENDINGS if stem.lower().endswith(e)), stem)

    def refused(self, thresholds: GateThresholds) -> bool:
        """Whether the gates refuse it."""
        if self.figures is None:
            return True
        return not all(answer.passed for answer in gate_figures(self.figures, thresholds))


@dataclass(frozen=True)
class Refit:
    """Thresholds for a camera, and what they do.

    Attributes:
        thresholds: fitted on all photographs.
        counts: how many photographs, by grade.
        refused: share that `thresholds` refuse, by grade.
        cross_validated: share refused of photographs of patients whom a fit on the others did not
            see.
    """

    thresholds: GateThresholds
    counts: dict[Grade, int]
    refused: dict[Grade, float]
    cross_validated: dict[Grade, float]


def refit(eyes: Sequence[GradedEye], *, refuse_good: float, start: GateThresholds) -> Refit:
    """Fit the thresholds.

    Args:
        eyes: sorted photographs; usable and reject ones may be missing.
        refuse_good: the share of good photographs that the quality may refuse at most, 0 to 0.5.
        start: the thresholds that say which side and which copies; those two are kept.

    Raises:
        UsageError: fewer than `MIN_GOOD` good photographs show a field of view, or they are of
            fewer than five patients.
    """
    usable = [eye for eye in eyes if eye.grade == "good" and eye.figures is not None]
    if len(usable) < MIN_GOOD:
        raise UsageError(
            f"{len(usable)} good photographs show a field of view, at least {MIN_GOOD} are needed; "
            "take more with this camera"
        )
    if (patients := len({eye.patient for eye in usable})) < _FOLDS:
        raise UsageError(
            f"good photographs are of {patients} patients by their names, at least {_FOLDS} are "
            "needed; name them PATIENT_left and PATIENT_right, and photograph more patients"
        )
    thresholds = _fit(eyes, refuse_good, start)
    seen = {eye.name: eye.refused(thresholds) for eye in eyes}
    unseen = _unseen(eyes, refuse_good, start)
    counts = {grade: sum(eye.grade == grade for eye in eyes) for grade in GRADES}
    return Refit(thresholds, counts, _shares(eyes, seen), _shares(eyes, unseen))


def _unseen(
    eyes: Sequence[GradedEye], refuse_good: float, start: GateThresholds
) -> dict[str, bool]:
    """Which photographs a fit on the other folds refuses, by name."""
    folds = _folds(eyes)
    refused: dict[str, bool] = {}
    for fold in range(_FOLDS):
        training = [eye for eye in eyes if folds[eye.patient] != fold]
        bounds = _fit(training, refuse_good, start)
        refused |= {eye.name: eye.refused(bounds) for eye in eyes if folds[eye.patient] == fold}
    return refused


def _folds(eyes: Sequence[GradedEye]) -> dict[str, int]:
    """Each patient's fold, so that both eyes share it."""
    # dealt out by grade, good eyes that can be measured first: no fold holds all of these
    dealt = sorted(eyes, key=lambda eye: (GRADES.index(eye.grade), eye.figures is None))
    patients = dict.fromkeys(eye.patient for eye in dealt)
    return {patient: i % _FOLDS for i, patient in enumerate(patients)}


def _fit(eyes: Sequence[GradedEye], refuse_good: float, start: GateThresholds) -> GateThresholds:
    good = [e.figures for e in eyes if e.grade == "good" and e.figures is not None]
    bounds = {
        gate.threshold: _with_room(gate.figure, good) for gate in GATES if gate.figure != "quality"
    }
    quality = _rounded_down(_quality_bound(eyes, refuse_good))
    return replace(start, **bounds, min_quality=quality)


def _with_room(figure: str, good: Sequence[EyeFigures]) -> float:
    values = sorted(float(getattr(figures, figure)) for figures in good)
    if figure in _ROOM_BELOW:
        return _rounded_down(_ROOM_BELOW[figure] * _at_share(values, _EXTREME))
    largest = values[-1 - int(_EXTREME * len(values))]
    return -_rounded_down(-1.5 * largest - _ROOM_ABOVE[figure])


def _quality_bound(eyes: Sequence[GradedEye], refuse_good: float) -> float:
    """Least refused of what is accepted plus least accepted of what is rejected, in shares."""
    of = {
        grade: sorted(e.figures.quality for e in eyes if e.grade == grade and e.figures is not None)
        for grade in GRADES
    }
    highest = _at_share(of["good"], refuse_good)
    if not of["reject"]:
        return highest
    kept = of["good"] + of["usable"]
    candidates = [q for q in (*kept, *of["reject"]) if q <= highest] or [highest]

    def faults(bound: float) -> float:
        lost = sum(q < bound for q in kept) / len(kept)
        return lost + sum(q >= bound for q in of["reject"]) / len(of["reject"])

    return min(sorted(candidates), key=faults)


def _at_share(ordered: Sequence[float], share: float) -> float:
    """The largest bound that refuses at most that share of the values."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _rounded_down(value: float) -> float:
    """To thousandths; down, so that the eye that set a bound still passes it."""
    return math.floor(1000 * value) / 1000


def _shares(eyes: Sequence[GradedEye], refused: dict[str, bool]) -> dict[Grade, float]:
    shares: dict[Grade, float] = {}
    for grade in GRADES:
        of_grade = [refused[eye.name] for eye in eyes if eye.grade == grade]
        if of_grade:
            shares[grade] = sum(of_grade) / len(of_grade)
    return shares
