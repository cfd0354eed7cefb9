"""Which thresholds the gates take: those that were given, this machine's own, or the defaults.

Fixed thresholds do not transfer between cameras, so a machine may name a file that was fitted to
its camera. Every result states the thresholds that judged it.
"""

from __future__ import annotations

import os
from pathlib import Path

from fundus_runtime.gates import GateThresholds, read_thresholds

__all__ = ["GATES_VARIABLE", "gate_thresholds"]

GATES_VARIABLE = "FUNDUS_GATES"


def gate_thresholds(given: GateThresholds | str | Path | None = None) -> GateThresholds:
    """The thresholds, or those of a file; None for `$FUNDUS_GATES`, else the defaults.

    Raises:
        UsageError: the file cannot be read or holds no thresholds.
    """
    if isinstance(given, GateThresholds):
        return given
    if given is None:
        given = os.environ.get(GATES_VARIABLE) or None
    return GateThresholds() if given is None else read_thresholds(given)
