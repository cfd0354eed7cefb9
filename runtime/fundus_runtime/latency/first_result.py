"""From process start to the first result: a fresh interpreter, everything included.

`measure_first_result` starts `python -m fundus_runtime.latency.first_result`, which imports, opens
and verifies the bundle, screens one pair and says when it had the result. Both processes read the
same monotonic clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.errors import EngineError
from fundus_runtime.latency.subject import Subject

__all__ = ["FirstResult", "main", "measure_first_result"]

_SECONDS = 300


@dataclass(frozen=True)
class FirstResult:
    """What a fresh process needed.

    Attributes:
        first_result_ms: from its start to the first result.
        peak_mb: its peak resident memory after that, 10^6 bytes, the two frames included.
    """

    first_result_ms: float
    peak_mb: float


def measure_first_result(
    subject: Subject, left: NDArray[np.uint8], right: NDArray[np.uint8]
) -> FirstResult:
    """Screen one pair in a fresh process.

    Args:
        subject: the bundle and its engine.
        left: uint8 RGB (height, width, 3).
        right: likewise.

    Raises:
        EngineError: the process failed, refused an eye, or took longer than five minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, f"{name}.npy")) for name in ("left", "right")]
        for path, frame in zip(paths, (left, right), strict=True):
            np.save(path, frame)
        module = "fundus_runtime.latency.first_result"
        words = [*paths, subject.to_json()]
        start = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, *words],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"a fresh process gave no result within {_SECONDS} s; see with "
                "`fundus-screen demo` what it waits for"
            ) from error
    if done.returncode != 0:
        raise EngineError(f"a fresh process gave no result: {done.stderr.strip()[-500:]}")
    answer = json.loads(done.stdout)
    if answer["refused"]:
        raise EngineError(
            f"a fresh process graded only some eyes ({', '.join(answer['refused'])}): there is "
            "nothing to measure; give photographs that pass the gates"
        )
    return FirstResult(1e3 * (answer["monotonic_s"] - start), answer["peak_mb"])


def main(argv: Sequence[str]) -> int:
    """The fresh process: two .npy files, and a subject in JSON."""
    left, right, subject = argv
    with Subject.from_json(subject).open() as screener:
        result = screener.screen(np.load(left), np.load(right), color="rgb")
        finished = time.monotonic()
        from fundus_runtime.latency.machine import memory_mb

        refused = [
            f"{eye.eye} {eye.reason}" for eye in (result.left, result.right) if eye.status != "ok"
        ]
        answer = {"monotonic_s": finished, "peak_mb": memory_mb()["peak"], "refused": refused}
        print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
