"""How good a model is on some patients: one JSON-able report of figures with intervals.

Figures "at 0.5" are those of the ODIR challenge and of the paper's tables. Probabilities are the
calibrated ones once the checkpoint has a calibration, as the device shows them; the same figures
on the plain model stand under `uncalibrated`. Operating points are judged as the device uses them,
through `fundus_runtime.outcome.decide`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from fundus_runtime.calibration import Calibration, OperatingPoint, OperatingPoints
from fundus_runtime.labels import ClassList
from fundus_runtime.outcome import OUTCOMES, Decision, decide
from fundus_training import metrics
from fundus_training.calibrate import FittedCalibration, plain_probabilities
from fundus_training.figures import (
    Resampling,
    Rows,
    call_figures,
    share_figures,
    threshold_free_figures,
)
from fundus_training.predict import Predictions

__all__ = ["evaluate", "probabilities_from", "uncalibrated_points"]

Array = npt.NDArray[Any]


def evaluate(
    predictions: Predictions,
    classes: ClassList,
    *,
    calibration: FittedCalibration | None = None,
    task: str = "multi_label",
    resampling: Resampling | None = None,
) -> dict[str, Any]:
    """Judge predictions.

    Args:
        predictions: of the patients to judge on.
        classes: the K classes.
        calibration: of the checkpoint; without one, plain probabilities and thresholds of 0.5.
        task: `multi_label`, or `softmax` where plain logits mean a softmax.
        resampling: how intervals are made; by default 1000 resamples of patients.
    """
    chosen = resampling or Resampling()
    points = calibration.points if calibration else uncalibrated_points(classes)
    probabilities = probabilities_from(
        predictions.logits, calibration.patient if calibration else None, task
    )
    rows = Rows.of_patients(predictions.labels, probabilities)
    return {
        "data": _data(predictions),
        "bootstrap": {"resamples": chosen.resamples, "seed": chosen.seed, "level": 0.95},
        "probabilities": "calibrated" if calibration else "uncalibrated",
        "patient": _figures_at_a_half(rows, classes, chosen),
        "uncalibrated": _plain_figures(predictions, classes, task),
        "operating_points": {
            "default": points.default,
            "points": {
                point.name: _at_point(predictions, rows, point, classes, chosen)
                for point in points.points
            },
        },
        "eye": _eyes(predictions, classes, calibration, task, chosen),
    }


def probabilities_from(logits: Array, calibration: Calibration | None, task: str) -> Array:
    """Calibrated probabilities, or the plain model's for its task; N×K like the logits."""
    if calibration is None:
        return plain_probabilities(logits, task)
    return calibration.apply(logits)


def uncalibrated_points(classes: ClassList) -> OperatingPoints:
    """The only point of a model without calibration: 0.5 for every class."""
    rule = "0.5 on uncalibrated probabilities; run `fundus-train calibrate`"
    count = len(classes)
    point = OperatingPoint("uncalibrated", classes.letters, (0.5,) * count, (rule,) * count)
    return OperatingPoints("uncalibrated", (point,))


def _data(predictions: Predictions) -> dict[str, Any]:
    return {
        "patients": len(predictions),
        "both_eyes": int(predictions.complete.sum()),
        "without_gradable_eye": len(predictions.left_out),
        "labelled_eyes": len(predictions.labelled_eyes()[0]),
    }


def _figures_at_a_half(rows: Rows, classes: ClassList, resampling: Resampling) -> dict[str, Any]:
    calls = rows.probabilities >= metrics.CHALLENGE_THRESHOLD
    return {
        "rows": len(rows.labels),
        **call_figures(rows, calls, resampling, challenge=True),
        **threshold_free_figures(rows, classes.letters, resampling),
    }


def _plain_figures(predictions: Predictions, classes: ClassList, task: str) -> dict[str, Any]:
    """What the model does without its calibration, values alone."""
    plain = probabilities_from(predictions.logits, None, task)
    rows = Rows.of_patients(predictions.labels, plain)
    figures = _figures_at_a_half(rows, classes, Resampling(resamples=0))
    single = ("exact_match", "micro_f1", "kappa", "auc", "challenge_score", "ece")
    return {
        **{name: figures[name]["value"] for name in single},
        "ece_per_class": figures["ece_per_class"],
        "brier": figures["brier"],
    }


def _at_point(
    predictions: Predictions,
    rows: Rows,
    point: OperatingPoint,
    classes: ClassList,
    resampling: Resampling,
) -> dict[str, Any]:
    decisions = _decisions(rows.probabilities, predictions.complete, point, classes)
    outcomes = Counter(decision.outcome for decision in decisions)
    referred = np.array([decision.refer for decision in decisions])
    return {
        "classes": _class_shares(rows, point, resampling),
        "figures": call_figures(
            rows, metrics.called_at(rows.probabilities, point.thresholds), resampling
        ),
        "outcomes": {outcome: outcomes[outcome] for outcome in OUTCOMES},
        "referral": _referral(rows, referred, classes, resampling),
    }


def _decisions(
    probabilities: Array, complete: Array, point: OperatingPoint, classes: ClassList
) -> list[Decision]:
    return [
        decide(
            dict(zip(classes.letters, row, strict=True)),
            point.threshold_of,
            classes,
            complete=whole,
        )
        for row, whole in zip(probabilities.tolist(), complete.tolist(), strict=True)
    ]


def _class_shares(rows: Rows, point: OperatingPoint, resampling: Resampling) -> dict[str, Any]:
    """Sensitivity and specificity of each class at its threshold."""
    calls = metrics.called_at(rows.probabilities, point.thresholds)
    cases: dict[str, tuple[Array, Array]] = {}
    for k, letter in enumerate(point.letters):
        truth = rows.labels[:, k].astype(bool)
        cases[f"sensitivity {letter}"] = (truth & calls[:, k], truth)
        cases[f"specificity {letter}"] = (~truth & ~calls[:, k], ~truth)
    shares = share_figures(cases, rows, resampling)
    return {
        letter: {
            "threshold": point.threshold_of[letter],
            "rule": point.rule_of[letter],
            "positives": int(rows.labels[:, k].sum()),
            "sensitivity": shares[f"sensitivity {letter}"],
            "specificity": shares[f"specificity {letter}"],
        }
        for k, letter in enumerate(point.letters)
    }


def _referral(
    rows: Rows, referred: Array, classes: ClassList, resampling: Resampling
) -> dict[str, Any]:
    """Refer or not against the truth "any class but the normal one"; ungradable counts as refer."""
    findings = [k for k, letter in enumerate(classes.letters) if letter != classes.normal]
    ill: Array = np.any(rows.labels[:, findings] == 1, axis=1)
    cases: dict[str, tuple[Array, Array]] = {
        "sensitivity": (ill & referred, ill),
        "specificity": (~ill & ~referred, ~ill),
    }
    return {
        "patients_with_findings": int(ill.sum()),
        "referred": int(referred.sum()),
        **share_figures(cases, rows, resampling),
    }


def _eyes(
    predictions: Predictions,
    classes: ClassList,
    calibration: FittedCalibration | None,
    task: str,
    resampling: Resampling,
) -> dict[str, Any] | None:
    """The per-eye outputs on labelled eyes, or None where there are none."""
    logits, labels, owner = predictions.labelled_eyes()
    if len(logits) == 0:
        return None
    points = calibration.eye_points if calibration else uncalibrated_points(classes)
    probabilities = probabilities_from(logits, calibration.eye if calibration else None, task)
    rows = Rows.of_eyes(labels, probabilities, owner, len(predictions))
    plain = probabilities_from(logits, None, task)
    figures = _figures_at_a_half(rows, classes, resampling)
    # The challenge scores patients; the same number on eyes would be read as comparable.
    del figures["challenge_score"], figures["challenge_f1"]
    return {
        **figures,
        "uncalibrated_ece": metrics.expected_calibration_error(labels, plain),
        "operating_points": {
            "default": points.default,
            "points": {
                point.name: {"classes": _class_shares(rows, point, resampling)}
                for point in points.points
            },
        },
    }
