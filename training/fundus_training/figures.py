"""The whole set of figures of some predictions, each with its bootstrap interval, JSON-able.

A figure is `{"value", "low", "high"}`: the value on all rows and the middle 95 % of resamples of
patients; without resamples, or where the data leave it undefined, `low` and `high` are None. Rows
are patients or eyes; `Rows.owner` says which patient each belongs to, and patients are what is
resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fundus_training import bootstrap, metrics
from fundus_training.bootstrap import Floats, Interval
from fundus_training.errors import DataError

__all__ = [
    "Figure",
    "Resampling",
    "Rows",
    "auc_figure",
    "call_figures",
    "share_figures",
    "threshold_free_figures",
]

Array = npt.NDArray[Any]
Figure = dict[str, float | None]


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: `resamples` of patients from `seed`; 0 leaves intervals out."""

    resamples: int = bootstrap.DEFAULT_RESAMPLES
    seed: int = 0

    def intervals(
        self, figures: Callable[[Floats], Mapping[str, Floats]], patients: int
    ) -> dict[str, Interval | None]:
        """An interval for each named figure; none at all with 0 resamples."""
        if self.resamples == 0:
            return {}
        return bootstrap.bootstrap_intervals(
            figures, patients=patients, resamples=self.resamples, seed=self.seed
        )


@dataclass(frozen=True)
class Rows:
    """Labels and probabilities to judge.

    Attributes:
        labels: M×K zeros and ones.
        probabilities: M×K.
        owner: M indices of patients, 0 to `patients` - 1.
        patients: how many patients are resampled.
    """

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    owner: npt.NDArray[np.int64]
    patients: int

    @classmethod
    def of_patients(cls, labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Rows:
        """One row a patient.

        Raises:
            DataError: the arrays are no labels or no probabilities.
        """
        truth = metrics.binary_matrix(labels)
        scores = metrics.probability_matrix(probabilities, truth)
        return cls(truth, scores, np.arange(len(truth)), len(truth))

    @classmethod
    def of_eyes(
        cls, labels: npt.ArrayLike, probabilities: npt.ArrayLike, owner: Array, patients: int
    ) -> Rows:
        """One row an eye.

        Raises:
            DataError: the arrays are no labels or no probabilities, or owners are missing.
        """
        truth = metrics.binary_matrix(labels)
        if owner.shape != (len(truth),):
            raise DataError(f"{len(truth)} eyes need one owner each, got shape {owner.shape}")
        scores = metrics.probability_matrix(probabilities, truth)
        return cls(truth, scores, owner.astype(np.int64), patients)


def threshold_free_figures(
    rows: Rows, letters: Sequence[str], resampling: Resampling
) -> dict[str, Any]:
    """AUC flattened, macro and per class, calibration error and Brier score."""
    macro, defined = metrics.macro_auc(rows.labels, rows.probabilities)
    by_class = metrics.per_class_auc(rows.labels, rows.probabilities)
    values = {
        "auc": metrics.flattened_auc(rows.labels, rows.probabilities),
        "macro_auc": macro,
        "ece": metrics.expected_calibration_error(rows.labels, rows.probabilities),
        **{f"auc {letter}": area for letter, area in zip(letters, by_class, strict=True)},
    }
    intervals = resampling.intervals(lambda drawn: _areas(rows, letters, drawn), rows.patients)
    columns = range(len(letters))
    return {
        "auc": _figure(values, intervals, "auc"),
        "macro_auc": _figure(values, intervals, "macro_auc"),
        "macro_auc_over": [letters[k] for k in defined],
        "auc_per_class": {
            letter: _figure(values, intervals, f"auc {letter}") for letter in letters
        },
        "positives": {letters[k]: int(rows.labels[:, k].sum()) for k in columns},
        "ece": _figure(values, intervals, "ece"),
        "ece_per_class": {
            letters[k]: metrics.expected_calibration_error(
                rows.labels[:, k], rows.probabilities[:, k]
            )
            for k in columns
        },
        "brier": metrics.brier_score(rows.labels, rows.probabilities),
    }


def _areas(rows: Rows, letters: Sequence[str], drawn: Floats) -> dict[str, Floats]:
    weights = drawn[:, rows.owner]
    columns = range(len(letters))
    areas = [
        bootstrap.weighted_auc(weights, rows.labels[:, k], rows.probabilities[:, k])
        for k in columns
    ]
    return {
        "auc": _flattened_areas(rows, weights),
        "macro_auc": _mean_of_defined(np.stack(areas)),
        "ece": bootstrap.weighted_calibration_error(weights, rows.labels, rows.probabilities),
        **{f"auc {letters[k]}": areas[k] for k in columns},
    }


def _flattened_areas(rows: Rows, weights: Floats) -> Floats:
    row_of_cell = np.repeat(np.arange(len(rows.labels)), rows.labels.shape[1])
    return bootstrap.weighted_auc(
        weights, rows.labels.ravel(), rows.probabilities.ravel(), owner=row_of_cell
    )


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the first axis, leaving NaN out; NaN where nothing is defined."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    mean: Floats = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return mean


def call_figures(
    rows: Rows, calls: Array, resampling: Resampling, *, challenge: bool = False
) -> dict[str, Any]:
    """Exact match, micro and macro precision, recall and F1, and kappa of M×K yes/no calls.

    With `challenge`, also the ODIR challenge's score and its flattened F1, for which the calls
    must be those at 0.5.
    """
    values = metrics.classification_figures(rows.labels, calls)
    if challenge:
        score = metrics.challenge_score(rows.labels, rows.probabilities)
        values |= {"challenge_score": score["final"], "challenge_f1": score["f1"]}

    def figures(drawn: Floats) -> dict[str, Floats]:
        weights = drawn[:, rows.owner]
        found = _call_shares(weights, rows.labels, calls)
        if challenge:
            parts = found["kappa"], found["challenge_f1"], _flattened_areas(rows, weights)
            found["challenge_score"] = np.mean(parts, axis=0)
        return found

    intervals = resampling.intervals(figures, rows.patients)
    return {
        name: value if name.startswith("macro") else _figure(values, intervals, name)
        for name, value in values.items()
    }


def _call_shares(weights: Floats, labels: Array, calls: Array) -> dict[str, Floats]:
    truth, called = labels.astype(bool), np.asarray(calls).astype(bool)
    right, called_count = (truth & called).sum(axis=1), called.sum(axis=1)
    positives, classes = truth.sum(axis=1), labels.shape[1]
    share = bootstrap.weighted_share
    return {
        "exact_match": share(weights, (truth == called).all(axis=1), np.ones(len(truth))),
        "micro_precision": share(weights, right, called_count),
        "micro_recall": share(weights, right, positives),
        "micro_f1": share(weights, 2 * right, called_count + positives),
        "kappa": bootstrap.weighted_kappa(weights, labels, called),
        "challenge_f1": share(weights, (truth == called).sum(axis=1), np.full(len(truth), classes)),
    }


def share_figures(
    cases: Mapping[str, tuple[Array, Array]], rows: Rows, resampling: Resampling
) -> dict[str, Figure]:
    """Shares such as a sensitivity: for each name, which rows are hits among which cases.

    Args:
        cases: for each name, hits and cases, one flag a row.
        rows: which patient each row belongs to.
        resampling: how intervals are made.
    """
    values = {
        name: float(hits.sum() / among.sum()) if among.any() else None
        for name, (hits, among) in cases.items()
    }

    def figures(drawn: Floats) -> dict[str, Floats]:
        weights = drawn[:, rows.owner]
        return {
            name: bootstrap.weighted_share(weights, hits, among)
            for name, (hits, among) in cases.items()
        }

    intervals = resampling.intervals(figures, rows.patients)
    return {name: _figure(values, intervals, name) for name in cases}


def auc_figure(
    labels: Array, scores: Array, owner: Array, patients: int, resampling: Resampling
) -> Figure:
    """One AUC over M rows that belong to patients."""
    truth = labels.astype(np.int64)
    values = {"auc": metrics.area_under_curve(truth, scores)}

    def figures(drawn: Floats) -> dict[str, Floats]:
        return {"auc": bootstrap.weighted_auc(drawn[:, owner], truth, scores)}

    return _figure(values, resampling.intervals(figures, patients), "auc")


def _figure(
    values: Mapping[str, float | None], intervals: Mapping[str, Interval | None], name: str
) -> Figure:
    interval = intervals.get(name)
    if values[name] is None or interval is None:
        return {"value": values[name], "low": None, "high": None}
    return {"value": values[name], "low": interval.low, "high": interval.high}
