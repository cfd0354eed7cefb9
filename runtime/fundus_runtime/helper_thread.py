"""One more thread for a moment: half of a short piece of work beside the other half.

The thread starts with the first piece and sleeps between them. Where the system gives no thread,
the work is done at once on the calling thread: slower, and the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["HelperThread"]

_Value = TypeVar("_Value")


class HelperThread:
    """Works on one piece at a time, in the order in which they came.

    Args:
        name: of the thread.
        on_start: called on the thread when it starts.
    """

    def __init__(self, name: str, on_start: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=on_start)

    def begin(self, call: Callable[[], _Value]) -> Future[_Value]:
        """Start a call; wait for it with `result()`, which also raises what it raised."""
        try:
            return self._executor.submit(call)
        except RuntimeError:  # no more threads, or closed
            self._executor.shutdown(cancel_futures=True)  # what was queued is done here instead
            return _done(call)

    def close(self) -> None:
        """End the thread after what it has begun; later calls run on the calling thread."""
        self._executor.shutdown()


def _done(call: Callable[[], _Value]) -> Future[_Value]:
    future: Future[_Value] = Future()
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
    return future
