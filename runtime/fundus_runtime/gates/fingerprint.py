"""The fingerprint of a photograph, and whether two are of one and the same photograph.

A copy, re-encoded or rescaled, is the same photograph; its mirror image, and a retake of the same
eye, are not: vessels that moved by a fiftieth of the disc no longer cover each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.gates.native import fine_structure
from fundus_runtime.gates.readings import CELLS, GateReadings
from fundus_runtime.gates.thresholds import GateThresholds

__all__ = ["Fingerprint", "fingerprint", "likeness", "same_photograph"]

_MIN_CELLS = 1000
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

    @cached_property
    def cells(self) -> NDArray[np.bool_]:
        """The cells that can be compared: without the rim."""
        return self.inside & _core()

    @cached_property
    def structure(self) -> NDArray[np.float64]:
        """The fine structure of all these cells; computed when it is first asked for."""
        return self.structure_of(self.cells)

    def structure_of(self, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Green of some cells without its local mean, bounded, without its own mean."""
        return fine_structure(self.green, self.inside, cells)


def fingerprint(readings: GateReadings) -> Fingerprint:
    """The fingerprint of a photograph that was measured."""
    return Fingerprint(readings.levels[:, :, 1].copy(), readings.inside)


def likeness(a: Fingerprint, b: Fingerprint) -> float:
    """Correlation of two photographs' fine structure where both show the fundus, -1 to 1."""
    both = a.cells & b.cells
    if np.count_nonzero(both) < _MIN_CELLS:
        return 0.0
    # discs that the camera did not cut have the same cells, and then nothing is computed again
    x, y = (
        one.structure if np.array_equal(one.cells, both) else one.structure_of(both)
        for one in (a, b)
    )
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def same_photograph(
    a: Fingerprint, b: Fingerprint, *, min_same: float = GateThresholds.min_same
) -> bool:
    """Whether two fingerprints are of one photograph; either may be re-encoded or rescaled."""
    return likeness(a, b) >= min_same


@cache
def _core() -> NDArray[np.bool_]:
    offset2 = (2 * np.arange(CELLS) + 1 - CELLS) ** 2
    core: NDArray[np.bool_] = offset2[:, None] + offset2[None, :] <= (_CORE * CELLS) ** 2
    return core
