from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from concurrent.futures import Future

import pytest

from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.side_by_side import SideBySide

TWO = EngineSettings(threads=2)


def as_pair(first, second):
    return first, second


@pytest.fixture
def both():
    both = SideBySide("test", TWO)
    yield both
    both.close()


def test_calls_meet_each_other_on_threads_that_are_not_the_callers(both) -> None:
    meeting = threading.Barrier(2)

    def meet() -> int:
        meeting.wait(timeout=10)  # broken, and an error, unless both are there at a time
        return threading.get_ident()

    first, second = both.run(meet, meet, as_pair)
    assert len({first, second, threading.get_ident()}) == 3
    assert both.run(threading.get_ident, threading.get_ident, as_pair) == (first, second)


def test_what_is_made_of_both_answers_is_made_on_the_first_ones_thread(both) -> None:
    def made(first: int, second: int) -> tuple[int, int, int]:
        return first, second, threading.get_ident()

    first, second, third = both.run(threading.get_ident, threading.get_ident, made)
    assert first == third != second


def test_an_error_in_what_is_made_of_them_is_raised_and_the_threads_are_free(both) -> None:
    def fail(first: int, second: int) -> None:
        raise ValueError(f"nothing to be made of {first} and {second}")

    with pytest.raises(ValueError, match="of 1 and 2"):
        both.run(lambda: 1, lambda: 2, fail)
    assert threading.get_ident() not in both.run(threading.get_ident, threading.get_ident, as_pair)


def test_with_one_thread_calls_run_on_the_calling_one() -> None:
    alone = SideBySide("test", EngineSettings(threads=1))
    here = threading.get_ident()
    assert alone.run(threading.get_ident, threading.get_ident, as_pair) == (here, here)
    alone.close()


def test_while_the_threads_work_for_another_caller_this_one_works_itself(both) -> None:
    working, go_on = threading.Event(), threading.Event()

    def busy() -> None:
        working.set()
        assert go_on.wait(timeout=10)

    other = threading.Thread(target=lambda: both.run(busy, lambda: None, as_pair))
    other.start()
    try:
        assert working.wait(timeout=10)
        here = threading.get_ident()
        assert both.run(threading.get_ident, threading.get_ident, as_pair) == (here, here)
    finally:
        go_on.set()
        other.join()
    assert here not in both.run(threading.get_ident, threading.get_ident, as_pair)


@pytest.mark.parametrize("failing", [(0,), (1,), (0, 1)])
def test_the_first_error_is_raised_once_both_have_ended(both, failing) -> None:
    ended = []

    def call(number: int) -> int:
        time.sleep(0.05 * number)
        ended.append(number)
        if number in failing:
            raise ValueError(f"call {number}")
        return number

    with pytest.raises(ValueError, match=f"call {failing[0]}"):
        both.run(lambda: call(0), lambda: call(1), as_pair)
    assert sorted(ended) == [0, 1]
    assert both.run(lambda: 3, lambda: "four", as_pair) == (3, "four")


def test_without_threads_to_be_had_calls_run_on_the_calling_one(both, monkeypatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    here = threading.get_ident()
    assert both.run(threading.get_ident, threading.get_ident, as_pair) == (here, here)


def test_closing_leaves_no_thread_and_calls_still_run() -> None:
    before = set(threading.enumerate())
    both = SideBySide("test", TWO)
    both.run(lambda: None, lambda: None, as_pair)
    assert len(set(threading.enumerate()) - before) == 2
    both.close()
    assert set(threading.enumerate()) == before
    here = threading.get_ident()
    assert both.run(threading.get_ident, threading.get_ident, as_pair) == (here, here)


class Photograph:
    """Something large that a call works on."""


def calls_on(photograph: Photograph, failing: int):
    def fail(*answers) -> None:
        raise ValueError(f"cannot use {photograph!r}")

    calls = [lambda: photograph, lambda: photograph, as_pair]
    calls[failing] = fail
    return calls


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("closed", [False, True])
def test_an_error_keeps_nothing_that_the_calls_worked_on(both, closed, failing) -> None:
    if closed:
        both.close()
    photograph = Photograph()
    seen, calls = weakref.ref(photograph), calls_on(photograph, failing)
    del photograph
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError, match="cannot use"):
            both.run(*calls)
        del calls
        assert seen() is None
    finally:
        gc.enable()


def test_after_two_interrupts_the_threads_are_free_once_their_calls_have_ended(
    both, monkeypatch
) -> None:
    go_on = threading.Event()

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    def slow() -> None:
        assert go_on.wait(timeout=10)

    here = threading.get_ident()
    with monkeypatch.context() as patch:
        patch.setattr("concurrent.futures.Future.result", interrupted)
        patch.setattr("fundus_runtime.side_by_side.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            both.run(slow, slow, as_pair)
    # both still work: nothing may be begun on their threads
    assert both.run(threading.get_ident, threading.get_ident, as_pair) == (here, here)
    go_on.set()
    deadline = time.monotonic() + 10
    while here in both.run(threading.get_ident, threading.get_ident, as_pair):
        assert time.monotonic() < deadline


def test_an_interrupted_caller_waits_for_both_and_nothing_is_made_of_them(
    both, monkeypatch
) -> None:
    go_on, ended, made = threading.Event(), [], []

    def interrupted(*args, **options):
        go_on.set()
        raise KeyboardInterrupt

    def slow() -> int:
        assert go_on.wait(timeout=10)
        time.sleep(0.05)
        ended.append(threading.get_ident())
        return 1

    caller, result = threading.get_ident(), Future.result

    def of_the_caller_alone(self, *args, **options):
        return (interrupted if threading.get_ident() == caller else result)(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("concurrent.futures.Future.result", of_the_caller_alone)
        with pytest.raises(KeyboardInterrupt):
            both.run(slow, slow, lambda first, second: made.append((first, second)))
        assert len(ended) == 2
    assert made == []
    assert both.run(lambda: 3, lambda: 4, as_pair) == (3, 4)


def test_closing_waits_for_what_was_begun(both) -> None:
    working, ended = threading.Event(), threading.Event()

    def slow() -> int:
        working.set()
        time.sleep(0.1)
        ended.set()
        return 7

    answers: list[tuple[int, int]] = []
    caller = threading.Thread(target=lambda: answers.append(both.run(slow, lambda: 8, as_pair)))
    caller.start()
    assert working.wait(timeout=10)
    both.close()
    assert ended.is_set()
    caller.join(timeout=10)
    assert answers == [(7, 8)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_forked_process_calls_run_on_the_calling_thread(both) -> None:
    both.run(lambda: None, lambda: None, as_pair)
    child = os.fork()
    if child == 0:
        here = threading.get_ident()
        alike = both.run(threading.get_ident, threading.get_ident, as_pair) == (here, here)
        os._exit(0 if alike else 1)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waits for a thread that it does not have")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs and a system that tells them apart",
)
def test_each_thread_keeps_to_a_cpu_of_its_own_and_the_caller_to_none() -> None:
    allowed = os.sched_getaffinity(0)
    cpus = tuple(sorted(allowed))[:2]
    both = SideBySide("test", EngineSettings(affinity=cpus))
    first, second = both.run(
        lambda: os.sched_getaffinity(0), lambda: os.sched_getaffinity(0), as_pair
    )
    both.close()
    assert (first, second) == ({cpus[0]}, {cpus[1]})
    assert os.sched_getaffinity(0) == allowed
