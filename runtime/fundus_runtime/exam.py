"""`Exam`: one patient, eye by eye, so that the second eye waits for half.

`add` preprocesses and judges a photograph at once and encodes it in the background while the robot
moves to the other eye; `replace` does the same for a retake, and the other eye keeps its features.
`result` waits for what is still being encoded and runs the head. The frame is free again when `add`
returns. Several threads may share an exam; its result depends on the photographs alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.engine import Engine, ms_since
from fundus_runtime.errors import (
    ExamClosedError,
    ExamTimeoutError,
    UsageError,
)
from fundus_runtime.exam_eye import ExamEye
from fundus_runtime.gates import GateFigure
from fundus_runtime.grader import EncodedEye, Grader, conclude
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.prepared import PreparedEye
from fundus_runtime.preparer import ColorOrder, EyePreparer
from fundus_runtime.result import ExamResult
from fundus_runtime.verdict import EyeVerdict

__all__ = ["Exam"]


class Exam:
    """One patient's exam; `Screener.begin` makes it. Close it, or use it in a `with`.

    Args:
        preparer: of the screener.
        engine: of the screener.
        grader: of the screener.
        on_end: called once, when the exam needs nothing of the screener any more.
    """

    def __init__(
        self,
        preparer: EyePreparer,
        engine: Engine,
        grader: Grader,
        on_end: Callable[[Exam], None],
    ) -> None:
        self._preparer = preparer
        self._engine = engine
        self._grader = grader
        self._on_end = on_end
        self._change = threading.Condition()
        self._eyes: dict[Eye, ExamEye] = {eye: ExamEye(eye) for eye in EYES}
        self._ended: str | None = None
        self._finishing = False
        self._likeness: GateFigure | None = None
        self._result: ExamResult | None = None
        self._waited_ms: float | None = None

    def add(self, eye: Eye, frame: NDArray[np.uint8], *, color: ColorOrder) -> EyeVerdict:
        """Give an eye's photograph: preprocessed and judged now, encoded in the background.

        Args:
            eye: `left` or `right`.
            frame: uint8 (height, width, 3); the caller's again when this returns.
            color: its channel order, `rgb` or `bgr`.

        Returns:
            Whether the photograph can be used; where it cannot, why, and what to do.

        Raises:
            ExamEyeError: this eye has a photograph already, or was declared absent.
            ExamClosedError: the exam has ended.
            ImageError: the array is not a frame, or too large; the exam is as before.
            EngineError: the engine cannot take it; the exam is as before.
        """
        return self._take(eye, frame, color, again=False)

    def replace(self, eye: Eye, frame: NDArray[np.uint8], *, color: ColorOrder) -> EyeVerdict:
        """Give a retake, which takes the place of what `add` was given; see there.

        Raises:
            ExamEyeError: there is nothing to replace.
            ExamClosedError: the exam has ended.
            ImageError: the array is not a frame, or too large; the exam is as before.
            EngineError: the engine cannot take it; the exam is as before.
        """
        return self._take(eye, frame, color, again=True)

    def declare_absent(self, eye: Eye) -> EyeVerdict:
        """State that there will be no photograph of an eye; such an exam is never normal.

        Raises:
            ExamEyeError: the eye has a photograph, or was declared absent already.
            ExamClosedError: the exam has ended.
        """
        with self._change:
            place = self._free_place(eye, again=False)
            place.prepared = self._preparer.absent(eye)
            self._change.notify_all()
            return place.prepared.verdict()

    def verdict(self, eye: Eye) -> EyeVerdict | None:
        """What holds of an eye now; None before it was added and after the exam's end."""
        with self._change:
            place = self._place(eye)
            return None if place.prepared is None else place.judged().verdict()

    def result(self, timeout: float | None = None) -> ExamResult:
        """Wait for both eyes' features and grade the patient; the same again when asked again.

        Args:
            timeout: seconds to wait at most; None for as long as it takes. The head, once it runs,
                is not interrupted.

        Raises:
            ExamIncompleteError: an eye is neither photographed nor declared absent.
            ExamTimeoutError: it took longer; ask again.
            ExamClosedError: the exam was cancelled, or its screener closed.
            EngineError: the engine failed. `replace` the eye that it failed on, or cancel.
        """
        if timeout is not None and math.isnan(timeout):
            raise UsageError("the timeout is not a number; give seconds, or None")
        start = time.perf_counter()
        with self._change:
            while not self._ready():
                self._wait(start, timeout)
            if self._result is not None:
                return self._result
            left, right = (self._eyes[eye].for_head() for eye in EYES)
            self._finishing = True
        return self._finish(left, right, start, timeout)

    def cancel(self) -> None:
        """End the exam without a result; after a result, or a second time, nothing happens."""
        self.end("was cancelled")

    def end(self, how: str) -> None:
        """`cancel`, with other words for those who still wait for it."""
        with self._change:
            if self._ended is not None:
                return
            self._let_go(how)
        self._on_end(self)

    def __enter__(self) -> Exam:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def _take(
        self, eye: Eye, frame: NDArray[np.uint8], color: ColorOrder, *, again: bool
    ) -> EyeVerdict:
        start = time.perf_counter()
        with self._change:
            place = self._free_place(eye, again=again)
            place.busy = True
        try:
            # before the engine starts: where that takes every core, it and the gates would wait for
            # each other
            prepared = self._preparer.frame(eye, frame, color=color)
            with self._change:
                self._require_open()
                self._put(place, prepared)
                self._waited_ms = ms_since(start)
                return place.judged().verdict()
        finally:
            self._set_down(place)

    def _set_down(self, place: ExamEye) -> None:
        with self._change:
            place.busy = False
            self._change.notify_all()

    def _put(self, place: ExamEye, prepared: PreparedEye) -> None:
        """Take an eye's latest photograph, and encode it if the gates let it pass."""
        likeness = self._likeness_with(place.eye, prepared)
        former, encoding = place.encoding, None
        if prepared.tensor is not None:
            # before anything changes: where the engine does not take the eye, the exam is as it was
            encoding = self._engine.encode_later(prepared.tensor, place.eye, self._wake)
        place.prepared, place.encoding = replace(prepared, tensor=None), encoding
        if former is not None:
            self._engine.forget(former)
        # of two eyes with the same photograph the later one is refused, whichever that is
        for one in self._eyes.values():
            one.repeats = False
        self._likeness = likeness
        place.repeats = self._likeness is not None and not self._likeness.passed

    def _likeness_with(self, eye: Eye, prepared: PreparedEye) -> GateFigure | None:
        """Of an eye's latest photograph and the other eye's; None where there is none of it."""
        known = {**{each: place.prepared for each, place in self._eyes.items()}, eye: prepared}
        left, right = (known[each] for each in EYES)
        return None if left is None or right is None else self._preparer.likeness(left, right)

    def _ready(self) -> bool:
        """Whether there is a result, or everything that one needs."""
        if self._result is not None:
            return True
        self._require_open()
        places = self._eyes.values()
        if self._finishing or any(place.busy for place in places):
            return False
        for place in places:
            place.judged()  # asked too early, this is told before anything is waited for
        return all(place.encoded for place in places)

    def _wait(self, start: float, timeout: float | None) -> None:
        left_s = _left_s(start, timeout)
        if not self._change.wait(left_s) and left_s is not None:
            raise ExamTimeoutError(
                f"there is no result within {timeout:g} s; ask again, with a longer timeout"
            )

    def _finish(
        self, left: EncodedEye, right: EncodedEye, start: float, timeout: float | None
    ) -> ExamResult:
        left_s = _left_s(start, timeout)
        try:
            result = conclude(
                self._engine,
                self._grader,
                left,
                right,
                likeness=self._likeness,
                timeout=left_s,
            )
        except BaseException:
            self._stop_finishing()
            raise
        with self._change:
            self._stop_finishing()
            self._require_open()
            self._result = result = self._with_wait(result, start)
            self._let_go("has its result already")
        self._on_end(self)
        return result

    def _stop_finishing(self) -> None:
        with self._change:
            self._finishing = False
            self._change.notify_all()

    def _with_wait(self, result: ExamResult, start: float) -> ExamResult:
        if self._waited_ms is None:
            return result
        wait_ms = self._waited_ms + ms_since(start)
        return replace(result, time_ms={**result.time_ms, "second_eye_wait": wait_ms})

    def _let_go(self, how: str) -> None:
        self._ended = how
        for place in self._eyes.values():
            if place.encoding is not None:
                self._engine.forget(place.encoding)
        self._eyes = {eye: ExamEye(eye) for eye in EYES}
        self._change.notify_all()

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()

    def _place(self, eye: Eye) -> ExamEye:
        if eye not in EYES:
            raise UsageError(f"there is no eye {eye!r}; it is 'left' or 'right'")
        return self._eyes[eye]

    def _free_place(self, eye: Eye, *, again: bool) -> ExamEye:
        place = self._place(eye)
        self._require_open()
        if self._finishing:
            raise ExamClosedError("the exam's result is being made; begin another exam")
        place.require_free(again=again)
        return place

    def _require_open(self) -> None:
        if self._ended is not None:
            raise ExamClosedError(f"the exam {self._ended}; begin another one")


def _left_s(start: float, timeout: float | None) -> float | None:
    if timeout is None:
        return None
    # threads cannot be told to wait for longer than that, nor for ever as a number
    return min(max(0.0, timeout - (time.perf_counter() - start)), threading.TIMEOUT_MAX)
