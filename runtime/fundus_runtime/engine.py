"""A backend behind one lock and one background thread: what a screener computes with.

The engine's calls run one at a time, so that it never takes more threads than it was given,
whoever asks. `encode_later` returns at once and encodes on a thread of the screener's own, which
starts with the first such call; what waits for it is bounded by the exams that are open. Whatever a
backend raises comes out as `EngineError`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from fundus_runtime.backends.protocol import Backend, EncodedEyes, Float32Array
from fundus_runtime.errors import EngineError, ExamTimeoutError, FundusError
from fundus_runtime.labels import Eye

__all__ = ["Encoding", "Engine", "ms_since"]

_Answer = TypeVar("_Answer")


class Encoding:
    """One eye's way through the encoder; its owner looks once `on_done` was called.

    Args:
        tensor: float32 (3, S, S); let go of as soon as it is encoded.
        eye: which eye it shows.
        on_done: called from the background thread when there are features or an error.

    Attributes:
        encoded: features and logits of one eye, batch 1; None before, and after an error.
        error: why there are none.
        encode_ms: how long the encoder took.
    """

    def __init__(self, tensor: Float32Array, eye: Eye, on_done: Callable[[], None]) -> None:
        self.encoded: EncodedEyes | None = None
        self.error: FundusError | None = None
        self.encode_ms: float | None = None
        self._tensor: Float32Array | None = tensor
        self._eye = eye
        self._on_done: Callable[[], None] | None = on_done

    @property
    def done(self) -> bool:
        """Whether there are features or an error."""
        return self.encoded is not None or self.error is not None

    def run(self, engine: Engine) -> None:
        """Encode, and tell whoever waits."""
        tensor, self._tensor = self._tensor, None
        if tensor is None:
            return
        try:
            encoded, self.encode_ms = engine.encode(tensor[None], [self._eye])
            self.encoded = encoded
        except FundusError as error:
            self.error = error
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done()

    def cancel(self) -> None:
        """Nobody wants it any more: what has not begun never will, and nobody is told."""
        self._tensor = self._on_done = None


class Engine:
    """Runs one backend's calls one at a time; it owns the backend.

    Args:
        backend: the engine's own interface.
        on_thread: called once on the background thread, before it encodes.
    """

    def __init__(self, backend: Backend, *, on_thread: Callable[[], None] | None = None) -> None:
        self._backend = backend
        self._on_thread = on_thread
        self._one_at_a_time = threading.Lock()
        self._changing = threading.Lock()
        self._waiting: deque[Encoding] = deque()
        self._background: ThreadPoolExecutor | None = None
        self._draining = False
        self._closed = False

    def encode(self, images: Float32Array, eyes: Sequence[Eye]) -> tuple[EncodedEyes, float]:
        """Encode now, on the calling thread; also how many milliseconds the encoder took.

        Raises:
            EngineError: the engine failed.
        """
        with self._one_at_a_time:
            return _timed("encoder", lambda: self._backend.encode(images, eyes))

    def fuse(
        self,
        features: tuple[Float32Array, Float32Array],
        present: tuple[bool, bool],
        *,
        timeout: float | None = None,
    ) -> tuple[Float32Array, float]:
        """Logits (1, K) of one patient, and how many milliseconds the head took.

        Args:
            features: of the left and the right eye, (1, C, h, w) each.
            present: whether the left and the right eye take part.
            timeout: seconds to wait while the engine works for others.

        Raises:
            EngineError: the engine failed.
            ExamTimeoutError: it was busy for longer.
        """
        flags = [np.array([1.0 if flag else 0.0], np.float32) for flag in present]
        if not self._one_at_a_time.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
            raise ExamTimeoutError("the engine is busy with other exams; ask for the result again")
        try:
            return _timed("head", lambda: self._backend.fuse(*features, *flags))
        finally:
            self._one_at_a_time.release()

    def encode_later(self, tensor: Float32Array, eye: Eye, on_done: Callable[[], None]) -> Encoding:
        """Encode one eye on the background thread; see `Encoding`.

        Raises:
            EngineError: the engine is closed, or the system gives no thread.
        """
        encoding = Encoding(tensor, eye, on_done)
        with self._changing:
            if self._closed:
                raise EngineError("the engine is closed; open the screener again")
            if not self._draining:
                self._start_draining()
                self._draining = True
            self._waiting.append(encoding)
        return encoding

    def forget(self, encoding: Encoding) -> None:
        """Cancel an encoding and free what it holds, unless it is running already."""
        encoding.cancel()
        with self._changing:
            if encoding in self._waiting:
                self._waiting.remove(encoding)

    def close(self) -> None:
        """Drop what waits, let the running call end, free the backend. Twice is allowed."""
        with self._changing:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
            background, self._background = self._background, None
        for encoding in waiting:
            encoding.cancel()
        if background is not None:
            background.shutdown(wait=True)
        with self._one_at_a_time:
            self._backend.close()

    def _start_draining(self) -> None:
        # an executor's thread ends with the interpreter, also where nobody closed the screener
        if self._background is None:
            self._background = ThreadPoolExecutor(
                1, thread_name_prefix="fundus-encoder", initializer=self._on_thread
            )
        try:
            self._background.submit(self._drain)
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._background = None
            raise EngineError(
                f"no thread can be had to encode on ({error}); end threads that are not needed or "
                "raise this process's limit, then give the photograph again"
            ) from error

    def _drain(self) -> None:
        while True:
            with self._changing:
                if not self._waiting:
                    self._draining = False
                    return
                encoding = self._waiting.popleft()
            encoding.run(self)


def ms_since(start: float) -> float:
    """Milliseconds since a reading of `time.perf_counter`."""
    return (time.perf_counter() - start) * 1e3


def _timed(graph: str, call: Callable[[], _Answer]) -> tuple[_Answer, float]:
    start = time.perf_counter()
    try:
        answer = call()
    except FundusError:
        raise
    except Exception as error:  # a driver's exceptions share no public base
        raise EngineError(
            f"the engine died in the {graph} ({type(error).__name__}: {error}); there is no result "
            "of this exam: repeat it, and open the screener again if that fails too"
        ) from error
    return answer, ms_since(start)
