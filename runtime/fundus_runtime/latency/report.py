"""All that `fundus-bench latency` measures, as JSON-able values and as text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.latency.exams import (
    Measured,
    measure_pairs,
    measure_retakes,
    measure_second_eyes,
)
from fundus_runtime.latency.first_result import measure_first_result
from fundus_runtime.latency.machine import (
    describe_machine,
    memory_mb,
    process_threads,
    temperatures_c,
)
from fundus_runtime.latency.subject import Subject
from fundus_runtime.version import __version__

__all__ = ["LATENCY_FORMAT", "format_latency", "measure_latency"]

LATENCY_FORMAT = "fundus-edge latency"

_log = logging.getLogger(__name__)

_WAYS = {
    "pair": ("a ready pair at once", measure_pairs),
    "second_eye": ("the wait after the second eye", measure_second_eyes),
    "retake": ("the wait after a retake", measure_retakes),
}


def measure_latency(
    subject: Subject, frames: Sequence[NDArray[np.uint8]], *, seconds: float
) -> dict[str, Any]:
    """Measure a bundle on this machine.

    Args:
        subject: the bundle and its engine.
        frames: uint8 RGB, at least two; they take turns.
        seconds: of measuring, in all; the two waits take longer on the clock, since the robot's
            way between the eyes is part of them.

    Raises:
        FundusError: the bundle or a frame cannot be used, or the engine failed.
    """
    _log.info("a fresh process, to its first result")
    first = measure_first_result(subject, frames[0], frames[1])
    machine = describe_machine()
    with subject.open() as screener:
        measured = {}
        for name, (words, measure) in _WAYS.items():
            _log.info("%s, %.0f s", words, seconds / len(_WAYS))
            measured[name] = _values(measure(screener, frames, seconds=seconds / len(_WAYS)))
        return {
            "format": LATENCY_FORMAT,
            "schema_version": 1,
            "package_version": __version__,
            "bundle": asdict(screener.bundle),
            "engine": asdict(screener.engine),
            "frames": [f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames],
            "first_result_ms": round(first.first_result_ms, 1),
            "memory_mb": {"fresh_process_peak": first.peak_mb, **memory_mb()},
            "process_threads": process_threads(),
            "latency": measured,
            "machine": machine,
            "temperatures_after_c": temperatures_c() or None,
        }


def format_latency(values: Mapping[str, Any]) -> str:
    """The values as lines of text."""
    machine, engine = values["machine"], values["engine"]
    lines = [
        f"{values['bundle']['name']} {values['bundle']['version']}, {engine['graphs']} on "
        f"{engine['provider']}, {engine['threads']} threads, {_sizes(values['frames'])}",
        *_machine_lines(machine),
        "",
        f"{'milliseconds':<34} {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8} {'times':>6}",
    ]
    for name, (words, _) in _WAYS.items():
        found = values["latency"][name]
        lines.append(_timing_line(words, found["whole"]))
        lines += [
            _timing_line(f"  {stage.replace('_', ' ')}", timing)
            for stage, timing in found["stages"].items()
            if stage not in _WHOLES
        ]
    memory = values["memory_mb"]
    lines += [
        "",
        f"first result of a fresh process: {values['first_result_ms']:.0f} ms after its start, "
        f"peak memory {_or_unknown(memory['fresh_process_peak'])} MB",
        f"this process: {_or_unknown(values['process_threads'])} threads, "
        f"{_or_unknown(memory['resident'])} MB with all its frames",
    ]
    if values["temperatures_after_c"]:
        lines.append(f"degrees Celsius: {_heat(machine, values['temperatures_after_c'])}")
    return "\n".join(lines)


def _values(measured: Measured) -> dict[str, Any]:
    return {
        "whole": measured.whole.to_dict(),
        "stages": {name: timing.to_dict() for name, timing in measured.stages.items()},
    }


def _machine_lines(machine: Mapping[str, Any]) -> list[str]:
    known = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in machine.items()
        if value is not None and name in _SHOWN
    ]
    lines = [", ".join(known)]
    if machine["not_available"]:
        missing = ", ".join(name.replace("_", " ") for name in machine["not_available"])
        lines.append(f"this host does not tell: {missing}")
    return lines


# Sums of the other stages, of which the whole is shown already.
_WHOLES = ("total", "second_eye_wait")
_SHOWN = ("device", "processor", "usable_processors", "clock_mhz", "clock_governor", "power_mode")


def _timing_line(words: str, timing: Mapping[str, float]) -> str:
    columns = " ".join(f"{timing[key]:8.2f}" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms"))
    return f"{words:<34} {columns} {timing['count']:6d}"


def _heat(machine: Mapping[str, Any], after: Mapping[str, float]) -> str:
    """Every thermal zone before and after."""
    before = machine["temperatures_c"] or {}
    return ", ".join(
        f"{zone} {_or_unknown(before.get(zone))} to {value:.0f}" for zone, value in after.items()
    )


def _sizes(sizes: Sequence[str]) -> str:
    kinds = sorted(set(sizes))
    return f"{len(sizes)} frames of {kinds[0] if len(kinds) == 1 else 'several sizes'}"


def _or_unknown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}"
