"""One eye on its way to the engine: decoded, preprocessed and judged, or refused with a reason.

A photograph that cannot be graded becomes a status here, not an error, because the other eye can
still be screened; a file or array that is no photograph stays an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fundus_runtime.backends.protocol import Float32Array
from fundus_runtime.gates import GateVerdict
from fundus_runtime.labels import Eye
from fundus_runtime.result import EyePicture, EyeStatus
from fundus_runtime.verdict import EyeVerdict

__all__ = ["SAME_PHOTOGRAPH", "PreparedEye", "refuse_same_photograph"]

SAME_PHOTOGRAPH = "same_photograph"


@dataclass(frozen=True, eq=False)
class PreparedEye:
    """One eye after decoding and preprocessing, ready for the engine.

    Attributes:
        eye: `left` or `right`.
        status: `ok`, `absent` or `ungradable`.
        tensor: float32 (3, S, S), only where `ok`.
        reason: why it cannot be used.
        hint: what the operator should do.
        field_of_view: the disc in pixels of the photograph; None where none was found.
        gates: what they say of the photograph; None where there is no disc to judge.
        picture: what the preprocessing made of it.
        decode_ms: time to read and decode the file, where there was one.
        preprocess_ms: time of the preprocessing, where there was a frame.
        gates_ms: time of the gates, where they judged.
        warnings: sentences for the operator.
    """

    eye: Eye
    status: EyeStatus
    tensor: Float32Array | None = None
    reason: str | None = None
    hint: str | None = None
    field_of_view: Mapping[str, Any] | None = None
    gates: GateVerdict | None = None
    picture: EyePicture | None = None
    decode_ms: float | None = None
    preprocess_ms: float | None = None
    gates_ms: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it takes part in the inference."""
        return self.status == "ok"

    def refused(self, reason: str, hint: str) -> PreparedEye:
        """The same eye as one that cannot be used."""
        return replace(
            self, status="ungradable", tensor=None, picture=None, reason=reason, hint=hint
        )

    def verdict(self) -> EyeVerdict:
        """What an operator is told of it."""
        return EyeVerdict(
            self.eye,
            self.status,
            reason=self.reason,
            hint=self.hint,
            gates=self.gates,
            warnings=self.warnings,
            preprocess_ms=self.preprocess_ms,
            gates_ms=self.gates_ms,
        )


def refuse_same_photograph(prepared: PreparedEye) -> PreparedEye:
    """An eye that was given the other one's photograph: one of them was not photographed."""
    other = "right" if prepared.eye == "left" else "left"
    return prepared.refused(
        SAME_PHOTOGRAPH,
        f"this is the photograph of the {other} eye again; photograph the {prepared.eye} eye",
    )
