"""Exams in time: limits, timeouts, several threads, and closing at any point."""

from __future__ import annotations

import gc
import os
import threading
from contextlib import ExitStack

import pytest
from exam_tools import LONG_S, Hindered, examined, in_background, wait_until, without_times

from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import (
    EngineError,
    ExamClosedError,
    ExamEyeError,
    ExamLimitError,
    ExamTimeoutError,
    UsageError,
)
from fundus_runtime.labels import EYES
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import DEFAULT_MAX_OPEN_EXAMS, Screener


def test_result_that_takes_too_long_may_be_asked_for_again(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
        exam.declare_absent("right")
        for timeout in (-1.0, 0.0, 0.05):
            with pytest.raises(ExamTimeoutError, match="ask again") as caught:
                exam.result(timeout)
            assert isinstance(caught.value, TimeoutError)
        with pytest.raises(UsageError, match="not a number"):
            exam.result(float("nan"))
        backend.held.set()
        assert exam.result(float("inf")).findings == ("D",)


def test_engine_that_is_busy_with_another_exam_is_a_timeout_too(hindered, draw) -> None:
    screener, backend = hindered
    with screener.begin() as exam, screener.begin() as other:
        exam.add("left", draw("D"), color="rgb")
        exam.declare_absent("right")
        wait_until(lambda: backend.encoded == [("left",)])
        backend.held = threading.Event()
        other.add("left", draw("D"), color="rgb")
        assert backend.began.wait(LONG_S)
        wait_until(lambda: screener._engine._one_at_a_time.locked())
        with pytest.raises(ExamTimeoutError):
            exam.result(0.05)
        backend.held.set()
        assert exam.result(LONG_S).findings == ("D",)


def test_cancelled_exam_frees_who_waits_for_it(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    exam = screener.begin()
    exam.add("left", draw("D"), color="rgb")
    exam.add("right", draw("D", seed=1), color="rgb")
    raised = in_background(lambda: exam.result(LONG_S))
    exam.cancel()
    exam.cancel()
    assert isinstance(raised(), ExamClosedError)
    for refused in (lambda: exam.add("left", draw("D"), color="rgb"), exam.result):
        with pytest.raises(ExamClosedError, match="was cancelled; begin another one"):
            refused()
    assert exam.verdict("left") is None
    backend.held.set()
    assert examined(screener, draw("D"), None).findings == ("D",)
    # what had not begun when the exam was cancelled never ran
    assert ("right",) not in backend.encoded


def test_leaving_the_exam_ends_it(screener, draw) -> None:
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
    with pytest.raises(ExamClosedError):
        exam.result()


def test_open_exams_are_bounded_and_forgotten_ones_do_not_count(shared_bundle, draw) -> None:
    with Screener.open(shared_bundle, threads=1, max_open_exams=2) as opened:
        first, second = opened.begin(), opened.begin()
        with pytest.raises(ExamLimitError, match="2 exams are open, which is the limit"):
            opened.begin()
        second.cancel()
        second = opened.begin()
        del second
        gc.collect()
        for _ in range(5):
            assert examined(opened, draw("D"), None).findings == ("D",)
        assert first.declare_absent("left").status == "absent"
    with pytest.raises(UsageError, match="max_open_exams"):
        Screener.open(shared_bundle, max_open_exams=0)


def test_what_waits_for_the_engine_is_bounded(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
        exam.add("right", draw("D", seed=1), color="rgb")
        for seed in range(2, 30):
            exam.replace("right", draw("D", seed=seed), color="rgb")
        assert len(screener._engine._waiting) <= 2
        backend.held.set()
        result = exam.result(LONG_S)
    assert backend.encoded == [("left",), ("right",)]
    expected = screener.screen(draw("D"), draw("D", seed=29), color="rgb")
    assert without_times(result) == without_times(expected)


def test_closing_the_screener_ends_its_exams_at_any_point(shared_bundle, draw) -> None:
    screener = Screener.open(shared_bundle, threads=1)
    fresh, begun, waiting = screener.begin(), screener.begin(), screener.begin()
    begun.add("left", draw("D"), color="rgb")
    done = screener.begin()
    done.declare_absent("left")
    done.declare_absent("right")
    kept = done.result()
    for eye in EYES:
        waiting.add(eye, draw("D", seed=len(eye)), color="rgb")
    screener.close()
    screener.close()
    for exam in (fresh, begun, waiting):
        with pytest.raises(ExamClosedError, match="lost its screener, which was closed"):
            exam.result()
    assert done.result() is kept
    with pytest.raises(ExamClosedError, match="the screener is closed; open it again"):
        screener.begin()
    with pytest.raises(EngineError, match="closed"):
        screener.screen(draw("D"), None, color="rgb")


def test_closing_waits_for_the_eye_that_is_being_encoded(hindered, draw) -> None:
    screener, backend = hindered
    before = set(threading.enumerate())
    backend.held = threading.Event()
    exam = screener.begin()
    exam.add("left", draw("D"), color="rgb")
    exam.add("right", draw("D", seed=1), color="rgb")
    assert backend.began.wait(LONG_S)
    raised = in_background(lambda: exam.result(LONG_S))
    closing = threading.Thread(target=screener.close)
    closing.start()
    assert isinstance(raised(), ExamClosedError)
    assert closing.is_alive()
    backend.held.set()
    closing.join(LONG_S)
    assert not closing.is_alive()
    assert backend.encoded == [("left",)]
    assert set(threading.enumerate()) <= before


def test_threads_share_a_screener_and_each_gets_its_own_patient(screener, draw) -> None:
    frames = {says: (draw(says, seed=1), draw(says, seed=2)) for says in ("D", "N", "uncertain")}
    expected = {
        says: without_times(screener.screen(*pair, color="rgb")) for says, pair in frames.items()
    }
    wrong: list[str] = []

    def work(says: str, by_pair: bool) -> None:
        for _ in range(10):
            left, right = frames[says]
            if by_pair:
                result = screener.screen(left, right, color="rgb")
            else:
                result = examined(screener, left, right)
            if without_times(result) != expected[says]:
                wrong.append(says)

    jobs = [(says, by_pair) for says in frames for by_pair in (True, False)]
    assert len(jobs) <= DEFAULT_MAX_OPEN_EXAMS
    workers = [threading.Thread(target=work, args=job) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LONG_S)
    assert not wrong


def test_both_eyes_may_be_added_by_two_threads_at_once(screener, draw) -> None:
    frames = {"left": draw("D", seed=1), "right": draw("N", seed=2)}
    expected = without_times(screener.screen(**frames, color="rgb"))
    for _ in range(10):
        with screener.begin() as exam:
            adding = [
                in_background(lambda eye=eye: exam.add(eye, frames[eye], color="rgb"))
                for eye in EYES
            ]
            assert all(wait().usable for wait in adding)
            assert without_times(exam.result(LONG_S)) == expected


def test_of_two_threads_with_the_same_eye_one_is_told(screener, draw) -> None:
    for _ in range(10):
        with screener.begin() as exam:
            adding = [
                in_background(lambda seed=seed: exam.add("left", draw("D", seed=seed), color="rgb"))
                for seed in (1, 2)
            ]
            answers = [wait() for wait in adding]
            told = [answer for answer in answers if isinstance(answer, ExamEyeError)]
            assert len(told) == 1


def test_two_threads_that_ask_get_one_and_the_same_result(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
        exam.declare_absent("right")
        asking = [in_background(lambda: exam.result(LONG_S)) for _ in range(3)]
        backend.held.set()
        answers = [wait() for wait in asking]
    assert all(isinstance(answer, ExamResult) for answer in answers)
    assert len({id(answer) for answer in answers}) == 1


@pytest.fixture
def on_cpus(shared_bundle):
    """A screener with these settings around an engine that says where it was called."""
    with ExitStack() as stack:

        def make(settings: EngineSettings) -> tuple[Screener, Hindered]:
            bundle = Bundle.open(shared_bundle)
            graphs = bundle.manifest.graphs_for("cpu")
            real = OnnxRuntimeBackend(
                *bundle.graph_bytes(graphs), size=64, class_count=8, threads=1
            )
            backend = Hindered(real)
            point = bundle.manifest.operating_points.get()
            screener = Screener(bundle, backend, graphs, point, settings=settings)
            return stack.enter_context(screener), backend

        yield make


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_the_encoding_thread_keeps_to_its_cpu_and_the_callers_are_left_alone(on_cpus, draw) -> None:
    allowed = os.sched_getaffinity(0)
    first = min(allowed)
    opened, backend = on_cpus(EngineSettings(affinity=(first,)))
    assert examined(opened, draw("D"), None).findings == ("D",)
    assert backend.cpus == [{first}]
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs and a system that tells them apart",
)
def test_with_a_thread_for_each_cpu_exams_and_pairs_encode_on_the_first(on_cpus, draw) -> None:
    allowed = os.sched_getaffinity(0)
    opened, backend = on_cpus(EngineSettings(threads=len(allowed)))
    prepared: list[tuple[str, int]] = []
    prepare = opened._preparer.frame

    def recorded(eye, *args, **options):
        prepared.append((eye, threading.get_ident()))
        return prepare(eye, *args, **options)

    opened._preparer.frame = recorded
    assert examined(opened, draw("D"), None).findings == ("D",)
    prepared.clear()
    assert opened.screen(draw("D"), draw("D", seed=1), color="rgb").findings == ("D",)
    assert backend.cpus == [{min(allowed)}] * 2
    # the thread that prepared the left eye went on with both
    assert backend.threads_seen[-1] == dict(prepared)["left"] != threading.get_ident()
    assert os.sched_getaffinity(0) == allowed
