"""Figures of reference and dialect on the same patients, and how far apart they are.

Against the labels, on calibrated probabilities, at 0.5 where a figure needs calls, as the ODIR
challenge has it. Both are paired: the same patients, so that the difference of the challenge's
score has an interval of its own, from resamples of patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fundus_training import metrics
from fundus_training.bootstrap import bootstrap_intervals, weighted_auc, weighted_kappa

__all__ = ["ComparedFigures", "Figures", "figures_of", "score_difference_interval"]

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """What one model scores; None where the labels leave a figure undefined.

    Attributes:
        challenge_score: mean of kappa, flattened F1 and flattened AUC.
        kappa: of the flattened calls.
        auc: flattened.
        auc_per_class: by letter.
        calibration_error: expected, pooled, over 15 bins.
        brier: mean squared distance of probability and label.
    """

    challenge_score: float | None
    kappa: float | None
    auc: float | None
    auc_per_class: Mapping[str, float | None]
    calibration_error: float
    brier: float


@dataclass(frozen=True)
class ComparedFigures:
    """Both models' figures.

    Attributes:
        reference: of the PyTorch model.
        dialect: of the dialect.
        difference: dialect less reference.
        score_difference_low: lower end of the 95 % interval of the challenge score's difference,
            None where no resamples were drawn.
        score_difference_high: upper end.
    """

    reference: Figures
    dialect: Figures
    difference: Figures
    score_difference_low: float | None
    score_difference_high: float | None

    @classmethod
    def of(
        cls,
        labels: Labels,
        reference: npt.ArrayLike,
        dialect: npt.ArrayLike,
        letters: tuple[str, ...],
        *,
        resamples: int,
        seed: int,
    ) -> ComparedFigures:
        """Both models on N patients, N×K labels and probabilities."""
        before, after = np.asarray(reference, np.float64), np.asarray(dialect, np.float64)
        first, second = figures_of(labels, before, letters), figures_of(labels, after, letters)
        low, high = score_difference_interval(labels, before, after, resamples=resamples, seed=seed)
        return cls(first, second, _difference(second, first), low, high)


def figures_of(labels: Labels, probabilities: Floats, letters: tuple[str, ...]) -> Figures:
    """One model's figures."""
    score = metrics.challenge_score(labels, probabilities)
    areas = metrics.per_class_auc(labels, probabilities)
    return Figures(
        challenge_score=score["final"],
        kappa=score["kappa"],
        auc=score["auc"],
        auc_per_class=dict(zip(letters, areas, strict=True)),
        calibration_error=metrics.expected_calibration_error(labels, probabilities),
        brier=metrics.brier_score(labels, probabilities),
    )


def score_difference_interval(
    labels: Labels, before: Floats, after: Floats, *, resamples: int, seed: int
) -> tuple[float | None, float | None]:
    """95 % interval of the challenge score's difference over resamples of patients."""
    if resamples == 0:
        return None, None

    def difference(drawn: Floats) -> Mapping[str, Floats]:
        return {"score": _scores(drawn, labels, after) - _scores(drawn, labels, before)}

    interval = bootstrap_intervals(
        difference, patients=len(labels), resamples=resamples, seed=seed
    )["score"]
    return (None, None) if interval is None else (interval.low, interval.high)


def _scores(drawn: Floats, labels: Labels, probabilities: Floats) -> Floats:
    """The challenge's score of every resample, R."""
    calls = probabilities >= metrics.CHALLENGE_THRESHOLD
    right = (calls == labels.astype(bool)).mean(axis=1)
    owner = np.repeat(np.arange(len(labels)), labels.shape[1])
    parts = (
        weighted_kappa(drawn, labels, calls),
        drawn @ right / drawn.sum(axis=1),
        weighted_auc(drawn, labels.ravel(), probabilities.ravel(), owner=owner),
    )
    mean: Floats = np.mean(parts, axis=0)
    return mean


def _difference(after: Figures, before: Figures) -> Figures:
    return Figures(
        challenge_score=_less(after.challenge_score, before.challenge_score),
        kappa=_less(after.kappa, before.kappa),
        auc=_less(after.auc, before.auc),
        auc_per_class={
            letter: _less(area, before.auc_per_class[letter])
            for letter, area in after.auc_per_class.items()
        },
        calibration_error=after.calibration_error - before.calibration_error,
        brier=after.brier - before.brier,
    )


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
