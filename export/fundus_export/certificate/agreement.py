"""Counts how often a dialect decides otherwise than the reference at one operating point.

Class decisions are those of all patients with a gradable eye. Referral and outcome are counted on
patients with both eyes alone: an exam with one eye is `ungradable` and refers, whatever the model
says, so that counting it would only flatter the dialect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fundus_export.certificate.bounds import Share, design_effect, share_of, share_of_clusters
from fundus_runtime.calibration import OperatingPoint
from fundus_runtime.labels import ClassList
from fundus_runtime.outcome import Decision, decide
from fundus_training.metrics import called_at

__all__ = ["Judged", "PointAgreement", "agreement_at"]

Probabilities = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """What both say of N patients.

    Attributes:
        reference: N×K calibrated probabilities of the reference.
        dialect: N×K of the dialect, each by a calibration that did not see the patient.
        complete: N; both eyes were there and gradable.
    """

    reference: Probabilities
    dialect: Probabilities
    complete: Flags


@dataclass(frozen=True)
class PointAgreement:
    """What changed at one operating point.

    Attributes:
        class_decisions: changed among all patients and classes; the bounds know that one patient's
            classes are not independent.
        design_effect: by how much these vary more than independent ones would, at least 1.
        per_class: changed decisions of each class.
        patients_with_a_change: patients with any changed class decision.
        referrals: patients with both eyes whose "refer or not" changed.
        referrals_lost: those that the reference refers and the dialect does not.
        referrals_gained: those that the dialect refers and the reference does not.
        outcomes: patients with both eyes whose outcome changed.
        outcome_changes: how many of them went from what to what, as `normal -> findings`.
    """

    class_decisions: Share
    design_effect: float
    per_class: Mapping[str, Share]
    patients_with_a_change: Share
    referrals: Share
    referrals_lost: int
    referrals_gained: int
    outcomes: Share
    outcome_changes: Mapping[str, int]


def agreement_at(point: OperatingPoint, judged: Judged, classes: ClassList) -> PointAgreement:
    """Compare all decisions at this point."""
    changed = called_at(judged.reference, point.thresholds) != called_at(
        judged.dialect, point.thresholds
    )
    before, after = (
        _decisions(probabilities[judged.complete], point, classes)
        for probabilities in (judged.reference, judged.dialect)
    )
    pairs = list(zip(before, after, strict=True))
    moves = Counter(f"{a.outcome} -> {b.outcome}" for a, b in pairs if a.outcome != b.outcome)
    return PointAgreement(
        class_decisions=share_of_clusters(changed),
        design_effect=design_effect(changed),
        per_class={letter: share_of(changed[:, k]) for k, letter in enumerate(classes.letters)},
        patients_with_a_change=share_of(changed.any(axis=1)),
        referrals=share_of([a.refer != b.refer for a, b in pairs]),
        referrals_lost=sum(a.refer and not b.refer for a, b in pairs),
        referrals_gained=sum(b.refer and not a.refer for a, b in pairs),
        outcomes=share_of([a.outcome != b.outcome for a, b in pairs]),
        outcome_changes=dict(sorted(moves.items())),
    )


def _decisions(
    probabilities: Probabilities, point: OperatingPoint, classes: ClassList
) -> list[Decision]:
    """On patients with both eyes, as the runtime decides."""
    thresholds = point.threshold_of
    return [
        decide(dict(zip(classes.letters, row, strict=True)), thresholds, classes, complete=True)
        for row in probabilities.tolist()
    ]
