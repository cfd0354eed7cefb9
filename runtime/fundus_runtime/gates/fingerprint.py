"""The fingerprint of a photograph, and whether two are of one and the same photograph.

A copy, re-encoded or rescaled, is the same photograph; its mirror image, and a retake of the same
eye, are not: vessels that moved by a fiftieth of the disc no longer cover each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.gates.local_mean import local_mean
from fundus_runtime.gates.readings import CELLS, GateReadings
from fundus_runtime.gates.thresholds import GateThresholds

__all__ = ["Fingerprint", "fingerprint", "likeness", "same_photograph"]

# cells; smaller than the optic disc, larger than a vessel
_WINDOW = 5
_MIN_CELLS = 1000
# a camera's own reflections and its shaded rim are alike in every photograph; vessels are fainter
_CLIP = 3.0
_CORE = 0.9


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
    both = a.inside & b.inside & _core()
    if int(both.sum()) < _MIN_CELLS:
        return 0.0
    x, y = _structure(a, both), _structure(b, both)
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def same_photograph(
    a: Fingerprint, b: Fingerprint, *, min_same: float = GateThresholds.min_same
) -> bool:
    """Whether two fingerprints are of one photograph; either may be re-encoded or rescaled."""
    return likeness(a, b) >= min_same


def _structure(photograph: Fingerprint, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Green without its local mean, bounded, without its own mean."""
    green = photograph.green.astype(np.float64)
    around = local_mean(green, photograph.inside.astype(np.float64), _WINDOW)
    fine = (green - around)[cells]
    bound = _CLIP * float(np.median(np.abs(fine)))
    bounded = np.clip(fine, -bound, bound)
    centred: NDArray[np.float64] = bounded - bounded.mean()
    return centred


@cache
def _core() -> NDArray[np.bool_]:
    offset2 = (2 * np.arange(CELLS) + 1 - CELLS) ** 2
    core: NDArray[np.bool_] = offset2[:, None] + offset2[None, :] <= (_CORE * CELLS) ** 2
    return core
