"""Calibration finds shifts that are there, and operating points keep their rules."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from fundus_runtime.labels import ClassList
from fundus_training import calibrate, operating_points
from fundus_training.errors import CheckpointError, DataError
from fundus_training.metrics import expected_calibration_error, sensitivity_specificity
from fundus_training.predict import EyePredictions, Predictions

CLASSES = ClassList(("N", "D", "G"), ("normal", "diabetic", "glaucoma"), normal="N")

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads over tiny tensors wait for each other and do little else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _shifted(
    temperature: npt.ArrayLike, bias: npt.ArrayLike, patients: int = 20000, seed: int = 0
) -> tuple[Logits, Labels]:
    """Logits whose true probabilities are sigmoid(logit / temperature + bias)."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=3.0, size=(patients, np.size(temperature)))
    truth = 1.0 / (1.0 + np.exp(-(logits / np.asarray(temperature) + np.asarray(bias))))
    return logits.astype(np.float32), (random.random(truth.shape) < truth).astype(np.int64)


def _predictions(logits: Logits, labels: Labels, *, eyes: bool = True) -> Predictions:
    there = np.ones(len(logits), dtype=bool)
    eye = EyePredictions(logits, there, labels, there & eyes)
    return Predictions(tuple(map(str, range(len(logits)))), logits, labels, eye, eye)


def test_a_known_shift_is_recovered() -> None:
    temperature, bias = np.array([0.5, 1.0, 2.5]), np.array([-2.0, 0.0, 1.5])
    found_temperature, found_bias = calibrate.fit_temperature_and_bias(*_shifted(temperature, bias))
    assert found_temperature == pytest.approx(temperature, rel=0.08)
    assert found_bias == pytest.approx(bias, abs=0.1)


def test_the_calibration_error_falls_to_almost_nothing_on_other_patients() -> None:
    fit = calibrate.fit_calibration(*_shifted([2.0] * 3, [-1.5] * 3, seed=1), CLASSES)
    logits, labels = _shifted([2.0] * 3, [-1.5] * 3, seed=2)
    before = expected_calibration_error(
        labels, calibrate.plain_probabilities(logits, "multi_label")
    )
    assert before > 0.15
    assert expected_calibration_error(labels, fit.apply(logits)) < 0.01


def test_a_bias_undoes_what_no_temperature_can() -> None:
    # A class weight of 10 in the loss shifts the logit by log 10 and leaves its slope alone.
    found_temperature, found_bias = calibrate.fit_temperature_and_bias(
        *_shifted([1.0], [-np.log(10)])
    )
    assert found_bias[0] == pytest.approx(-np.log(10), abs=0.1)
    assert found_temperature[0] == pytest.approx(1.0, rel=0.05)


def test_calibration_keeps_the_order_of_patients_even_when_logits_mislead() -> None:
    logits, labels = _shifted([1.0], [0.0], patients=400)
    temperature, _ = calibrate.fit_temperature_and_bias(logits, 1 - labels)
    assert temperature[0] > 0.0


def test_rare_and_separable_classes_stay_finite() -> None:
    logits = np.linspace(-5, 5, 60, dtype=np.float32)[:, None].repeat(3, axis=1)
    labels = np.zeros((60, 3), dtype=np.int64)
    labels[-2:, 0] = 1  # two positives, above everything else
    labels[30:, 1] = 1  # perfectly separable
    labels[:, 2] = 0  # none at all
    temperature, bias = calibrate.fit_temperature_and_bias(logits, labels)
    assert np.isfinite(temperature).all()
    assert np.isfinite(bias).all()
    assert (temperature > 0.05).all()
    assert (temperature[2], bias[2]) == (1.0, 0.0)


def test_errors_fall_for_patients_and_eyes_cross_fitted_too() -> None:
    logits, labels = _shifted([2.0] * 3, [-1.5] * 3, patients=400)
    predictions = _predictions(logits, labels)
    fitted = calibrate.calibrate(predictions, CLASSES)
    errors = calibrate.calibration_errors(predictions, fitted)
    assert set(errors) == {"patients", "eyes"}
    for found in errors.values():
        assert max(found["after"], found["cross_fitted"]) < 0.3 * found["before"]


def test_cross_fitting_is_less_flattering_than_the_fit_itself() -> None:
    # Labels that have nothing to do with the logits: all that a fit gains on them is overfitting.
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, 200)).astype(np.float32)
    labels = (random.random(logits.shape) < 0.5).astype(np.int64)
    temperature, bias = calibrate.fit_temperature_and_bias(logits, labels)
    fitted = calibrate.plain_probabilities(logits / temperature + bias, "multi_label")
    crossed = calibrate.cross_fitted_probabilities(logits, labels)
    assert log_loss(labels.ravel(), fitted.ravel()) < log_loss(labels.ravel(), crossed.ravel())


def test_both_eyes_of_a_patient_share_a_fold() -> None:
    # Each patient's two eyes are identical; a fold that split them would calibrate with itself.
    logits, labels = _shifted([1.0], [0.0], patients=50)
    twice, owner = np.concatenate([logits, logits]), np.tile(np.arange(50), 2)
    found = calibrate.cross_fitted_probabilities(
        twice, np.concatenate([labels, labels]), owner=owner
    )
    assert np.array_equal(found[:50], found[50:])


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        calibrate.fit_temperature_and_bias(np.full((4, 2), np.nan), np.eye(4, 2))


def test_a_fitted_calibration_survives_json() -> None:
    fitted = calibrate.calibrate(_predictions(*_shifted([2.0] * 3, [0.5] * 3, 300)), CLASSES)
    stored = json.loads(json.dumps(fitted.to_dict()))
    assert calibrate.FittedCalibration.from_dict(stored, CLASSES) == fitted
    assert (fitted.patients, fitted.eyes) == (300, 600)
    with pytest.raises(CheckpointError, match="exactly the keys"):
        calibrate.FittedCalibration.from_dict({}, CLASSES)


def test_without_labelled_eyes_the_eyes_stay_uncalibrated_and_say_so() -> None:
    logits, labels = _shifted([2.0] * 3, [0.5] * 3, patients=200)
    fitted = calibrate.calibrate(_predictions(logits, labels, eyes=False), CLASSES)
    assert fitted.eyes == 0
    assert {one.temperature for one in fitted.eye.classes} == {1.0}
    point = fitted.eye_points.get("best_f1")
    assert set(point.thresholds) == {0.5}
    assert "only 0 positive labelled eyes" in point.rules[0]


def test_best_f1_threshold_lies_midway_between_its_neighbours() -> None:
    scores = np.array([0.1, 0.2, 0.6, 0.8])
    assert operating_points.best_f1_threshold(np.array([0, 0, 1, 1]), scores) == pytest.approx(0.4)


def test_equally_good_thresholds_give_the_widest_gap() -> None:
    # Calling one patient (above 0.6) or all four (above 0.05) gives the same F1 of 2/3.
    labels, scores = np.array([1, 0, 0, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    assert operating_points.best_f1_threshold(labels, scores) == pytest.approx(0.6)


@given(st.integers(0, 10_000), st.sampled_from((0.8, 0.9, 0.95)))
def test_thresholds_are_the_best_of_all_possible_ones(seed: int, target: float) -> None:
    random = np.random.default_rng(seed)
    labels = (random.random(60) < 0.4).astype(np.int64)
    labels[0], labels[1] = 1, 0
    scores = np.round(random.random(60) * 0.98 + 0.01, 2)  # with ties
    candidates = np.concatenate([np.unique(scores), [1.0]])
    shares = [sensitivity_specificity(labels, scores >= cut) for cut in candidates]

    def f1(cut: float) -> float:
        calls = scores >= cut
        return 2.0 * (labels & calls).sum() / (labels.sum() + calls.sum())

    chosen = operating_points.best_f1_threshold(labels, scores)
    assert f1(chosen) == pytest.approx(max(f1(cut) for cut in candidates))

    chosen = operating_points.sensitivity_threshold(labels, scores, target)
    highest = max(c for c, (found, _) in zip(candidates, shares, strict=True) if found >= target)
    assert np.array_equal(scores >= chosen, scores >= highest)

    chosen = operating_points.specificity_threshold(labels, scores, target)
    lowest = min(c for c, (_, spared) in zip(candidates, shares, strict=True) if spared >= target)
    assert np.array_equal(scores >= chosen, scores >= lowest)
    assert not np.isin(chosen, scores)


def test_classes_with_fewer_than_twenty_positives_use_a_half_and_say_so() -> None:
    labels = np.zeros((100, 3), dtype=np.int64)
    labels[:19, 1] = 1
    labels[:20, 2] = 1
    labels[:85, 0] = 1  # leaves 15 negatives, too few for a specificity
    probabilities = np.random.default_rng(0).random((100, 3))
    points = operating_points.choose_operating_points(labels, probabilities, CLASSES)
    assert points.default == "best_f1"
    assert points.names == ("best_f1", "sensitivity_80", "sensitivity_90", "sensitivity_95")
    for point in points.points:
        assert point.threshold_of["D"] == 0.5
        assert "only 19 positive validation patients, fewer than 20" in point.rule_of["D"]
        assert "fewer than" not in point.rule_of["G"]
    assert "85 positive" in points.get("best_f1").rule_of["N"]
    assert "only 15 negative" in points.get("sensitivity_90").rule_of["N"]


def test_stated_sensitivities_raise_referral_through_findings_and_through_normal() -> None:
    random = np.random.default_rng(0)
    ill = random.random(500) < 0.5
    labels = np.stack([~ill, ill, ill & (random.random(500) < 0.5)], axis=1).astype(np.int64)
    probabilities = np.clip(0.5 * labels + 0.5 * random.random(labels.shape), 0.01, 0.99)
    points = operating_points.choose_operating_points(labels, probabilities, CLASSES)
    for percent in (80, 90, 95):
        point = points.get(f"sensitivity_{percent}")
        calls = probabilities >= np.array(point.thresholds)
        _, spared = sensitivity_specificity(labels[:, 0], calls[:, 0])
        assert spared is not None
        assert spared >= percent / 100
        assert "specificity" in point.rule_of["N"]
        for column, letter in ((1, "D"), (2, "G")):
            found, _ = sensitivity_specificity(labels[:, column], calls[:, column])
            assert found is not None
            assert found >= percent / 100
            assert f"sensitivity of at least {percent} %" in point.rule_of[letter]
