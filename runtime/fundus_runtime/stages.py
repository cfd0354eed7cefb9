"""The stages of an exam by name, and how long each took."""

from __future__ import annotations

from fundus_runtime.prepared import PreparedEye

__all__ = ["STAGES", "stage_times"]

# In the order in which they run. `encode` is both eyes of a ready pair at once; in an exam each eye
# has its own. `second_eye_wait` is no stage of its own and not part of `total`.
STAGES = (
    "decode",
    "preprocess_left",
    "preprocess_right",
    "gates_left",
    "gates_right",
    "encode",
    "encode_left",
    "encode_right",
    "head",
    "second_eye_wait",
    "total",
)


def stage_times(
    left: PreparedEye,
    right: PreparedEye,
    *,
    encode_ms: float | None = None,
    encode_left_ms: float | None = None,
    encode_right_ms: float | None = None,
    head_ms: float | None = None,
) -> dict[str, float | None]:
    """Milliseconds by the names of `STAGES`; None where a stage did not run."""
    decoded = [ms for ms in (left.decode_ms, right.decode_ms) if ms is not None]
    times = {
        "decode": sum(decoded) if decoded else None,
        "preprocess_left": left.preprocess_ms,
        "preprocess_right": right.preprocess_ms,
        "gates_left": left.gates_ms,
        "gates_right": right.gates_ms,
        "encode": encode_ms,
        "encode_left": encode_left_ms,
        "encode_right": encode_right_ms,
        "head": head_ms,
    }
    total = sum(value for value in times.values() if value is not None)
    return {**times, "second_eye_wait": None, "total": total}
