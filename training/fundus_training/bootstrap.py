"""Percentile bootstrap intervals over patients, fast enough to be printed with every figure.

A resample of N patients is a row of N whole weights that sum to N. Every figure is then a weighted
count, so that all resamples are computed together: a function here takes weights R×N and gives R
values, and NaN where a resample leaves the figure undefined. `metrics` has the same figures one by
one; tests hold both to the same numbers at weights of one. Eyes are resampled with their patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fundus_training.errors import ConfigError
from fundus_training.metrics import CALIBRATION_BINS, bin_of_probability

__all__ = [
    "DEFAULT_RESAMPLES",
    "Interval",
    "bootstrap_intervals",
    "percentile_interval",
    "resample_weights",
    "weighted_auc",
    "weighted_calibration_error",
    "weighted_counts",
    "weighted_kappa",
    "weighted_share",
]

DEFAULT_RESAMPLES = 1000
_CHUNK = 100  # resamples computed at once: bounds the memory, not the result

Floats = npt.NDArray[np.float64]
Figures = Callable[[Floats], Mapping[str, Floats]]


@dataclass(frozen=True)
class Interval:
    """A 95 % percentile interval; `resamples` counts those in which the figure was defined."""

    low: float
    high: float
    resamples: int


def resample_weights(patients: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each patient was drawn, in chunks of at most 100×N.

    Raises:
        ConfigError: a count below one.
    """
    if patients < 1 or resamples < 1:
        raise ConfigError(
            f"a bootstrap needs patients and resamples, got {patients} patients and "
            f"{resamples} resamples; use 0 resamples on the command line to leave intervals out"
        )
    random = np.random.default_rng(seed)
    even = np.full(patients, 1.0 / patients)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        yield random.multinomial(patients, even, size=count).astype(np.float64)


def bootstrap_intervals(
    figures: Figures, *, patients: int, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """95 % intervals of several figures from the same resamples of patients.

    Args:
        figures: from weights R×N to named vectors of R values.
        patients: N.
        resamples: how many resamples to draw.
        seed: the same seed gives the same intervals.

    Returns:
        An interval for each name, None where no resample defined the figure.
    """
    drawn: dict[str, list[Floats]] = {}
    for weights in resample_weights(patients, resamples, seed):
        for name, values in figures(weights).items():
            drawn.setdefault(name, []).append(values)
    return {name: percentile_interval(np.concatenate(values)) for name, values in drawn.items()}


def percentile_interval(values: Floats) -> Interval | None:
    """The middle 95 % of the values that are defined, or None if none is."""
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return None
    low, high = np.percentile(defined, (2.5, 97.5))
    return Interval(low=float(low), high=float(high), resamples=int(defined.size))


def weighted_share(weights: Floats, hits: npt.ArrayLike, among: npt.ArrayLike) -> Floats:
    """Weighted number of hits over the weighted number of cases, for each resample.

    Args:
        weights: R×N.
        hits: N, how many hits each patient has.
        among: N, how many cases each patient has.
    """
    cases = weights @ np.asarray(among, dtype=np.float64)
    return _ratio(weights @ np.asarray(hits, dtype=np.float64), cases)


def weighted_counts(
    weights: Floats, labels: npt.ArrayLike, calls: npt.ArrayLike
) -> tuple[Floats, Floats, Floats, Floats]:
    """Flattened true positives, false positives, false negatives and true negatives, each R."""
    truth, called = np.asarray(labels).astype(bool), np.asarray(calls).astype(bool)

    def count(cells: npt.NDArray[np.bool_]) -> Floats:
        total: Floats = weights @ cells.sum(axis=1).astype(np.float64)
        return total

    return (
        count(truth & called),
        count(~truth & called),
        count(truth & ~called),
        count(~truth & ~called),
    )


def weighted_kappa(weights: Floats, labels: npt.ArrayLike, calls: npt.ArrayLike) -> Floats:
    """Cohen's kappa of the flattened calls, for each resample."""
    hit, false_alarm, miss, quiet = weighted_counts(weights, labels, calls)
    total = hit + false_alarm + miss + quiet
    agreement = _ratio(hit + quiet, total)
    by_chance = _ratio(
        (hit + false_alarm) * (hit + miss) + (quiet + false_alarm) * (quiet + miss), total**2
    )
    return _ratio(agreement - by_chance, 1.0 - by_chance)


def weighted_auc(
    weights: Floats,
    labels: npt.NDArray[np.int64],
    scores: Floats,
    *,
    owner: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """Area under the ROC curve by counting pairs in score order, ties as a half.

    Args:
        weights: R×N.
        labels: M zeros and ones.
        scores: M scores.
        owner: M, which patient each score belongs to; None when M is N.
    """
    if labels.size == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    # Equal scores form one step of the curve: pairs inside a step count a half.
    steps = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    drawn = weights[:, order if owner is None else owner[order]]
    positive = np.add.reduceat(drawn * labels[order], steps, axis=1)
    negative = np.add.reduceat(drawn * (1 - labels[order]), steps, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    won = (positive * (below + 0.5 * negative)).sum(axis=1)
    return _ratio(won, positive.sum(axis=1) * negative.sum(axis=1))


def weighted_calibration_error(
    weights: Floats, labels: npt.ArrayLike, probabilities: Floats
) -> Floats:
    """Pooled expected calibration error of N×K probabilities, for each resample.

    The bins have fixed edges, so that resampling moves patients between no bins.
    """
    truth = np.asarray(labels, dtype=np.float64)
    patients, classes = truth.shape
    owner = np.repeat(np.arange(patients), classes)
    gaps = np.zeros((patients, CALIBRATION_BINS))
    where = bin_of_probability(probabilities).ravel()
    np.add.at(gaps, (owner, where), (truth - probabilities).ravel())
    return _ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1) * classes)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """`top / bottom`, NaN where `bottom` is zero."""
    return np.divide(top, bottom, out=np.full_like(bottom, np.nan), where=bottom != 0.0)
