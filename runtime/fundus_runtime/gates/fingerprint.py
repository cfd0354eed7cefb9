"""The fingerprint of a photograph, and whether two are of one and the same photograph.

A copy, re-encoded or rescaled, is the same photograph; its mirror image, and a retake of the same
eye, are not: vessels that moved by a fiftieth of the disc no longer cover each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.gates.local_mean import local_mean
from fundus_runtime.gates.readings import GateReadings
from fundus_runtime.gates.thresholds import GateThresholds

__all__ = ["Fingerprint", "fingerprint", "likeness", "same_photograph"]

# cells; smaller than the optic disc, larger than a vessel
_WINDOW = 5
_MIN_CELLS = 1000


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is compared of a photograph.

    Attributes:
        green: uint16 (96, 96), the gates' cells in sixteenths of a level.
        inside: bool (96, 96), cells inside disc and frame.
    """

    green: NDArray[np.uint16]
    inside: NDArray[np.bool_]


def fingerprint(readings: GateReadings) -> Fingerprint:
    """The fingerprint of a photograph that was measured."""
    return Fingerprint(readings.levels[:, :, 1].copy(), readings.inside)


def likeness(a: Fingerprint, b: Fingerprint) -> float:
    """Correlation of two photographs' fine structure where both show the fundus, -1 to 1."""
    both = a.inside & b.inside
    if int(both.sum()) < _MIN_CELLS:
        return 0.0
    x, y = _structure(a)[both], _structure(b)[both]
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def same_photograph(
    a: Fingerprint, b: Fingerprint, *, min_same: float = GateThresholds.min_same
) -> bool:
    """Whether two fingerprints are of one photograph; either may be re-encoded or rescaled."""
    return likeness(a, b) >= min_same


def _structure(photograph: Fingerprint) -> NDArray[np.float64]:
    green = photograph.green.astype(np.float64)
    inside = photograph.inside.astype(np.float64)
    return green - local_mean(green, inside, _WINDOW)
