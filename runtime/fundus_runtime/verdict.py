"""What an operator is told of one eye as soon as its photograph was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fundus_runtime.gates import GateVerdict
from fundus_runtime.labels import Eye
from fundus_runtime.result import EyeStatus

__all__ = ["EyeVerdict"]


@dataclass(frozen=True)
class EyeVerdict:
    """Whether an eye's photograph can be used, and what to do where it cannot.

    Attributes:
        eye: `left` or `right`.
        status: `ok`, `absent` or `ungradable`.
        reason: why it cannot be used, in snake_case; None where it can.
        hint: what the operator should do; None where nothing.
        gates: every gate's figure and threshold; None where there was no disc to judge.
        warnings: sentences for the operator; they refuse nothing.
        preprocess_ms: time of the preprocessing; None for an absent eye.
        gates_ms: time of the gates; None where they did not judge.
    """

    eye: Eye
    status: EyeStatus
    reason: str | None = None
    hint: str | None = None
    gates: GateVerdict | None = None
    warnings: tuple[str, ...] = ()
    preprocess_ms: float | None = None
    gates_ms: float | None = None

    @property
    def usable(self) -> bool:
        """Whether the eye takes part in the inference."""
        return self.status == "ok"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return {
            "eye": self.eye,
            "status": self.status,
            "reason": self.reason,
            "hint": self.hint,
            "quality": None if self.gates is None else self.gates.to_dict(),
            "warnings": list(self.warnings),
            "time_ms": {"preprocess": self.preprocess_ms, "gates": self.gates_ms},
        }
