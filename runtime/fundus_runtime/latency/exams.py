"""Measure whole exams: a ready pair, the wait after the second eye, a retake.

Frames take turns. What is timed is what a caller waits for, from handing the frame over to holding
the result; the stages are those that the results themselves state.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.errors import UsageError
from fundus_runtime.latency.timing import Timing, took_ms
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import Screener

__all__ = [
    "Measured",
    "measure_pairs",
    "measure_retakes",
    "measure_second_eyes",
    "ready_pair",
    "retake",
    "second_eye",
    "seconds_to_encode",
    "two_frames",
]

Frame = NDArray[np.uint8]
Timed = tuple[ExamResult, float]

_WARM_UP = 3
_LEAST = 5
# How many times as long as a pair needs the first eye gets, as if the robot moved on meanwhile.
_MOVE_FACTOR = 2.0


@dataclass(frozen=True)
class Measured:
    """One way to screen.

    Attributes:
        whole: what the caller waits for.
        stages: by the names of `ExamResult.time_ms`.
    """

    whole: Timing
    stages: dict[str, Timing]


def measure_pairs(screener: Screener, frames: Sequence[Frame], *, seconds: float) -> Measured:
    """A ready pair of frames, at batch 2.

    Args:
        screener: open.
        frames: uint8 RGB, at least two.
        seconds: how long to measure, at least.

    Raises:
        UsageError: a frame cannot be graded, so that nothing would be measured.
    """
    return _repeat(lambda turn: ready_pair(screener, frames, turn), seconds)


def measure_second_eyes(screener: Screener, frames: Sequence[Frame], *, seconds: float) -> Measured:
    """The wait after the second photograph, the first eye being encoded; see `measure_pairs`."""
    move_s = seconds_to_encode(screener, frames)
    return _repeat(lambda turn: second_eye(screener, frames, turn, move_s=move_s), seconds)


def measure_retakes(screener: Screener, frames: Sequence[Frame], *, seconds: float) -> Measured:
    """The wait after a retake of one eye, both being encoded by then; see `measure_pairs`."""
    move_s = seconds_to_encode(screener, frames)
    return _repeat(lambda turn: retake(screener, frames, turn, move_s=move_s), seconds)


def ready_pair(screener: Screener, frames: Sequence[Frame], turn: int) -> Timed:
    """Screen a pair at once: the result, and how many milliseconds it took."""
    left, right = two_frames(frames, turn)
    return took_ms(lambda: screener.screen(left, right, color="rgb"))


def second_eye(screener: Screener, frames: Sequence[Frame], turn: int, *, move_s: float) -> Timed:
    """An exam whose second eye comes `move_s` after the first: the result, and the wait for it."""
    left, right = two_frames(frames, turn)
    with screener.begin() as exam:
        exam.add("left", left, color="rgb")
        time.sleep(move_s)

        def second() -> ExamResult:
            exam.add("right", right, color="rgb")
            return exam.result()

        return took_ms(second)


def retake(screener: Screener, frames: Sequence[Frame], turn: int, *, move_s: float) -> Timed:
    """An exam whose left eye is retaken `move_s` after the right: the result, and the wait."""
    left, right = two_frames(frames, turn)
    again, _ = two_frames(frames, turn + 1)
    with screener.begin() as exam:
        exam.add("left", left, color="rgb")
        time.sleep(move_s)
        exam.add("right", right, color="rgb")
        time.sleep(move_s)

        def replaced() -> ExamResult:
            exam.replace("left", again, color="rgb")
            return exam.result()

        return took_ms(replaced)


def two_frames(frames: Sequence[Frame], turn: int) -> tuple[Frame, Frame]:
    """Frames 0 and 1, then 2 and 3, and so on around."""
    first = 2 * turn % len(frames)
    return frames[first], frames[(first + 1) % len(frames)]


def seconds_to_encode(screener: Screener, frames: Sequence[Frame]) -> float:
    """Longer than one eye's encoding takes: what the robot's way to the other eye gives it."""
    pair_ms = statistics.median(ready_pair(screener, frames, turn)[1] for turn in range(_WARM_UP))
    return _MOVE_FACTOR * pair_ms / 1e3


def _repeat(once: Callable[[int], Timed], seconds: float) -> Measured:
    whole: list[float] = []
    stages: dict[str, list[float]] = defaultdict(list)
    end = None
    for turn in count():
        result, ms = once(turn)
        _require_graded(result)
        if turn < _WARM_UP:
            continue
        end = time.perf_counter() + seconds if end is None else end
        whole.append(ms)
        for stage, value in result.time_ms.items():
            if value is not None:
                stages[stage].append(value)
        if len(whole) >= _LEAST and time.perf_counter() >= end:
            break
    return Measured(Timing.of(whole), {name: Timing.of(found) for name, found in stages.items()})


def _require_graded(result: ExamResult) -> None:
    for eye in (result.left, result.right):
        if eye.status != "ok":
            raise UsageError(
                f"a {eye.eye} frame is {eye.status} ({eye.reason}): there is nothing to measure; "
                "give photographs that pass the gates, or leave --frames out"
            )
