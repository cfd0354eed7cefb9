"""A thread of our own for calls that someone waits for: it may be kept on a CPU, a caller's not.

It starts with the first call and sleeps between them. Where the system gives no thread, and in a
process that was forked off, calls run on the calling one: slower perhaps, and the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import TypeVar

__all__ = ["OwnThread"]

_Value = TypeVar("_Value")


class OwnThread:
    """Runs one call at a time.

    Args:
        name: of the thread.
        on_start: called on the thread when it starts.
    """

    def __init__(self, name: str, on_start: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=on_start)
        self._one_at_a_time = Lock()
        self._process = os.getpid()

    def begin(self, call: Callable[[], _Value]) -> Future[_Value]:
        """Start a call that its caller waits for before beginning another one."""
        if os.getpid() != self._process:  # threads stay behind
            return _done(call)
        try:
            return self._executor.submit(call)
        except RuntimeError:  # no more threads, or closed
            self._executor.shutdown(cancel_futures=True)
            return _done(call)

    def run(self, call: Callable[[], _Value]) -> _Value:
        """What a call returns, or raises; it has ended when this returns, however that is."""
        with self._one_at_a_time:
            running = self.begin(call)
            try:
                return running.result()
            finally:
                # an interrupted wait must not leave the call behind with what its caller owns
                wait((running,))
                del running  # an error must not keep what the call worked on

    def close(self) -> None:
        """End the thread after what it has begun; later calls run on the calling thread."""
        self._executor.shutdown()


def _done(call: Callable[[], _Value]) -> Future[_Value]:
    future: Future[_Value] = Future()
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
    try:
        return future
    finally:
        del future  # which holds the error that holds this frame
