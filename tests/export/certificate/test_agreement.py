"""Hand-computed: six patients, three classes (N normal), every kind of change once."""

from __future__ import annotations

import numpy as np
import pytest

from fundus_export.certificate.agreement import Judged, PointAgreement, agreement_at
from fundus_runtime.calibration import OperatingPoint
from fundus_runtime.labels import ClassList

POINT = OperatingPoint("even", ("N", "D", "G"), (0.5, 0.4, 0.6), ("by hand",) * 3)

#                 N    D    G        N    D    G
CASES = [
    ((0.9, 0.1, 0.1), (0.8, 0.3, 0.5)),  # nothing: normal
    ((0.9, 0.1, 0.1), (0.4, 0.1, 0.1)),  # N lost: normal -> uncertain, referral gained
    ((0.2, 0.7, 0.1), (0.9, 0.3, 0.1)),  # D lost, N won: findings -> normal, referral lost
    ((0.2, 0.7, 0.7), (0.2, 0.7, 0.5)),  # G lost: findings stay findings
    ((0.1, 0.1, 0.1), (0.1, 0.4, 0.1)),  # D at its threshold: uncertain -> findings, still refer
    ((0.9, 0.1, 0.1), (0.1, 0.9, 0.1)),  # one eye: N and D change, the exam stays ungradable
]
COMPLETE = np.array([True] * 5 + [False])


@pytest.fixture
def agreement(classes: ClassList) -> PointAgreement:
    before, after = (np.array([case[k] for case in CASES], np.float32) for k in (0, 1))
    return agreement_at(POINT, Judged(before, after, COMPLETE), classes)


def test_class_decisions_are_counted_over_all_patients(agreement: PointAgreement) -> None:
    assert (agreement.class_decisions.count, agreement.class_decisions.of) == (7, 18)
    counts = {letter: share.count for letter, share in agreement.per_class.items()}
    assert counts == {"N": 3, "D": 3, "G": 1}
    assert {share.of for share in agreement.per_class.values()} == {6}


def test_patients_with_any_change_are_counted_once(agreement: PointAgreement) -> None:
    assert (agreement.patients_with_a_change.count, agreement.patients_with_a_change.of) == (5, 6)


def test_referrals_are_counted_on_patients_with_both_eyes(agreement: PointAgreement) -> None:
    assert (agreement.referrals.count, agreement.referrals.of) == (2, 5)
    assert (agreement.referrals_lost, agreement.referrals_gained) == (1, 1)


def test_outcomes_say_from_what_to_what(agreement: PointAgreement) -> None:
    assert (agreement.outcomes.count, agreement.outcomes.of) == (3, 5)
    assert agreement.outcome_changes == {
        "findings -> normal": 1,
        "normal -> uncertain": 1,
        "uncertain -> findings": 1,
    }
