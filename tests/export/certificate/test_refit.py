from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus_export.certificate.refit import KEPT_WITHIN, needs_refit, refit_to_reference
from fundus_runtime.calibration import Calibration, ClassCalibration

CALIBRATION = Calibration(("N", "D"), (ClassCalibration(1.4, 0.3), ClassCalibration(0.8, -0.9)))
REFERENCE = np.random.default_rng(0).normal(0, 2, (200, 2)).astype(np.float32)


def test_the_reference_gets_its_own_calibration_back() -> None:
    assert refit_to_reference(REFERENCE, REFERENCE, CALIBRATION) == CALIBRATION


@given(st.floats(0.5, 2.0), st.floats(-2.0, 2.0))
def test_a_stretch_and_a_shift_of_the_logits_are_undone(slope: float, shift: float) -> None:
    dialect = slope * REFERENCE + shift
    refitted = refit_to_reference(dialect, REFERENCE, CALIBRATION)

    # not exactly: the pull towards the reference's own calibration stays
    assert np.abs(refitted.apply(dialect) - CALIBRATION.apply(REFERENCE)).max() < 0.01


def test_noise_is_not_chased() -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, REFERENCE.shape)
    refitted = refit_to_reference(REFERENCE + noise, REFERENCE, CALIBRATION)

    for one, own in zip(refitted.classes, CALIBRATION.classes, strict=True):
        assert one.temperature == pytest.approx(own.temperature, rel=0.05)
        assert one.bias == pytest.approx(own.bias, abs=0.05)


def test_a_class_that_nobody_has_keeps_about_its_calibration() -> None:
    reference = REFERENCE - 12.0
    dialect = reference + 0.5
    refitted = refit_to_reference(dialect, reference, CALIBRATION)

    assert np.abs(refitted.apply(dialect) - CALIBRATION.apply(reference)).max() < 5e-3


def test_a_class_that_answers_the_same_to_all_gets_the_mean() -> None:
    dialect = np.full_like(REFERENCE, 3.0)
    refitted = refit_to_reference(dialect, REFERENCE, CALIBRATION)

    assert refitted.apply(dialect).mean(axis=0) == pytest.approx(
        CALIBRATION.apply(REFERENCE).mean(axis=0), abs=0.01
    )


def test_a_class_that_answers_the_opposite_still_has_a_calibration() -> None:
    refitted = refit_to_reference(-REFERENCE, REFERENCE, CALIBRATION)

    for one, own in zip(refitted.classes, CALIBRATION.classes, strict=True):
        assert 5 * own.temperature < one.temperature < 50 * own.temperature


def test_no_rows_keep_the_calibration() -> None:
    assert refit_to_reference(REFERENCE[:0], REFERENCE[:0], CALIBRATION) == CALIBRATION


def test_only_what_differs_is_refitted() -> None:
    assert not needs_refit(REFERENCE, REFERENCE + 1e-4, CALIBRATION)
    assert needs_refit(REFERENCE, REFERENCE + 20 * KEPT_WITHIN, CALIBRATION)
    assert not needs_refit(REFERENCE[:0], REFERENCE[:0], CALIBRATION)
    assert needs_refit(REFERENCE, np.full_like(REFERENCE, np.nan), CALIBRATION)
