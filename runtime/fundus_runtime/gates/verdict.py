"""`judge`: may this photograph be screened, and if not, why and what should the operator do?

A gate has a figure, a bound (`GateThresholds`), a reason in snake_case for programs and a hint for
people. The side of the optic disc is only ever a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.gates.figures import figures_of
from fundus_runtime.gates.fingerprint import Fingerprint, fingerprint, likeness
from fundus_runtime.gates.gate_list import GateFigure, gate_figures
from fundus_runtime.gates.laterality import side_score
from fundus_runtime.gates.native import measure
from fundus_runtime.gates.readings import GateReadings
from fundus_runtime.gates.thresholds import GateThresholds
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.preprocess.eye import FieldOfView

__all__ = ["GateVerdict", "PairVerdict", "judge", "judge_pair", "verdict_of"]

Laterality = Literal["left", "right", "unknown"]
DEFAULT_THRESHOLDS = GateThresholds()


@dataclass(frozen=True)
class GateVerdict:
    """What the gates say of one photograph.

    Attributes:
        usable: every gate passed.
        figures: one for each gate, in the order in which they are looked at.
        reason: of the first gate that did not pass.
        hint: its hint.
        warnings: sentences for the operator; they refuse nothing.
        laterality: the eye that the optic disc's side speaks for.
        side_score: log odds for a left eye.
        fingerprint: to tell whether another photograph is the same one.
    """

    usable: bool
    figures: tuple[GateFigure, ...]
    reason: str | None
    hint: str | None
    warnings: tuple[str, ...]
    laterality: Laterality
    side_score: float
    fingerprint: Fingerprint = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON values, without the fingerprint."""
        return {
            "usable": self.usable,
            "reason": self.reason,
            "hint": self.hint,
            "figures": [figure.to_dict() for figure in self.figures],
            "laterality": self.laterality,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class PairVerdict:
    """What the gates say of both eyes together.

    Attributes:
        usable: nothing is wrong with the pair.
        reason: ``same_photograph`` or ``declared_eye_missing``; None where usable.
        hint: what the operator should do.
        missing: eyes that were declared and are not there.
        likeness: correlation of the two photographs, -1 to 1; None unless both are there.
        warnings: sentences for the operator.
    """

    usable: bool
    reason: str | None = None
    hint: str | None = None
    missing: tuple[Eye, ...] = ()
    likeness: float | None = None
    warnings: tuple[str, ...] = ()


def judge(
    frame: NDArray[np.uint8],
    field_of_view: FieldOfView,
    thresholds: GateThresholds = DEFAULT_THRESHOLDS,
    *,
    declared_eye: Eye | None,
    color: Literal["rgb", "bgr"],
) -> GateVerdict:
    """Judge one photograph.

    Args:
        frame: H x W x 3, 8 bits, any strides.
        field_of_view: the disc in it. A frame without one was refused before, as ``no_fundus``,
            ``no_field_of_view`` or ``field_of_view_too_small``.
        thresholds: the bounds.
        declared_eye: which eye the operator says it is; None where nobody said.
        color: channel order of `frame`.
    """
    readings = measure(frame, field_of_view, color=color)
    return verdict_of(readings, field_of_view, thresholds, declared_eye=declared_eye)


def verdict_of(
    readings: GateReadings,
    field_of_view: FieldOfView,
    thresholds: GateThresholds = DEFAULT_THRESHOLDS,
    *,
    declared_eye: Eye | None,
) -> GateVerdict:
    """The verdict on what was measured; see `judge`."""
    figures = gate_figures(figures_of(readings, field_of_view), thresholds)
    refusing = next((figure for figure in figures if not figure.passed), None)
    score = side_score(readings)
    side = _laterality(score, thresholds.min_side)
    return GateVerdict(
        usable=refusing is None,
        figures=figures,
        reason=refusing.reason if refusing else None,
        hint=refusing.hint if refusing else None,
        warnings=_side_warnings(side, declared_eye),
        laterality=side,
        side_score=score,
        fingerprint=fingerprint(readings),
    )


def judge_pair(
    verdicts: Mapping[Eye, GateVerdict | None],
    thresholds: GateThresholds = DEFAULT_THRESHOLDS,
    *,
    declared: tuple[Eye, ...] = EYES,
) -> PairVerdict:
    """Judge both eyes together.

    Args:
        verdicts: of each eye; None, or no entry, for an eye without a photograph.
        thresholds: the bounds.
        declared: the eyes that the exam is of.
    """
    missing = tuple(eye for eye in declared if verdicts.get(eye) is None)
    left, right = verdicts.get("left"), verdicts.get("right")
    like = likeness(left.fingerprint, right.fingerprint) if left and right else None
    if like is not None and like >= thresholds.min_same:
        hint = "both photographs are the same one; photograph each eye and name it"
        return PairVerdict(False, "same_photograph", hint, missing, like)
    if missing:
        hint = f"no photograph of the {' and '.join(missing)} eye; take one, or refer the patient"
        return PairVerdict(False, "declared_eye_missing", hint, missing, like)
    return PairVerdict(True, likeness=like)


def _laterality(score: float, min_side: float) -> Laterality:
    if abs(score) < min_side:
        return "unknown"
    return "left" if score > 0 else "right"


def _side_warnings(side: Laterality, declared: Eye | None) -> tuple[str, ...]:
    if declared is None or side in ("unknown", declared):
        return ()
    return (
        f"declared {declared}, but the optic disc lies where a {side} eye has it; "
        "check which eye was photographed",
    )
