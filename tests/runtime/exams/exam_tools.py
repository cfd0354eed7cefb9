"""What the tests of exams share: an engine that can be hindered, threads that report back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.errors import FundusError
from fundus_runtime.labels import EYES
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import Screener

LONG_S = 60.0
BLACK = np.zeros((200, 200, 3), np.uint8)


@dataclass
class Hindered:
    """The real engine, which a test can hold up, make fail, or make answer NaN."""

    real: OnnxRuntimeBackend
    failures: list[Exception] = field(default_factory=list)
    held: threading.Event | None = None
    began: threading.Event = field(default_factory=threading.Event)
    encoded: list[tuple[str, ...]] = field(default_factory=list)
    cpus: list[set[int]] = field(default_factory=list)
    threads_seen: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def encode(self, images: Any, eyes: Any) -> Any:
        self.began.set()
        if self.held is not None:
            assert self.held.wait(LONG_S)
        if self.failures:
            raise self.failures.pop(0)
        answer = self.real.encode(images, eyes)
        self.encoded.append(tuple(eyes))
        self.threads_seen.append(threading.get_ident())
        self.cpus.append(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set())
        return answer


def without_times(result: ExamResult) -> dict[str, Any]:
    values = result.to_dict()
    del values["time_ms"]
    return values


def examined(screener: Screener, left: Any, right: Any, *, order: Any = EYES) -> ExamResult:
    frames = {"left": left, "right": right}
    with screener.begin() as exam:
        for eye in order:
            if frames[eye] is None:
                exam.declare_absent(eye)
            else:
                exam.add(eye, frames[eye], color="rgb")
        return exam.result(LONG_S)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_background(call: Callable[[], Any]) -> Callable[[], Any]:
    """Start a call on a thread; the answer waits for what it returned or raised on purpose."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(call())
        except FundusError as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> Any:
        thread.join(LONG_S)
        assert answers, "the call did not return"
        return answers[0]

    return wait
