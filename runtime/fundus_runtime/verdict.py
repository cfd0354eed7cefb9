"""What an operator is told of one eye as soon as its photograph was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
        warnings: sentences for the operator, of an eye that is used all the same.
        preprocess_ms: time of the preprocessing; None for an absent eye.
    """

    eye: Eye
    status: EyeStatus
    reason: str | None = None
    hint: str | None = None
    warnings: tuple[str, ...] = ()
    preprocess_ms: float | None = None

    @property
    def usable(self) -> bool:
        """Whether the eye takes part in the inference."""
        return self.status == "ok"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return {**asdict(self), "warnings": list(self.warnings)}
