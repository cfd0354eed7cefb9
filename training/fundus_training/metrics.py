"""Figures of a multi-label classifier on N patients (or eyes) and K classes, as single numbers.

Labels are N×K zeros and ones, probabilities N×K in [0, 1]. "Flattened" means that the N×K matrix is
read as one vector of N·K decisions, as the ODIR challenge and the DMS-Net paper do (reading 2).
An AUC or a kappa that the data leave undefined is None, never a made-up number; a precision with no
call is 0, as scikit-learn has it. scikit-learn computes what it has; `bootstrap` gives intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from fundus_training.errors import DataError

__all__ = [
    "CALIBRATION_BINS",
    "CHALLENGE_THRESHOLD",
    "area_under_curve",
    "bin_of_probability",
    "binary_matrix",
    "brier_score",
    "called_at",
    "challenge_score",
    "classification_figures",
    "expected_calibration_error",
    "flattened_auc",
    "macro_auc",
    "per_class_auc",
    "probability_matrix",
    "sensitivity_specificity",
]

Array = npt.NDArray[Any]

CHALLENGE_THRESHOLD = 0.5
CALIBRATION_BINS = 15


def binary_matrix(labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """N×K labels, checked.

    Raises:
        DataError: the labels are not a non-empty N×K matrix of zeros and ones.
    """
    matrix = np.asarray(labels)
    if matrix.ndim != 2 or matrix.size == 0:
        raise DataError(f"labels must be a non-empty N×K matrix, got shape {matrix.shape}")
    if not np.isin(matrix, (0, 1)).all():
        raise DataError("labels must be zeros and ones; map other codes before evaluating")
    return matrix.astype(np.int64)


def probability_matrix(
    probabilities: npt.ArrayLike, labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """N×K probabilities for these labels, checked and in double precision.

    Raises:
        DataError: the shape is not the labels', or a value is no probability (NaN included).
    """
    matrix = np.asarray(probabilities, dtype=np.float64)
    if matrix.shape != labels.shape:
        raise DataError(f"probabilities are {matrix.shape} but labels are {labels.shape}")
    if not ((matrix >= 0.0) & (matrix <= 1.0)).all():
        raise DataError("probabilities must lie in [0, 1]; check the model's outputs for NaN")
    return matrix


def area_under_curve(labels: Array, scores: Array) -> float | None:
    """Area under the ROC curve of one vector, or None without both a positive and a negative."""
    if np.unique(labels).size < 2:
        return None
    return float(sk.roc_auc_score(labels, scores))


def flattened_auc(labels: Array, scores: Array) -> float | None:
    """AUC of all N·K decisions as one vector (the micro average)."""
    return area_under_curve(np.ravel(labels), np.ravel(scores))


def per_class_auc(labels: Array, scores: Array) -> list[float | None]:
    """AUC of each column."""
    return [
        area_under_curve(labels[:, column], scores[:, column]) for column in range(labels.shape[1])
    ]


def macro_auc(labels: Array, scores: Array) -> tuple[float | None, tuple[int, ...]]:
    """Mean AUC over the classes that have one, and which columns these are."""
    areas = per_class_auc(labels, scores)
    defined = tuple(column for column, area in enumerate(areas) if area is not None)
    if not defined:
        return None, ()
    return float(np.mean([areas[column] for column in defined])), defined


def challenge_score(labels: Array, probabilities: Array) -> dict[str, float | None]:
    """The ODIR challenge's figures, all at 0.5 and flattened.

    `f1` is scikit-learn's micro F1 of the flattened vector with both its classes counted, which is
    the share of right decisions: calling nobody ill scores about 0.85. `final` is the mean of
    `kappa`, `f1` and `auc`, or None when one of them is undefined.
    """
    truth = np.ravel(labels)
    calls = np.ravel(probabilities) >= CHALLENGE_THRESHOLD
    figures: dict[str, float | None] = {
        "kappa": _kappa(truth, calls),
        "f1": float(sk.f1_score(truth, calls, average="micro", labels=[0, 1])),
        "auc": area_under_curve(truth, np.ravel(probabilities)),
    }
    values = [value for value in figures.values() if value is not None]
    figures["final"] = float(np.mean(values)) if len(values) == 3 else None
    return figures


def classification_figures(labels: Array, calls: Array) -> dict[str, float | None]:
    """Exact match, micro and macro precision, recall and F1, and flattened kappa of yes/no calls.

    Micro figures pool the positive calls of all classes. Macro figures are means over classes, in
    which a class without positives, or never called, counts as zero.
    """
    calls = np.asarray(calls).astype(np.int64)
    figures: dict[str, float | None] = {"exact_match": float((labels == calls).all(axis=1).mean())}
    for average in ("micro", "macro"):
        # scikit-learn reads one column as a two-class problem, of which only "yes" counts here.
        truth, called = (labels, calls) if labels.shape[1] > 1 else (labels[:, 0], calls[:, 0])
        columns = list(range(labels.shape[1])) if labels.shape[1] > 1 else [1]
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            truth, called, labels=columns, average=average, zero_division=0.0
        )
        figures |= {
            f"{average}_precision": float(precision),
            f"{average}_recall": float(recall),
            f"{average}_f1": float(f1),
        }
    figures["kappa"] = _kappa(np.ravel(labels), np.ravel(calls))
    return figures


def _kappa(truth: Array, calls: Array) -> float | None:
    """Cohen's kappa of two binary vectors, or None where both are the same constant."""
    truth, calls = truth.astype(np.int64), calls.astype(np.int64)
    if np.unique(np.concatenate([truth, calls])).size < 2:
        return None
    return float(sk.cohen_kappa_score(truth, calls))


def sensitivity_specificity(labels: Array, calls: Array) -> tuple[float | None, float | None]:
    """Sensitivity and specificity of one vector of calls; None where nothing can be counted."""
    positive, called = np.asarray(labels).astype(bool), np.asarray(calls).astype(bool)
    sensitivity = float(called[positive].mean()) if positive.any() else None
    specificity = float((~called[~positive]).mean()) if (~positive).any() else None
    return sensitivity, specificity


def brier_score(labels: Array, probabilities: Array) -> float:
    """Mean squared distance of probability and label, over everything given."""
    return float(np.mean((np.asarray(probabilities, dtype=np.float64) - labels) ** 2))


def bin_of_probability(probabilities: Array, bins: int = CALIBRATION_BINS) -> npt.NDArray[np.int64]:
    """Which of `bins` equal-width bins of [0, 1] each probability falls in; 1.0 is in the last."""
    scaled = np.floor(np.asarray(probabilities, dtype=np.float64) * bins)
    return np.clip(scaled, 0, bins - 1).astype(np.int64)


def expected_calibration_error(
    labels: Array, probabilities: Array, bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error over everything given, with equal-width bins.

    The mean over all decisions of |share of positives − mean probability| of the decision's bin
    (Guo et al., 2017). Give a column for the error of one class, the matrix for the pooled error.
    """
    truth = np.ravel(labels).astype(np.float64)
    scores = np.ravel(probabilities).astype(np.float64)
    gaps = np.bincount(bin_of_probability(scores, bins), weights=truth - scores, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


def called_at(probabilities: Array, thresholds: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Yes/no calls of N×K probabilities: a class is called when p >= its threshold."""
    calls: npt.NDArray[np.bool_] = np.asarray(probabilities) >= np.asarray(thresholds)
    return calls
