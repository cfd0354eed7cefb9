"""Rows of the `latency` part: which contender is whose, and which stage belongs to which whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fundus_benchmarks.report.numerals import measured

__all__ = [
    "OWN",
    "PARTS_OF",
    "STAGE_NAMES",
    "WHOLES",
    "contender_name",
    "device_of",
    "fastest_own",
    "is_own",
    "is_peer",
    "models_of",
    "package_of",
    "part_of",
    "prepares_side_by_side",
    "timed_parts",
]

Row = Mapping[str, Any]

OWN = "runtime"
# A peer's name starts with one of these; its package decides whether it is the same as last time.
_PACKAGES = {
    "PyTorch": "torch",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "TensorRT": "tensorrt",
    "OpenCV": "opencv-python-headless",
    "simplejpeg": "simplejpeg",
}
STAGE_NAMES = {
    "decode_jpeg": "decode JPEG",
    "decode_jpeg_scaled": "decode JPEG, scaled",
    "decode_png": "decode PNG",
    "preprocessing": "preprocessing",
    "gates": "gates",
    "encoder_1": "encoder, batch 1",
    "encoder_2": "encoder, batch 2",
    "head": "head",
    "pair": "pair at once",
    "second_eye": "wait after the second eye",
    "retake": "wait after a retake",
    "first_result": "process start to first result",
}
WHOLES = ("pair", "second_eye", "retake", "first_result")
# What a whole waits for, one after the other, and how often.
PARTS_OF = {
    "pair": {"preprocessing": 2, "gates": 2, "encoder_2": 1, "head": 1},
    "second_eye": {"preprocessing": 1, "gates": 1, "encoder_1": 1, "head": 1},
    "retake": {"preprocessing": 1, "gates": 1, "encoder_1": 1, "head": 1},
}
# Two eyes prepared side by side take what no stage was timed for.
_PARTS_BESIDE_EYES = {"encoder_2": 1, "head": 1}
_SAME = ("model", "dialect", "backend", "provider", "threads")


def is_own(row: Row) -> bool:
    """Whether the product made the row."""
    return row.get("contender") == OWN


def is_peer(row: Row) -> bool:
    """Whether what users would put together instead made it."""
    return package_of(str(row.get("contender"))) is not None


def package_of(contender: str) -> str | None:
    """The package that a peer is made of; None for the product, its reference and its plans."""
    found = (package for name, package in _PACKAGES.items() if contender.startswith(name))
    return next(found, None)


def device_of(provider: str | None) -> str:
    """`cpu` or `gpu`."""
    return "cpu" if provider is None or provider.lower().startswith("cpu") else "gpu"


def contender_name(row: Row, *, threads: bool = False) -> str:
    """For tables and plots: a peer's own name, or the product with form and engine."""
    if not is_own(row):
        name = str(row.get("contender"))
    else:
        name = f"fundus-edge {row['dialect']}" if row.get("dialect") else "fundus-edge"
        name += f", {row['backend']}" if row.get("backend") else ""
    if device_of(row.get("provider")) == "gpu" and row.get("provider") != row.get("backend"):
        name += f", {row['provider']}"
    if not threads or not row.get("threads"):
        return name
    return f"{name}, {row['threads']} thread{'' if row['threads'] == 1 else 's'}"


def models_of(rows: Iterable[Row]) -> list[str]:
    """The models that rows name, in their order."""
    return list(dict.fromkeys(str(row["model"]) for row in rows if row.get("model")))


def fastest_own(rows: Iterable[Row], stage: str, device: str = "cpu") -> Row | None:
    """The product's fastest row of a stage."""
    found = [
        row
        for row in rows
        if is_own(row)
        and row.get("stage") == stage
        and device_of(row.get("provider")) == device
        and measured(row.get("p50_ms")) is not None
    ]
    return min(found, key=lambda row: float(row["p50_ms"]), default=None)


def part_of(rows: Sequence[Row], whole: Row, stage: str) -> Row | None:
    """The row of a stage that fits a whole best: what it says of itself is the whole's too.

    A stage that does not depend on the model says None of it; preprocessing may have been timed on
    another number of threads, and on the CPU where the engine is a GPU's.
    """
    found = [(_likeness(row, whole), row) for row in rows if _fits(row, whole, stage)]
    return max(found, key=lambda one: one[0])[1] if found else None


def _fits(row: Row, whole: Row, stage: str) -> bool:
    if row.get("stage") != stage or row.get("contender") != whole.get("contender"):
        return False
    if device_of(row.get("provider")) not in ("cpu", device_of(whole.get("provider"))):
        return False
    free = {"threads", "provider", "backend"} if stage in ("preprocessing", "gates") else set()
    return measured(row.get("p50_ms")) is not None and all(
        row.get(key) in (None, whole.get(key)) for key in _SAME if key not in free
    )


def _likeness(row: Row, whole: Row) -> int:
    return sum(row.get(key) == whole.get(key) for key in _SAME)


def prepares_side_by_side(whole: Row) -> bool:
    """Whether a pair's eyes are prepared at a time: the product's are where it has two threads."""
    threads = measured(whole.get("threads")) or 1
    return is_own(whole) and whole.get("stage") == "pair" and threads >= 2


def timed_parts(rows: Sequence[Row], whole: Row) -> Iterator[tuple[str, float]]:
    """The stages of a whole that were timed apart, and what they take of it in ms, by medians.

    Peers prepare their eyes with OpenCV. Of a pair whose eyes are prepared side by side the stages
    after that are told alone.
    """
    beside = prepares_side_by_side(whole)
    parts = _PARTS_BESIDE_EYES if beside else PARTS_OF.get(str(whole.get("stage")), {})
    for stage, count in parts.items():
        by_opencv = is_peer(whole) and stage == "preprocessing"
        row = part_of(rows, {**whole, "contender": "OpenCV"} if by_opencv else whole, stage)
        if row is not None:
            yield stage, count * float(row["p50_ms"])
