"""Minutes of exams on a Jetson, one after another without a pause, with tegrastats beside them.

Four stretches of time, all by `time.perf_counter`: the board at rest before a bundle is opened, the
screener open and waiting, and the load, whose beginning is fresh and whose end is sustained. What
is recorded here is made into figures by `jetson_row`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fundus_benchmarks.jetson.stretches import Stretch
from fundus_benchmarks.jetson.tegrastats_log import INTERVAL_MS, Sampled, TegrastatsLog
from fundus_benchmarks.jetson.throttling import ClockReading, JetsonNodes, NodeWatch
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineError, UsageError
from fundus_runtime.golden import check_golden
from fundus_runtime.latency.exams import ready_pair
from fundus_runtime.result import EngineIdentity
from fundus_runtime.screener import Screener

__all__ = ["Plan", "Recording", "TimedExam", "record"]

_WARM_UP = 3
# What ends before a rest is measured: threads that spin, clocks that fall only after a while.
_SETTLE_S = 2.0
_POLL_S = 0.1
# A sum of the other stages.
_TOTAL = "total"


@dataclass(frozen=True)
class Plan:
    """How long.

    Attributes:
        load_s: of exams.
        rest_s: of the board at rest, and again of the open screener.
        window_s: of the load's beginning and end that count as fresh and as sustained; at most half
            of the load.
    """

    load_s: float = 300.0
    rest_s: float = 10.0
    window_s: float = 30.0


@dataclass(frozen=True)
class TimedExam:
    """One exam of a ready pair.

    Attributes:
        ended_s: by `time.perf_counter`.
        ms: from handing the frames over to holding the result.
        stages_ms: by the names of `ExamResult.time_ms`, without the total.
    """

    ended_s: float
    ms: float
    stages_ms: Mapping[str, float]


@dataclass(frozen=True)
class Recording:
    """All that was seen.

    Attributes:
        plan: how long it was meant to take.
        engine: what computed.
        golden_pairs: answered as recorded before anything was timed; None without any.
        rest: nothing open.
        ready: the screener open, no exam.
        load: exams.
        exams: of the load.
        samples: of tegrastats, over all stretches.
        readings: of clocks and alerts, likewise.
        gpu_bound_mhz: the highest clock allowed at the start; None where it is not told.
        cpu_bound_mhz: likewise.
        clocks_pinned: whether `jetson_clocks` was on at the start; None where it is not told.
        events: of over-current and under-voltage during the load, by counter; None: unknown.
    """

    plan: Plan
    engine: EngineIdentity
    golden_pairs: int | None
    rest: Stretch
    ready: Stretch
    load: Stretch
    exams: Sequence[TimedExam]
    samples: Sequence[Sampled]
    readings: Sequence[ClockReading]
    gpu_bound_mhz: float | None
    cpu_bound_mhz: float | None
    clocks_pinned: bool | None
    events: Mapping[str, int] | None


def record(
    bundle: Bundle,
    open_screener: Callable[[], Screener],
    frames: Sequence[NDArray[np.uint8]],
    plan: Plan,
    nodes: JetsonNodes,
) -> Recording:
    """Measure.

    Args:
        bundle: verified.
        open_screener: opens it on the engine to measure.
        frames: uint8 RGB, at least two; they take turns.
        plan: how long.
        nodes: of this machine.

    Raises:
        TegrastatsError: tegrastats is missing, or says nothing that can be read.
        UsageError: a frame cannot be graded, so that nothing would be measured.
        FundusError: the bundle or the engine cannot be used, or answers otherwise than recorded.
    """
    bounds = nodes.gpu_bound_mhz(), nodes.cpu_bound_mhz(), nodes.clocks_pinned()
    with TegrastatsLog() as log, NodeWatch(nodes) as watch:
        rest = _rest("at rest", plan)
        with open_screener() as screener:
            golden = _require_golden(bundle, screener)
            for turn in range(_WARM_UP):
                _exam(screener, frames, turn)
            ready = _rest("waiting for photographs", plan)
            before = nodes.over_current()
            exams, load = _load(screener, frames, plan)
            after = nodes.over_current()
            engine = screener.engine
        time.sleep(5 * INTERVAL_MS / 1e3)  # for samples that reach over the end of the load
        samples = log.samples()
    return Recording(
        plan=plan,
        engine=engine,
        golden_pairs=golden,
        rest=rest,
        ready=ready,
        load=load,
        exams=exams,
        samples=samples,
        readings=tuple(watch.readings),
        gpu_bound_mhz=bounds[0],
        cpu_bound_mhz=bounds[1],
        clocks_pinned=bounds[2],
        events=_risen(before, after),
    )


def _require_golden(bundle: Bundle, screener: Screener) -> int | None:
    report = check_golden(bundle, screener=screener)
    if report is not None and not report.passed:
        raise EngineError(
            f"the engine answers {len(report.wrong)} of {report.pairs} golden pairs otherwise than "
            "recorded, so that its times would mean nothing; build the plans again, or take "
            "another precision"
        )
    return None if report is None else report.pairs


def _rest(what: str, plan: Plan) -> Stretch:
    time.sleep(min(_SETTLE_S, plan.rest_s))
    start = time.perf_counter()
    with _bar(what, plan.rest_s) as show:
        while (passed := time.perf_counter() - start) < plan.rest_s:
            time.sleep(min(_POLL_S, plan.rest_s - passed))
            show(passed)
    return Stretch(start, time.perf_counter())


def _load(
    screener: Screener, frames: Sequence[NDArray[np.uint8]], plan: Plan
) -> tuple[list[TimedExam], Stretch]:
    exams: list[TimedExam] = []
    start = time.perf_counter()
    with _bar("exams", plan.load_s) as show:
        for turn in count():
            exams.append(_exam(screener, frames, turn))
            show(passed := exams[-1].ended_s - start)
            if passed >= plan.load_s:
                break
    return exams, Stretch(start, exams[-1].ended_s)


def _exam(screener: Screener, frames: Sequence[NDArray[np.uint8]], turn: int) -> TimedExam:
    result, ms = ready_pair(screener, frames, turn)
    ended = time.perf_counter()
    if result.outcome == "ungradable":
        raise UsageError(
            f"an exam is ungradable ({result.left.reason or result.right.reason}): there is "
            "nothing to measure; give photographs that pass the gates, or leave --frames out"
        )
    stages = {
        stage: value
        for stage, value in result.time_ms.items()
        if value is not None and stage != _TOTAL
    }
    return TimedExam(ended, ms, stages)


@contextmanager
def _bar(what: str, seconds: float) -> Iterator[Callable[[float], None]]:
    """A progress bar of seconds; what it gives takes the seconds that have passed."""
    with tqdm(total=round(seconds), desc=what, unit="s", mininterval=1.0) as bar:

        def show(passed: float) -> None:
            step = min(int(passed), bar.total) - bar.n
            if step > 0:
                bar.update(step)

        yield show


def _risen(
    before: Mapping[str, int] | None, after: Mapping[str, int] | None
) -> dict[str, int] | None:
    if before is None or after is None:
        return None
    return {name: after[name] - before[name] for name in before if name in after}
