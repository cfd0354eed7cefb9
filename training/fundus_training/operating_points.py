"""Thresholds on calibrated probabilities, chosen on validation patients by a stated rule.

A class is called when p >= threshold. Thresholds lie midway between neighbouring scores, so that
another machine's rounding changes no call. Four points are made, each with a rule in words for
every class:

- `best_f1` (the default): the threshold of best F1.
- `sensitivity_80`, `_90`, `_95`: for a finding, the highest threshold that still finds that share
  of its positives. The normal class says "do not refer", so its figure is turned round: the lowest
  threshold whose *specificity* is the stated one, that is, at most the rest of the patients with a
  finding are called normal. Both push the referral of ill patients up.

With fewer than 20 cases to count on, the threshold is 0.5 and the rule says so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fundus_runtime.calibration import OperatingPoint, OperatingPoints
from fundus_runtime.labels import ClassList

__all__ = [
    "DEFAULT_POINT",
    "FALLBACK_THRESHOLD",
    "MINIMUM_CASES",
    "SENSITIVITIES_PERCENT",
    "best_f1_threshold",
    "choose_operating_points",
    "sensitivity_threshold",
    "specificity_threshold",
]

FALLBACK_THRESHOLD = 0.5
MINIMUM_CASES = 20
SENSITIVITIES_PERCENT = (80, 90, 95)
DEFAULT_POINT = "best_f1"

Array = npt.NDArray[Any]


def choose_operating_points(
    labels: Array, probabilities: Array, classes: ClassList, *, cases: str = "validation patients"
) -> OperatingPoints:
    """All operating points for these calibrated probabilities.

    Args:
        labels: N×K zeros and ones, as the thresholds are to be judged by.
        probabilities: N×K, calibrated on these cases.
        classes: the K classes.
        cases: what the rows are, for the rules' texts.
    """
    columns = range(len(classes))
    points = [
        _point(
            DEFAULT_POINT,
            [_best_f1(labels[:, k], probabilities[:, k], cases) for k in columns],
            classes,
        )
    ]
    for percent in SENSITIVITIES_PERCENT:
        chosen = [
            _at_share(
                labels[:, k],
                probabilities[:, k],
                percent,
                cases,
                normal=classes.letters[k] == classes.normal,
            )
            for k in columns
        ]
        points.append(_point(f"sensitivity_{percent}", chosen, classes))
    return OperatingPoints(default=DEFAULT_POINT, points=tuple(points))


def _point(name: str, chosen: list[tuple[float, str]], classes: ClassList) -> OperatingPoint:
    thresholds, rules = zip(*chosen, strict=True)
    return OperatingPoint(name, classes.letters, thresholds, rules)


def _best_f1(labels: Array, scores: Array, cases: str) -> tuple[float, str]:
    positives = int(labels.sum())
    if positives < MINIMUM_CASES:
        return FALLBACK_THRESHOLD, _fallback_rule(positives, "positive", cases)
    threshold = best_f1_threshold(labels, scores)
    return threshold, f"best F1 on {cases} ({positives} positive)"


def _at_share(
    labels: Array, scores: Array, percent: int, cases: str, *, normal: bool
) -> tuple[float, str]:
    counted = int((1 - labels if normal else labels).sum())
    kind = "negative" if normal else "positive"
    if counted < MINIMUM_CASES:
        return FALLBACK_THRESHOLD, _fallback_rule(counted, kind, cases)
    choose, figure = (
        (specificity_threshold, "lowest threshold with specificity")
        if normal
        else (sensitivity_threshold, "highest threshold with sensitivity")
    )
    threshold = choose(labels, scores, percent / 100.0)
    return threshold, f"{figure} of at least {percent} % on {cases} ({counted} {kind})"


def _fallback_rule(counted: int, kind: str, cases: str) -> str:
    return (
        f"{FALLBACK_THRESHOLD} on calibrated probabilities: only {counted} {kind} {cases}, "
        f"fewer than {MINIMUM_CASES}"
    )


def best_f1_threshold(labels: Array, scores: Array) -> float:
    """Threshold of best F1; among equally good ones, the one furthest from any score.

    Args:
        labels: N zeros and ones with at least one positive.
        scores: N probabilities.
    """
    cuts, gaps, called, found = _cuts(labels, scores)
    f1 = 2.0 * found / (called + labels.sum())
    return float(cuts[np.lexsort((gaps, f1))[-1]])


def sensitivity_threshold(labels: Array, scores: Array, target: float) -> float:
    """Highest threshold at which at least `target` of the positives are called."""
    cuts, _, _, found = _cuts(labels, scores)
    needed = _at_least(target, int(labels.sum()))
    return float(cuts[np.flatnonzero(found >= needed)].max())


def specificity_threshold(labels: Array, scores: Array, target: float) -> float:
    """Lowest threshold at which at least `target` of the negatives are not called."""
    negatives = int((1 - labels).sum())
    cuts, _, called, found = _cuts(labels, scores)
    spared = negatives - (called - found)
    enough = cuts[np.flatnonzero(spared >= _at_least(target, negatives))]
    # Where even the highest score is a negative that must be spared, nothing may be called.
    return float(enough.min()) if enough.size else (1.0 + float(scores.max())) / 2.0


def _at_least(share: float, cases: int) -> int:
    """The smallest count that is at least this share of the cases."""
    return math.ceil(share * cases - 1e-9)


def _cuts(labels: Array, scores: Array) -> tuple[Array, Array, Array, Array]:
    """Every useful threshold, ascending: its place, width of its gap, calls and right calls.

    The lowest lies midway between 0 and the lowest score and calls everybody.
    """
    levels, index = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    below = np.concatenate([[0.0], levels[:-1]])
    at_level = np.bincount(index, minlength=levels.size)
    right_at_level = np.bincount(index, weights=labels, minlength=levels.size)
    called = np.cumsum(at_level[::-1])[::-1]
    found = np.cumsum(right_at_level[::-1])[::-1]
    return (below + levels) / 2.0, levels - below, called, found
