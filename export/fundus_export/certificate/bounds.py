"""Exact bounds of a share: how large may it be, given what was counted?

Clopper and Pearson's interval (Biometrika 26, 1934), two-sided 95 %: it inverts the binomial
distribution and never covers less than it says. Where several decisions belong to one patient they
are no independent trials; their number is then divided by the design effect before the interval is
taken (Korn and Graubard, Survey Methodology 24, 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from fundus_export.errors import ExportError

__all__ = ["LEVEL", "Share", "clopper_pearson", "design_effect", "share_of", "share_of_clusters"]

LEVEL = 0.95

Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """So many of so many, and the 95 % interval of their share.

    Attributes:
        count: how many.
        of: among how many.
        share: `count / of`; 0 where there was nothing to count among.
        low: lower bound.
        high: upper bound; 1 where there was nothing to count among.
    """

    count: int
    of: int
    share: float
    low: float
    high: float


def clopper_pearson(count: float, of: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Lower and upper bound of a share; both may be fractions, as effective counts are.

    Raises:
        ExportError: the count is no part of the whole.
    """
    if not 0 <= count <= of:
        raise ExportError(f"{count} of {of} is no share; this is a fault of the certificate")
    tail = (1.0 - level) / 2.0
    low = float(beta.ppf(tail, count, of - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(1.0 - tail, count + 1, of - count)) if count < of else 1.0
    return low, high


def share_of(flags: npt.ArrayLike) -> Share:
    """The share of true flags, one independent trial each."""
    values = np.asarray(flags, dtype=np.bool_)
    return _share(int(values.sum()), values.size, effect=1.0)


def share_of_clusters(flags: Flags, owner: Indices | None = None) -> Share:
    """The share of true flags M×K, with bounds that know which belong together.

    Args:
        flags: one row of K flags a patient or an eye.
        owner: M, the patient that each row belongs to; None where each row is a patient.
    """
    effect = design_effect(flags, owner)
    return _share(int(flags.sum()), flags.size, effect=effect)


def design_effect(flags: Flags, owner: Indices | None = None) -> float:
    """By how much flags M×K vary more than independent ones would, at least 1.

    The variance of the share as a ratio of patients' totals, over p (1 - p) / n.
    """
    share = float(flags.mean()) if flags.size else 0.0
    rows = np.arange(len(flags)) if owner is None else owner
    _, patient = np.unique(rows, return_inverse=True)
    patients = int(patient.max()) + 1 if patient.size else 0
    if patients < 2 or share in (0.0, 1.0):
        return 1.0
    excess = np.bincount(patient, weights=(flags - share).sum(axis=1))
    variance = patients / (patients - 1) * float(excess @ excess) / flags.size**2
    return max(1.0, variance / (share * (1.0 - share) / flags.size))


def _share(count: int, of: int, *, effect: float) -> Share:
    low, high = clopper_pearson(count / effect, of / effect)
    return Share(count=count, of=of, share=count / of if of else 0.0, low=low, high=high)
