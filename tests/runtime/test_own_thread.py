from __future__ import annotations

import threading
import time

import pytest

from fundus_runtime.own_thread import OwnThread


def test_calls_run_on_one_thread_that_is_not_the_callers() -> None:
    started: list[int] = []
    own = OwnThread("test-own", lambda: started.append(threading.get_ident()))
    first, second = own.run(threading.get_ident), own.run(threading.get_ident)
    own.close()
    assert first == second != threading.get_ident()
    assert started == [first]


def test_what_a_call_raises_is_raised_to_the_caller() -> None:
    def fail() -> None:
        raise ValueError("from the call")

    own = OwnThread("test-own", lambda: None)
    with pytest.raises(ValueError, match="from the call"):
        own.run(fail)
    assert own.run(lambda: 3) == 3
    own.close()


def test_without_a_thread_to_be_had_calls_run_on_the_calling_one(monkeypatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    own = OwnThread("test-own", lambda: None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert own.run(threading.get_ident) == threading.get_ident()
    assert own.run(lambda: 3) == 3


def test_closing_leaves_no_thread_and_calls_still_run() -> None:
    before = set(threading.enumerate())
    own = OwnThread("test-own", lambda: None)
    own.run(lambda: None)
    own.close()
    assert set(threading.enumerate()) == before
    assert own.run(threading.get_ident) == threading.get_ident()


def test_an_interrupted_caller_leaves_no_call_behind(monkeypatch) -> None:
    ended = threading.Event()

    def slow() -> None:
        time.sleep(0.2)
        ended.set()

    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    own = OwnThread("test-own", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr("concurrent.futures.Future.result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            own.run(slow)
    assert ended.is_set()
    own.close()
