"""The fingerprint of a photograph, and whether two are of one and the same photograph.

A copy, re-encoded or rescaled, is the same photograph; its mirror image and a retake of the same eye
are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.gates.readings import GateReadings

__all__ = ["Fingerprint", "fingerprint", "likeness", "same_photograph"]

_WINDOW = 5


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Fine structure of a photograph's green channel, without its brightness.

    Attributes:
        structure: float32 (32, 32), what is left of the mosaic without its local mean.
        valid: bool (32, 32), whole tiles inside the disc.
    """

    structure: NDArray[np.float32]
    valid: NDArray[np.bool_]


def fingerprint(readings: GateReadings) -> Fingerprint:
    """The fingerprint of a photograph, from its mosaic."""
    counts = readings.counts.astype(np.float64)
    mean = _box(readings.mosaic[:, :, 1]) / np.maximum(_box(counts), 1)
    level = readings.mosaic[:, :, 1] / np.maximum(counts, 1)
    valid = readings.counts == 9
    return Fingerprint(((level - mean) * valid).astype(np.float32), valid)


def likeness(a: Fingerprint, b: Fingerprint) -> float:
    """Correlation of two photographs' structure where both show the fundus, -1 to 1."""
    both = a.valid & b.valid
    x, y = a.structure[both].astype(np.float64), b.structure[both].astype(np.float64)
    if len(x) < 2:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def same_photograph(a: Fingerprint, b: Fingerprint, *, min_same: float = 0.95) -> bool:
    """Whether two fingerprints are of one photograph, of which one may be re-encoded or rescaled."""
    return likeness(a, b) >= min_same


def _box(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Sum over a window, zeros beyond the border."""
    reach = _WINDOW // 2
    padded = np.pad(values.astype(np.float64), ((reach + 1, reach), (reach + 1, reach)))
    total = padded.cumsum(axis=0).cumsum(axis=1)
    sums: NDArray[np.float64] = (
        total[_WINDOW:, _WINDOW:]
        - total[:-_WINDOW, _WINDOW:]
        - total[_WINDOW:, :-_WINDOW]
        + total[:-_WINDOW, :-_WINDOW]
    )
    return sums
