"""Patients whose logits are drawn, so that every count can be foreseen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from fundus_export.certificate import DialectAnswers
from fundus_runtime.calibration import (
    Calibration,
    ClassCalibration,
    OperatingPoint,
    OperatingPoints,
)
from fundus_runtime.labels import ClassList
from fundus_training.calibrate import FittedCalibration
from fundus_training.predict import EyePredictions, Predictions

CLASSES = ClassList(letters=("N", "D", "G"), names=("normal", "diabetic", "glaucoma"), normal="N")


def predictions(logits: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> Predictions:
    """Patients with both eyes, whose eyes say what the patient says."""
    values = np.asarray(logits, np.float32)
    truth = (values > 0).astype(np.int64) if labels is None else np.asarray(labels, np.int64)
    everywhere = np.ones(len(values), np.bool_)
    left, right = (EyePredictions(values, everywhere.copy(), truth, everywhere) for _ in range(2))
    ids = tuple(f"patient-{row:03d}" for row in range(len(values)))
    return Predictions(ids, values, truth, left, right)


def answers(logits: npt.ArrayLike) -> DialectAnswers:
    values = np.asarray(logits, np.float32)
    ids = tuple(f"patient-{row:03d}" for row in range(len(values)))
    return DialectAnswers(ids, values, values, values)


def fitted(
    *, temperature: float = 1.0, bias: float = 0.0, threshold: float = 0.5
) -> FittedCalibration:
    letters = CLASSES.letters
    one = Calibration(letters, tuple(ClassCalibration(temperature, bias) for _ in letters))
    points = OperatingPoints(
        "even",
        (
            OperatingPoint("even", letters, (threshold,) * 3, ("by hand",) * 3),
            OperatingPoint("keen", letters, (0.1,) * 3, ("by hand",) * 3),
        ),
    )
    return FittedCalibration(one, one, points, points, "drawn patients", 1, 1)


@pytest.fixture
def classes() -> ClassList:
    return CLASSES


@pytest.fixture
def drawn() -> Callable[..., npt.NDArray[np.float32]]:
    """Logits of N patients, the same on every call."""

    def draw(patients: int, *, seed: int = 0) -> npt.NDArray[np.float32]:
        random = np.random.default_rng(seed)
        return random.normal(0, 2, (patients, 3)).astype(np.float32)

    return draw


@pytest.fixture
def reference_of() -> Callable[..., Predictions]:
    return predictions


@pytest.fixture
def answers_of() -> Callable[..., DialectAnswers]:
    return answers


@pytest.fixture
def calibrated() -> Callable[..., FittedCalibration]:
    return fitted
