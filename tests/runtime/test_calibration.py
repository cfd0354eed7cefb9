from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus_runtime.calibration import (
    Calibration,
    ClassCalibration,
    OperatingPoint,
    OperatingPoints,
)
from fundus_runtime.errors import BundleError, UsageError

LETTERS = ("N", "D")
POINT = OperatingPoint("best_f1", LETTERS, (0.5, 0.3), ("rule of N", "rule of D"))


def test_probability_is_the_sigmoid_of_the_corrected_logit() -> None:
    calibration = Calibration(LETTERS, (ClassCalibration(2.0, 0.5), ClassCalibration(0.5, -1.0)))
    probabilities = calibration.apply([[1.0, 1.0]])
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (1, 2)
    expected = [1 / (1 + math.exp(-(1 / 2 + 0.5))), 1 / (1 + math.exp(-(1 / 0.5 - 1.0)))]
    assert probabilities[0] == pytest.approx(expected, rel=1e-6)


def test_identity_leaves_the_logit_as_it_is() -> None:
    assert Calibration.identity(LETTERS).apply([0.0, 0.0]).tolist() == [0.5, 0.5]


@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=2))
def test_any_finite_logit_gives_a_probability(logits: list[float]) -> None:
    probabilities = Calibration.identity(LETTERS).apply(logits)
    assert np.all((probabilities >= 0) & (probabilities <= 1))


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_calibration_keeps_the_order_of_logits(low: float, high: float) -> None:
    low, high = sorted((low, high))
    calibration = Calibration(("D",), (ClassCalibration(1.7, -0.4),))
    assert calibration.apply([low])[0] <= calibration.apply([high])[0]


def test_logits_of_another_class_count_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shape \(3,\) do not fit 2 classes"):
        Calibration.identity(LETTERS).apply([1.0, 2.0, 3.0])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, True, "1"])
def test_impossible_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(BundleError, match="temperature must be above 0"):
        ClassCalibration(temperature, 0.0)


@pytest.mark.parametrize("bias", [math.nan, -math.inf, None])
def test_impossible_biases_are_refused(bias: float) -> None:
    with pytest.raises(BundleError, match="bias must be finite"):
        ClassCalibration(1.0, bias)


def test_calibration_survives_its_dictionary() -> None:
    calibration = Calibration(LETTERS, (ClassCalibration(2.0, 0.5), ClassCalibration(0.5, -1.0)))
    assert Calibration.from_dict(calibration.to_dict(), LETTERS) == calibration


@pytest.mark.parametrize(
    "values",
    [
        {"N": {"temperature": 1.0, "bias": 0.0}},
        {"N": {"temperature": 1.0, "bias": 0.0}, "G": {"temperature": 1.0, "bias": 0.0}},
        {"N": {"temperature": 1.0}, "D": {"temperature": 1.0, "bias": 0.0}},
        {"N": {"temperature": 1.0, "bias": 0, "x": 1}, "D": {"temperature": 1.0, "bias": 0.0}},
        [],
    ],
)
def test_calibration_of_other_classes_or_keys_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        Calibration.from_dict(values, LETTERS)


def test_operating_points_survive_their_dictionary() -> None:
    other = OperatingPoint("sensitivity_90", LETTERS, (0.1, 0.2), ("a", "b"))
    points = OperatingPoints("best_f1", (POINT, other))
    assert OperatingPoints.from_dict(points.to_dict(), LETTERS) == points
    assert points.get() == POINT
    assert points.get("sensitivity_90").threshold_of == {"N": 0.1, "D": 0.2}
    assert POINT.rule_of == {"N": "rule of N", "D": "rule of D"}


def test_unknown_operating_point_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="no operating point 'x'; it has best_f1"):
        OperatingPoints("best_f1", (POINT,)).get("x")


def test_default_operating_point_must_exist() -> None:
    with pytest.raises(BundleError, match="default operating point 'other'"):
        OperatingPoints("other", (POINT,))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, "0.5", None])
def test_impossible_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(BundleError, match="threshold of D"):
        OperatingPoint("p", LETTERS, (0.5, threshold), ("", ""))
