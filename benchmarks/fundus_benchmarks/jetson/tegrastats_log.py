"""`tegrastats` in the background: every line with the moment at which it was read.

Moments are those of `time.perf_counter`, by which exams are timed too; the date in a line is too
coarse to join them. Lines are kept as they come and understood afterwards, so that reading them
takes next to nothing from what is measured.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from fundus_benchmarks.jetson.tegrastats import TegraSample, TegrastatsError, parse_line

__all__ = ["INTERVAL_MS", "Sampled", "TegrastatsLog"]

PROGRAM = "tegrastats"
INTERVAL_MS = 100
_FIRST_LINE_S = 5.0
_STOP_S = 2.0


@dataclass(frozen=True)
class Sampled:
    """A line and when it came.

    Attributes:
        at_s: by `time.perf_counter`.
        sample: what it says.
    """

    at_s: float
    sample: TegraSample


class TegrastatsLog:
    """Runs tegrastats while it is open; use it in a `with`.

    Args:
        interval_ms: between two lines.
    """

    def __init__(self, interval_ms: int = INTERVAL_MS) -> None:
        self._interval_ms = interval_ms
        self._lines: list[tuple[float, str]] = []
        self._came = threading.Event()

    def __enter__(self) -> TegrastatsLog:
        program = shutil.which(PROGRAM)
        if program is None:
            raise TegrastatsError(f"there is no {PROGRAM} on the path; JetPack brings it")
        words = [program, "--interval", str(self._interval_ms)]
        try:
            self._process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            raise TegrastatsError(f"{program} cannot be started: {error.strerror}") from error
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name="tegrastats", daemon=True
        )
        self._reader.start()
        try:
            self._require_a_line()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def samples(self) -> list[Sampled]:
        """The lines so far, in order; what is no line of tegrastats is left out."""
        found = []
        for at_s, line in list(self._lines):
            try:
                found.append(Sampled(at_s, parse_line(line)))
            except TegrastatsError:
                continue
        return found

    def _read(self, lines: IO[bytes]) -> None:
        for line in lines:
            self._lines.append((time.perf_counter(), line.decode("utf-8", "replace")))
            self._came.set()

    def _require_a_line(self) -> None:
        """Wait for the first line that can be read, so that nothing is measured without any."""
        end = time.perf_counter() + _FIRST_LINE_S
        while not self.samples():
            self._came.clear()
            left = end - time.perf_counter()
            if left <= 0 or (self._process.poll() is not None and not self._reader.is_alive()):
                said = "".join(line for _, line in self._lines).strip()[:200]
                raise TegrastatsError(
                    f"{PROGRAM} gave no line that can be read within {_FIRST_LINE_S:.0f} s, it "
                    f"said {said!r}; see what `{PROGRAM} --interval 1000` prints here"
                )
            self._came.wait(min(left, 0.1))

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_STOP_S)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
