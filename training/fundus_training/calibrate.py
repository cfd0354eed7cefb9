"""Fits what turns a model's logits into probabilities: a temperature and a bias for each class.

`p = sigmoid(logit / temperature + bias)`. The bias is needed because class weights in the training
loss shift the odds, which no temperature can undo. Both are fitted on validation patients by the
likelihood of their labels, with a weak pull towards temperature 1 and bias 0 that only matters
where a class has a handful of positives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from fundus_runtime.calibration import Calibration, ClassCalibration, OperatingPoints
from fundus_runtime.errors import BundleError
from fundus_runtime.labels import ClassList
from fundus_training.errors import CheckpointError, DataError
from fundus_training.metrics import binary_matrix, expected_calibration_error
from fundus_training.operating_points import choose_operating_points
from fundus_training.predict import Predictions

__all__ = [
    "FittedCalibration",
    "calibrate",
    "calibration_errors",
    "cross_fitted_probabilities",
    "fit_calibration",
    "fit_temperature_and_bias",
    "plain_probabilities",
]

Array = npt.NDArray[Any]

_LOG_SLOPE_SD = 1.0  # temperatures from 0.4 to 2.7 cost next to nothing
_BIAS_SD = 5.0  # nor do odds shifted by a factor of a hundred
_FOLDS = 5


@dataclass(frozen=True)
class FittedCalibration:
    """What `fundus-train calibrate` adds to a checkpoint.

    Attributes:
        patient: correction of the fused logits.
        eye: correction of the per-eye logits; the identity where no eye was labelled.
        points: operating points on the patients' calibrated probabilities.
        eye_points: operating points on the eyes' calibrated probabilities.
        fitted_on: which part of the split, in words.
        patients: how many patients the fit saw.
        eyes: how many labelled eyes it saw.
    """

    patient: Calibration
    eye: Calibration
    points: OperatingPoints
    eye_points: OperatingPoints
    fitted_on: str
    patients: int
    eyes: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "patient": self.patient.to_dict(),
            "eye": self.eye.to_dict(),
            "points": self.points.to_dict(),
            "eye_points": self.eye_points.to_dict(),
            "fitted_on": self.fitted_on,
            "patients": self.patients,
            "eyes": self.eyes,
        }

    @classmethod
    def from_dict(cls, values: Any, classes: ClassList) -> FittedCalibration:
        """Read it back for exactly these classes.

        Raises:
            CheckpointError: other classes, unknown or missing keys, or values out of range.
        """
        expected = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != expected:
            came = sorted(values) if isinstance(values, Mapping) else type(values).__name__
            raise CheckpointError(
                f"a calibration needs exactly the keys {sorted(expected)}, got {came}"
            )
        letters = classes.letters
        try:
            return cls(
                patient=Calibration.from_dict(values["patient"], letters),
                eye=Calibration.from_dict(values["eye"], letters),
                points=OperatingPoints.from_dict(values["points"], letters),
                eye_points=OperatingPoints.from_dict(values["eye_points"], letters),
                fitted_on=str(values["fitted_on"]),
                patients=int(values["patients"]),
                eyes=int(values["eyes"]),
            )
        except BundleError as error:
            raise CheckpointError(f"the checkpoint's calibration is unusable: {error}") from error


def fit_temperature_and_bias(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Temperature and bias of each class by penalised maximum likelihood.

    A class whose labels are all alike keeps temperature 1 and bias 0: there is nothing to fit.

    Args:
        logits: N×K, finite.
        labels: N×K zeros and ones.

    Returns:
        K temperatures, all positive, and K biases.

    Raises:
        DataError: shapes differ or a logit is not finite.
    """
    truth = binary_matrix(labels)
    if logits.shape != truth.shape or not np.isfinite(logits).all():
        raise DataError(
            f"calibration needs finite logits of the labels' shape {truth.shape}, got shape "
            f"{logits.shape}; check the model's outputs for NaN"
        )
    slope, bias = _fit(torch.from_numpy(logits).double(), torch.from_numpy(truth).double())
    mixed = (truth.min(axis=0) == 0) & (truth.max(axis=0) == 1)
    return np.where(mixed, 1.0 / slope, 1.0), np.where(mixed, bias, 0.0)


def calibrate(
    predictions: Predictions, classes: ClassList, *, fitted_on: str = "validation patients"
) -> FittedCalibration:
    """Fit calibrations and operating points of patients and eyes.

    Args:
        predictions: of the patients to fit on, none of whom the training saw.
        classes: the K classes.
        fitted_on: what these patients are, in words.
    """
    patient = fit_calibration(predictions.logits, predictions.labels, classes)
    eye_logits, eye_labels, _ = predictions.labelled_eyes()
    seen = len(eye_logits) > 0
    eye = (
        fit_calibration(eye_logits, eye_labels, classes)
        if seen
        else Calibration.identity(classes.letters)
    )
    return FittedCalibration(
        patient=patient,
        eye=eye,
        points=choose_operating_points(
            predictions.labels, patient.apply(predictions.logits), classes, cases=fitted_on
        ),
        eye_points=choose_operating_points(
            eye_labels, eye.apply(eye_logits), classes, cases=f"labelled eyes of {fitted_on}"
        ),
        fitted_on=fitted_on,
        patients=len(predictions),
        eyes=len(eye_logits),
    )


def calibration_errors(
    predictions: Predictions, fitted: FittedCalibration, *, task: str = "multi_label"
) -> dict[str, dict[str, float]]:
    """Pooled calibration error before, after, and after on patients left out of the fit.

    Args:
        predictions: those that `fitted` was fitted on.
        fitted: their calibration.
        task: what the plain logits mean, for the error before.

    Returns:
        `before`, `after` and `cross_fitted`, for `patients` and, where some are labelled, `eyes`.
    """
    eye_logits, eye_labels, owner = predictions.labelled_eyes()
    everyone = np.arange(len(predictions))
    sets = {"patients": (predictions.logits, predictions.labels, everyone, fitted.patient)}
    if len(eye_logits):
        sets["eyes"] = (eye_logits, eye_labels, owner, fitted.eye)
    return {
        unit: {
            "before": expected_calibration_error(labels, plain_probabilities(logits, task)),
            "after": expected_calibration_error(labels, calibration.apply(logits)),
            "cross_fitted": expected_calibration_error(
                labels, cross_fitted_probabilities(logits, labels, owner=patient)
            ),
        }
        for unit, (logits, labels, patient, calibration) in sets.items()
    }


def plain_probabilities(logits: Array, task: str) -> Array:
    """What the logits mean without a calibration: sigmoids, or a softmax for that task."""
    values = torch.from_numpy(np.asarray(logits, dtype=np.float64))
    shares = torch.softmax(values, dim=1) if task == "softmax" else torch.sigmoid(values)
    result: Array = shares.numpy()
    return result


def fit_calibration(logits: Array, labels: Array, classes: ClassList) -> Calibration:
    """The calibration that `fit_temperature_and_bias` finds."""
    temperature, bias = fit_temperature_and_bias(logits, labels)
    corrections = zip(temperature.tolist(), bias.tolist(), strict=True)
    return Calibration(classes.letters, tuple(ClassCalibration(t, b) for t, b in corrections))


def _fit(logits: torch.Tensor, truth: torch.Tensor) -> tuple[Array, Array]:
    log_slope = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros_like(log_slope, requires_grad=True)
    solver = torch.optim.LBFGS(
        [log_slope, bias],
        max_iter=1000,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        scores = logits * log_slope.exp() + bias
        prior = ((log_slope / _LOG_SLOPE_SD) ** 2).sum() + ((bias / _BIAS_SD) ** 2).sum()
        total = F.binary_cross_entropy_with_logits(scores, truth, reduction="sum") + 0.5 * prior
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    return log_slope.detach().exp().numpy(), bias.detach().numpy()


def cross_fitted_probabilities(
    logits: Array, labels: Array, *, owner: Array | None = None, seed: int = 0
) -> Array:
    """Calibrated probabilities of patients that their own calibration did not see.

    Each fifth of the patients is calibrated by a fit on the other four, which gives an honest
    calibration error on the very patients that the final fit uses.

    Args:
        logits: N×K.
        labels: N×K.
        owner: N indices of the patients that the rows belong to, so that both eyes of one stay
            together; None where each row is a patient.
        seed: which patients share a fifth.
    """
    patient = np.arange(len(logits)) if owner is None else owner
    fold = (np.random.default_rng(seed).permutation(int(patient.max()) + 1) % _FOLDS)[patient]
    probabilities = np.empty(logits.shape, dtype=np.float64)
    for held_out in range(_FOLDS):
        here = fold == held_out
        if not here.any():
            continue
        temperature, bias = fit_temperature_and_bias(logits[~here], labels[~here])
        scores = logits[here] / temperature + bias
        probabilities[here] = plain_probabilities(scores, "multi_label")
    return probabilities
