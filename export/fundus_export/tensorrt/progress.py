"""A sign of life during builds of many minutes, and a way to stop them.

TensorRT builds in a thread of its own, so that this one can show progress and hear Ctrl-C. Where
TensorRT reports progress (10 and later) there is a bar, and Ctrl-C ends the build at its next step;
elsewhere the elapsed time is shown, and Ctrl-C leaves a thread behind that ends with the process.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

__all__ = ["BuildProgress", "attach_monitor", "run_showing", "terminate_as_interrupt"]

T = TypeVar("T")

_POLL_SECONDS = 0.2
_STOP_SECONDS = 60.0


class BuildProgress:
    """What a build reported last; written by TensorRT's threads, read by the one that shows it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: list[str] = []
        self._steps: dict[str, tuple[int, int]] = {}
        self.cancelled = threading.Event()

    def start(self, phase: str, steps: int) -> None:
        """A phase begins, within those that have not ended."""
        with self._lock:
            self._phases.append(phase)
            self._steps[phase] = (0, steps)

    def step(self, phase: str, step: int) -> bool:
        """A step ended; False asks TensorRT to stop."""
        with self._lock:
            _, steps = self._steps.get(phase, (0, 0))
            self._steps[phase] = (step + 1, steps)
        return not self.cancelled.is_set()

    def finish(self, phase: str) -> None:
        """A phase ended."""
        with self._lock:
            if phase in self._phases:
                self._phases.remove(phase)
            self._steps.pop(phase, None)

    def outermost(self) -> tuple[int, int]:
        """Steps done and steps in all of the outermost phase; (0, 0) before there is one."""
        with self._lock:
            return self._steps[self._phases[0]] if self._phases else (0, 0)

    def innermost(self) -> str:
        """For people: the phase that runs now, with its steps."""
        with self._lock:
            if not self._phases:
                return ""
            phase = self._phases[-1]
            done, steps = self._steps[phase]
        return f"{phase} {done}/{steps}" if steps else phase


def attach_monitor(trt: Any, config: Any, progress: BuildProgress) -> Any:
    """Have TensorRT report to `progress`; keep what is returned until the build has ended."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # TensorRT ships no types
        """Passes TensorRT's calls on; an exception here would end the process."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def run_showing(what: str, action: Callable[[], T], progress: BuildProgress, *, stops: bool) -> T:
    """Run a build in a thread and show that it lives.

    Args:
        what: is being built, for the bar.
        action: the build.
        progress: what the monitor writes to.
        stops: whether the build ends soon after `progress.cancelled` is set.

    Returns:
        What the build returned.

    Raises:
        KeyboardInterrupt: Ctrl-C; the build has been stopped, or will not be waited for.
    """
    worker = _Worker(action)
    try:
        worker.start()
        with _bar(what) as bar:
            while not worker.ended.wait(_POLL_SECONDS):
                _show(bar, progress)
            _show(bar, progress)
    except KeyboardInterrupt:
        progress.cancelled.set()
        if stops:
            worker.ended.wait(_STOP_SECONDS)
        raise
    return worker.result()


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within the block SIGTERM ends the work as Ctrl-C does, so that nothing stays half-made."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Worker(threading.Thread, Generic[T]):
    """A thread with a result; a daemon, because TensorRT 8 cannot be stopped.

    It is waited for by `ended`: up to Python 3.12 `join` takes a thread for ended once Ctrl-C has
    interrupted it.
    """

    def __init__(self, action: Callable[[], T]) -> None:
        super().__init__(daemon=True, name="tensorrt-build")
        self.ended = threading.Event()
        self._action = action
        self._answer: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._answer.append(self._action())
        except BaseException as error:  # carried over to the thread that waits
            self._error = error
        finally:
            self.ended.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._answer[0]


def _bar(what: str) -> Any:
    from tqdm import tqdm

    # the total is the outermost phase's, which is not known before it begins
    return tqdm(desc=what, total=0, unit="step", dynamic_ncols=True, mininterval=1.0)


def _show(bar: Any, progress: BuildProgress) -> None:
    bar.n, bar.total = progress.outermost()
    bar.set_postfix_str(progress.innermost(), refresh=False)
    bar.refresh()
