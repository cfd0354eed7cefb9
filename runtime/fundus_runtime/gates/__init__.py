"""Gates: may a photograph be screened, and if not, why, and what should the operator do?

`judge` looks at one photograph, `judge_pair` at both together. Figures are whole numbers measured
on the raw frame (`reference.measure` defines them), bounds are `GateThresholds`.
"""

from __future__ import annotations

from fundus_runtime.gates.fingerprint import Fingerprint, likeness, same_photograph
from fundus_runtime.gates.gate_list import GATES, GateFigure
from fundus_runtime.gates.readings import GateReadings
from fundus_runtime.gates.thresholds import GateThresholds, read_thresholds
from fundus_runtime.gates.verdict import (
    GateVerdict,
    PairVerdict,
    judge,
    judge_pair,
)

__all__ = [
    "GATES",
    "Fingerprint",
    "GateFigure",
    "GateReadings",
    "GateThresholds",
    "GateVerdict",
    "PairVerdict",
    "judge",
    "judge_pair",
    "likeness",
    "read_thresholds",
    "same_photograph",
]
