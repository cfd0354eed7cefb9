"""Two calls at the same time, each on a thread of our own that keeps to a CPU of its own.

What is made of both answers is made on the first one's thread. The threads start with the first
calls and sleep between them. While they are at work for another caller, and where there are none,
the calls run one after the other on the calling thread: slower, and the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Lock
from typing import Any, TypeVar

from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.own_thread import OwnThread

__all__ = ["SideBySide"]

_First = TypeVar("_First")
_Second = TypeVar("_Second")
_Answer = TypeVar("_Answer")


class SideBySide:
    """Runs two calls at a time, and a third on what they answer.

    Args:
        name: of the threads.
        settings: whose budget of threads and CPUs they take, whatever the engine runs on; with
            one thread there are none.
    """

    def __init__(self, name: str, settings: EngineSettings) -> None:
        self._free = Lock()
        self._threads: tuple[OwnThread, ...] = ()
        if settings.thread_count > 1:
            own = settings.with_own_cpus()
            self._threads = (
                OwnThread(f"{name}-0", own.pin_calling_thread),
                OwnThread(f"{name}-1", lambda: own.pin_calling_thread(1)),
            )

    def run(
        self,
        first: Callable[[], _First],
        second: Callable[[], _Second],
        then: Callable[[_First, _Second], _Answer],
    ) -> _Answer:
        """What `then` makes of both answers, on the first one's thread.

        All have ended when this returns; the first one's error goes first. Where the wait is
        interrupted, `then` is not begun any more.
        """
        if not self._threads or not self._free.acquire(blocking=False):
            return then(first(), second())
        begun: list[Future[Any]] = []
        wanted = True

        def first_and_then() -> _Answer | None:
            one, other = first(), begun[0].result()
            return then(one, other) if wanted else None

        try:
            begun.append(self._threads[1].begin(second))
            begun.append(self._threads[0].begin(first_and_then))
            answer: _Answer = begun[1].result()
            return answer
        finally:
            wanted = False
            try:
                wait(begun)
            finally:
                # an interrupt may have ended the wait: the threads are free once they really are
                _when_done(begun, self._free.release)

    def close(self) -> None:
        """End the threads after what they have begun; later calls run on the calling thread."""
        for thread in self._threads:
            thread.close()


def _when_done(calls: list[Future[Any]], then: Callable[[], None]) -> None:
    """Forget these calls and go on, when all have ended; now, where they have."""
    every = tuple(calls)
    left = [len(every)]
    counting = Lock()

    def one_is_done(_: Future[Any]) -> None:
        with counting:
            left[0] -= 1
            last = left[0] == 0
        if last:
            calls.clear()  # an error must not keep what the calls worked on
            then()

    if not every:
        then()
    for call in every:
        call.add_done_callback(one_is_done)
