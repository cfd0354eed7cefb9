"""On which side the optic disc lies: left on a left eye's photograph, right on a right eye's."""

from __future__ import annotations

from fundus_runtime.gates.readings import GateReadings

__all__ = ["side_score"]


def side_score(readings: GateReadings) -> float:
    """Log odds that the photograph is of a left eye; its mirror image has the negative."""
    return 0.0 * readings.cells
