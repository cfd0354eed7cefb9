"""Runs a command in a fresh process: how long it took, and its peak resident memory.

Linux counts, as the peak of a child, also what its parent held when it started it. The command is
therefore started by a small process of its own, this file run as a script, and not by the caller,
which may hold gigabytes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MeasuredRun", "run_measured"]

# What getrusage counts in: kilobytes, on macOS bytes.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class MeasuredRun:
    """What a command needed.

    Attributes:
        wall_s: from its start to its end.
        peak_mb: its peak resident memory, 10^6 bytes.
        output: what it wrote to standard output.
    """

    wall_s: float
    peak_mb: float
    output: str


def run_measured(words: Sequence[str], *, timeout_s: float) -> MeasuredRun:
    """Run a command to its end.

    Args:
        words: program and arguments.
        timeout_s: how long it may take; then it is killed.

    Raises:
        RuntimeError: it failed, or took longer.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found.json")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(found), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the command itself can be killed, too
        )
        try:
            output, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{words[0]} took longer than {timeout_s:g} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode != 0:
            raise RuntimeError(
                f"{words[0]} ended with status {process.returncode}: {said.strip()[-500:]}"
            )
        return MeasuredRun(**json.loads(found.read_text()), output=output)


def main(argv: Sequence[str]) -> int:
    """Start the command, wait, write what it needed to the file named first."""
    found, *words = argv
    start = time.monotonic()
    child = os.spawnvp(os.P_NOWAIT, words[0], words)
    _, status, usage = os.wait4(child, 0)
    wall_s = time.monotonic() - start
    peak_mb = usage.ru_maxrss * _MAXRSS_BYTES / 1e6
    Path(found).write_text(json.dumps({"wall_s": wall_s, "peak_mb": peak_mb}))
    # a status beyond 255 would come out as another one
    return min(abs(os.waitstatus_to_exitcode(status)), 255)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
