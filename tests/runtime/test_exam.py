"""Exams eye by eye: results equal the ready pair's, and nothing that goes wrong outlives its exam.

Faults are put between the screener and the real engine by `Hindered`.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import (
    EngineError,
    ExamClosedError,
    ExamError,
    ExamEyeError,
    ExamIncompleteError,
    ExamLimitError,
    ExamTimeoutError,
    FundusError,
    ImageError,
    UsageError,
)
from fundus_runtime.labels import EYES
from fundus_runtime.photograph import read_photograph
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import DEFAULT_MAX_OPEN_EXAMS, Screener
from fundus_runtime.shipped import default_bundle

LONG_S = 60.0
BLACK = np.zeros((200, 200, 3), np.uint8)


@pytest.fixture(scope="module")
def screener(shared_bundle: Path) -> Iterator[Screener]:
    with Screener.open(shared_bundle, threads=1) as opened:
        yield opened


@pytest.fixture
def shipped_pair(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Two golden pictures of the shipped bundle, and that bundle for the default one."""
    monkeypatch.delenv("FUNDUS_BUNDLE", raising=False)
    golden = default_bundle() / "golden"
    return read_photograph(golden / "00_left.png"), read_photograph(golden / "00_right.png")


@dataclass
class Hindered:
    """The real engine, which a test can hold up, make fail, or make answer NaN."""

    real: OnnxRuntimeBackend
    failures: list[Exception] = field(default_factory=list)
    held: threading.Event | None = None
    began: threading.Event = field(default_factory=threading.Event)
    encoded: list[tuple[str, ...]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def encode(self, images: Any, eyes: Any) -> Any:
        self.began.set()
        if self.held is not None:
            assert self.held.wait(LONG_S)
        if self.failures:
            raise self.failures.pop(0)
        self.encoded.append(tuple(eyes))
        return self.real.encode(images, eyes)


@pytest.fixture
def hindered(shared_bundle: Path) -> Iterator[tuple[Screener, Hindered]]:
    bundle = Bundle.open(shared_bundle)
    graphs = bundle.manifest.graphs_for("cpu")
    real = OnnxRuntimeBackend(*bundle.graph_bytes(graphs), size=64, class_count=8, threads=1)
    backend = Hindered(real)
    with Screener(bundle, backend, graphs, bundle.manifest.operating_points.get()) as opened:
        yield opened, backend
        if backend.held is not None:
            backend.held.set()


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


@pytest.mark.parametrize("order", [("left", "right"), ("right", "left")])
@pytest.mark.parametrize(
    ("left", "right"), [("D", "D"), ("N", "N"), ("uncertain", "D"), ("N", None), (None, "D")]
)
def test_exam_is_bit_for_bit_the_ready_pair(screener, draw, left, right, order) -> None:
    frames = [None if says is None else draw(says, seed=i) for i, says in enumerate((left, right))]
    pair = without_times(screener.screen(*frames, color="rgb"))
    assert without_times(examined(screener, *frames, order=order)) == pair


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_shipped_model_answers_an_exam_bit_for_bit_as_a_pair(
    shipped_pair: tuple[Any, Any], threads: int
) -> None:
    with Screener.open(threads=threads) as shipped:
        pair = shipped.screen(*shipped_pair, color="rgb")
        exam = examined(shipped, *shipped_pair)
    assert pair.probabilities
    assert pair.left.probabilities != pair.right.probabilities
    assert without_times(exam) == without_times(pair)


def test_verdict_comes_at_once_and_the_frame_is_free_again(hindered, draw) -> None:
    screener, backend = hindered
    frames = [draw("D", seed=1), draw("D", seed=2)]
    expected = without_times(screener.screen(*frames, color="rgb"))
    backend.held = threading.Event()
    with screener.begin() as exam:
        for eye, frame in zip(EYES, frames, strict=True):
            verdict = exam.add(eye, frame, color="rgb")
            assert (verdict.eye, verdict.status, verdict.usable) == (eye, "ok", True)
            assert verdict.preprocess_ms > 0
            assert verdict.to_dict()["quality"]["usable"] is True
            frame[:] = 0
        backend.held.set()
        result = exam.result(LONG_S)
    assert without_times(result) == expected
    assert backend.encoded[1:] == [("left",), ("right",)]


def test_channel_order_is_stated_and_heeded(screener, draw) -> None:
    left, right = draw("D", seed=1), draw("D", seed=2)
    with screener.begin() as exam:
        exam.add("left", left, color="rgb")
        exam.add("right", np.ascontiguousarray(right[:, :, ::-1]), color="bgr")
        result = exam.result(LONG_S)
    assert without_times(result) == without_times(screener.screen(left, right, color="rgb"))
    with screener.begin() as exam:
        with pytest.raises(TypeError, match="color"):
            exam.add("left", left)
        with pytest.raises(UsageError, match="'rgb' or 'bgr'"):
            exam.add("left", left, color="RGB")
    with pytest.raises(TypeError, match="color"):
        screener.screen(left, right)


def test_retake_recomputes_one_eye(hindered, draw) -> None:
    screener, backend = hindered
    left, right = draw("D", seed=1), draw("N", seed=2)
    with screener.begin() as exam:
        assert not exam.add("left", BLACK, color="rgb").usable
        exam.add("right", right, color="rgb")
        wait_until(lambda: backend.encoded == [("right",)])
        assert exam.replace("left", left, color="rgb").usable
        result = exam.result(LONG_S)
    assert backend.encoded == [("right",), ("left",)]
    assert without_times(result) == without_times(screener.screen(left, right, color="rgb"))


def test_refused_eye_says_why_and_never_reads_as_normal(screener, draw) -> None:
    with screener.begin() as exam:
        exam.add("left", draw("N"), color="rgb")
        verdict = exam.add("right", BLACK, color="rgb")
        result = exam.result(LONG_S)
    assert verdict.status == "ungradable"
    assert verdict.reason
    assert verdict.hint
    assert (result.outcome, result.refer) == ("ungradable", True)
    assert result.right.reason == verdict.reason
    assert without_times(result) == without_times(screener.screen(draw("N"), BLACK, color="rgb"))


@pytest.mark.parametrize("first", EYES)
def test_same_photograph_is_refused_for_the_later_eye_until_one_is_retaken(
    screener, draw, first
) -> None:
    second = "right" if first == "left" else "left"
    with screener.begin() as exam:
        assert exam.add(first, draw("N", seed=1), color="rgb").usable
        verdict = exam.add(second, draw("N", seed=1), color="rgb")
        assert (verdict.status, verdict.reason) == ("ungradable", "same_photograph")
        assert f"photograph the {second} eye" in verdict.hint
        # the earlier one was the wrong one: with it retaken, the later one stands
        assert exam.replace(first, draw("N", seed=2), color="rgb").usable
        assert exam.verdict(second).usable
        result = exam.result(LONG_S)
    assert result.outcome == "normal"
    seeds = (2, 1) if first == "left" else (1, 2)
    frames = [draw("N", seed=seed) for seed in seeds]
    assert without_times(result) == without_times(screener.screen(*frames, color="rgb"))


def test_same_photograph_twice_is_never_normal(screener, draw) -> None:
    result = examined(screener, draw("N"), draw("N"))
    assert (result.outcome, result.right.reason) == ("ungradable", "same_photograph")
    assert result.likeness.value >= result.likeness.threshold
    assert not result.decisions["N"].present
    pair = screener.screen(draw("N"), draw("N"), color="rgb")
    assert without_times(result) == without_times(pair)


def test_absent_eyes_are_declared_never_guessed(screener, draw) -> None:
    with screener.begin() as exam:
        with pytest.raises(ExamIncompleteError, match="of the left eye yet; add it, or declare it"):
            exam.result()
        exam.add("left", draw("N"), color="rgb")
        with pytest.raises(ExamIncompleteError, match="the right eye"):
            exam.result()
        with pytest.raises(ImageError, match="NoneType"):
            exam.add("right", None, color="rgb")
        assert exam.declare_absent("right").status == "absent"
        result = exam.result(LONG_S)
    assert (result.outcome, result.right.status) == ("ungradable", "absent")


def test_two_absent_eyes_are_an_ungradable_exam(screener) -> None:
    result = examined(screener, None, None)
    assert (result.outcome, result.refer, result.probabilities) == ("ungradable", True, {})
    assert result.time_ms["second_eye_wait"] is None


def test_absent_eye_that_is_found_after_all_is_a_replacement(screener, draw) -> None:
    with screener.begin() as exam:
        exam.declare_absent("left")
        exam.add("right", draw("D"), color="rgb")
        with pytest.raises(ExamEyeError, match="left eye was declared absent already"):
            exam.add("left", draw("D", seed=1), color="rgb")
        assert exam.replace("left", draw("D", seed=1), color="rgb").usable
        assert exam.result(LONG_S).outcome == "findings"


def test_eyes_out_of_turn_are_typed_errors_and_change_nothing(screener, draw) -> None:
    with screener.begin() as exam:
        with pytest.raises(ExamEyeError, match="no photograph of the left eye to replace; add it"):
            exam.replace("left", draw("D"), color="rgb")
        exam.add("left", draw("D", seed=1), color="rgb")
        with pytest.raises(ExamEyeError, match="left eye is there already; replace it"):
            exam.add("left", draw("N"), color="rgb")
        with pytest.raises(ExamEyeError, match="left eye is there already"):
            exam.declare_absent("left")
        with pytest.raises(UsageError, match="no eye 'OD'"):
            exam.add("OD", draw("N"), color="rgb")
        exam.add("right", draw("D", seed=2), color="rgb")
        result = exam.result(LONG_S)
    expected = screener.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
    assert without_times(result) == without_times(expected)


def test_after_its_result_an_exam_takes_no_eye_and_repeats_its_answer(screener, draw) -> None:
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
        exam.declare_absent("right")
        result = exam.result(LONG_S)
        for late in (exam.add, exam.replace):
            with pytest.raises(ExamClosedError, match="has its result already; begin another"):
                late("right", draw("D", seed=1), color="rgb")
        with pytest.raises(ExamClosedError):
            exam.declare_absent("right")
        exam.cancel()
        assert exam.result() is result


FRAMES_THAT_ARE_NONE: dict[str, Callable[[np.ndarray], Any]] = {
    "float": lambda frame: frame.astype(np.float32),
    "16 bits": lambda frame: frame.astype(np.uint16),
    "gray": lambda frame: frame[:, :, 0],
    "alpha": lambda frame: np.dstack([frame, frame[:, :, :1]]),
    "planar": lambda frame: np.ascontiguousarray(frame.transpose(2, 0, 1)),
    "batch": lambda frame: frame[None],
    "no rows": lambda frame: frame[:0],
    "no columns": lambda frame: frame[:, :0],
    "no channels": lambda frame: frame[:, :, :0],
    "empty": lambda _: np.zeros(0, np.uint8),
    "too small": lambda frame: frame[:63, :63],
    "list": lambda frame: frame.tolist(),
    "bytes": lambda frame: frame.tobytes(),
    "path": lambda _: "left.jpg",
    "nothing": lambda _: None,
}


@pytest.mark.parametrize("kind", FRAMES_THAT_ARE_NONE)
def test_arrays_that_are_no_frames_are_refused_and_the_exam_goes_on(screener, draw, kind) -> None:
    frames = [draw("D", seed=1), draw("D", seed=2)]
    wrong = FRAMES_THAT_ARE_NONE[kind](frames[0])
    with screener.begin() as exam:
        with pytest.raises(ImageError, match=r"expected|not"):
            exam.add("left", wrong, color="rgb")
        exam.add("left", frames[0], color="rgb")
        with pytest.raises(ImageError):
            exam.replace("left", wrong, color="rgb")
        exam.add("right", frames[1], color="rgb")
        result = exam.result(LONG_S)
    assert without_times(result) == without_times(screener.screen(*frames, color="rgb"))


def spread_out(frame: np.ndarray) -> np.ndarray:
    """The same pixels with gaps between rows and between pixels, as in a camera's RGBX buffer."""
    buffer = np.full((frame.shape[0] + 2, frame.shape[1] + 5, 4), 7, np.uint8)
    buffer[1:-1, 2:-3, :3] = frame
    return buffer[1:-1, 2:-3, :3]


@pytest.mark.parametrize(
    "laid_out",
    [
        spread_out,
        lambda frame: np.ascontiguousarray(frame[::-1])[::-1],
        lambda frame: np.ascontiguousarray(frame[:, ::-1])[:, ::-1],
        lambda frame: np.ascontiguousarray(frame[:, :, ::-1])[:, :, ::-1],
        np.asfortranarray,
        lambda frame: np.repeat(np.repeat(frame, 2, axis=0), 2, axis=1)[::2, ::2],
    ],
    ids=["gaps", "upside down", "mirrored", "channels turned", "columns first", "every second"],
)
def test_any_strides_give_the_same_result(screener, draw, laid_out) -> None:
    frames = [draw("D", seed=1), draw("N", seed=2)]
    strided = [laid_out(frame) for frame in frames]
    for frame, other in zip(frames, strided, strict=True):
        np.testing.assert_array_equal(frame, other)
    expected = without_times(examined(screener, *frames))
    assert without_times(examined(screener, *strided)) == expected


def test_frame_over_the_limit_is_refused_before_it_is_read(shared_bundle, draw) -> None:
    with Screener.open(shared_bundle, threads=1, max_megapixels=0.1) as small:
        within, beyond = draw("D", width=320, height=300), draw("D", width=400, height=300)
        with small.begin() as exam:
            with pytest.raises(ImageError, match=r"400 x 300 px \(0.1 megapixels\), but the limit"):
                exam.add("left", beyond, color="rgb")
            assert exam.add("left", within, color="rgb").usable
        with pytest.raises(ImageError, match="larger max_megapixels"):
            small.screen(beyond, within, color="rgb")
    for wrong in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="max_megapixels"):
            Screener.open(shared_bundle, max_megapixels=wrong)


@pytest.mark.parametrize(
    "failure", [EngineError("NaN in 'features'"), RuntimeError("CUDA error 700"), MemoryError()]
)
def test_engine_that_dies_in_an_exam_is_an_error_and_the_next_exam_works(
    hindered, draw, failure
) -> None:
    screener, backend = hindered
    frames = [draw("D", seed=1), draw("N", seed=2)]
    expected = without_times(screener.screen(*frames, color="rgb"))
    backend.failures.append(failure)
    with screener.begin() as exam:
        exam.add("left", frames[0], color="rgb")
        exam.add("right", frames[1], color="rgb")
        for _ in range(2):
            with pytest.raises(EngineError, match=r"NaN in|died in the encoder"):
                exam.result(LONG_S)
        # a retake of the eye that it failed on saves the exam
        exam.replace("left", frames[0], color="rgb")
        assert without_times(exam.result(LONG_S)) == expected
    assert without_times(examined(screener, *frames)) == expected


def test_nan_out_of_a_model_is_an_error_and_the_next_exam_works(
    make_bundle, graphs, draw, tmp_path: Path
) -> None:
    # this head divides nought by nought as soon as an eye is absent
    bundle = make_bundle(tmp_path / "b", head=graphs["head"](answers="nan_of_one_eye"))
    with Screener.open(bundle, threads=1) as opened:
        with pytest.raises(EngineError, match="NaN or infinity"):
            examined(opened, draw("D"), None)
        with pytest.raises(EngineError, match="NaN or infinity"):
            opened.screen(draw("D"), None, color="rgb")
        assert examined(opened, draw("D", seed=1), draw("D", seed=2)).outcome == "findings"


def test_head_that_fails_once_may_be_asked_again(hindered, draw, monkeypatch) -> None:
    screener, backend = hindered
    fuse = backend.real.fuse

    def fail_once(*_: Any) -> Any:
        monkeypatch.setattr(backend.real, "fuse", fuse)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(backend.real, "fuse", fail_once)
    with screener.begin() as exam:
        exam.add("left", draw("D", seed=1), color="rgb")
        exam.add("right", draw("D", seed=2), color="rgb")
        with pytest.raises(EngineError, match=r"died in the head \(RuntimeError: out of memory\)"):
            exam.result(LONG_S)
        assert exam.result(LONG_S).outcome == "findings"


def test_result_that_takes_too_long_may_be_asked_for_again(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
        exam.declare_absent("right")
        for timeout in (-1.0, 0.0, 0.05):
            with pytest.raises(ExamTimeoutError, match="ask again") as caught:
                exam.result(timeout)
            assert isinstance(caught.value, TimeoutError)
        with pytest.raises(UsageError, match="not a number"):
            exam.result(float("nan"))
        backend.held.set()
        assert exam.result(LONG_S).findings == ("D",)


def test_engine_that_is_busy_with_another_exam_is_a_timeout_too(hindered, draw) -> None:
    screener, backend = hindered
    with screener.begin() as exam, screener.begin() as other:
        exam.add("left", draw("D"), color="rgb")
        exam.declare_absent("right")
        wait_until(lambda: backend.encoded == [("left",)])
        backend.held = threading.Event()
        other.add("left", draw("D"), color="rgb")
        assert backend.began.wait(LONG_S)
        wait_until(lambda: screener._engine._one_at_a_time.locked())
        with pytest.raises(ExamTimeoutError):
            exam.result(0.05)
        backend.held.set()
        assert exam.result(LONG_S).findings == ("D",)


def test_cancelled_exam_frees_who_waits_for_it(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    exam = screener.begin()
    exam.add("left", draw("D"), color="rgb")
    exam.add("right", draw("D", seed=1), color="rgb")
    raised = in_background(lambda: exam.result(LONG_S))
    exam.cancel()
    exam.cancel()
    assert isinstance(raised(), ExamClosedError)
    for refused in (lambda: exam.add("left", draw("D"), color="rgb"), exam.result):
        with pytest.raises(ExamClosedError, match="was cancelled; begin another one"):
            refused()
    assert exam.verdict("left") is None
    backend.held.set()
    assert examined(screener, draw("D"), None).findings == ("D",)
    # what had not begun when the exam was cancelled never ran
    assert ("right",) not in backend.encoded


def test_leaving_the_exam_ends_it(screener, draw) -> None:
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
    with pytest.raises(ExamClosedError):
        exam.result()


def test_open_exams_are_bounded_and_forgotten_ones_do_not_count(shared_bundle, draw) -> None:
    with Screener.open(shared_bundle, threads=1, max_open_exams=2) as opened:
        first, second = opened.begin(), opened.begin()
        with pytest.raises(ExamLimitError, match="2 exams are open, which is the limit"):
            opened.begin()
        second.cancel()
        second = opened.begin()
        del second
        gc.collect()
        for _ in range(5):
            assert examined(opened, draw("D"), None).findings == ("D",)
        assert first.declare_absent("left").status == "absent"
    with pytest.raises(UsageError, match="max_open_exams"):
        Screener.open(shared_bundle, max_open_exams=0)


def test_what_waits_for_the_engine_is_bounded(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
        exam.add("right", draw("D", seed=1), color="rgb")
        for seed in range(2, 30):
            exam.replace("right", draw("D", seed=seed), color="rgb")
        assert len(screener._engine._waiting) <= 2
        backend.held.set()
        result = exam.result(LONG_S)
    assert backend.encoded == [("left",), ("right",)]
    expected = screener.screen(draw("D"), draw("D", seed=29), color="rgb")
    assert without_times(result) == without_times(expected)


def test_closing_the_screener_ends_its_exams_at_any_point(shared_bundle, draw) -> None:
    screener = Screener.open(shared_bundle, threads=1)
    fresh, begun, waiting = screener.begin(), screener.begin(), screener.begin()
    begun.add("left", draw("D"), color="rgb")
    done = screener.begin()
    done.declare_absent("left")
    done.declare_absent("right")
    kept = done.result()
    for eye in EYES:
        waiting.add(eye, draw("D", seed=len(eye)), color="rgb")
    screener.close()
    screener.close()
    for exam in (fresh, begun, waiting):
        with pytest.raises(ExamClosedError, match="lost its screener, which was closed"):
            exam.result()
    assert done.result() is kept
    with pytest.raises(ExamClosedError, match="the screener is closed; open it again"):
        screener.begin()
    with pytest.raises(EngineError, match="closed"):
        screener.screen(draw("D"), None, color="rgb")


def test_closing_waits_for_the_eye_that_is_being_encoded(hindered, draw) -> None:
    screener, backend = hindered
    before = set(threading.enumerate())
    backend.held = threading.Event()
    exam = screener.begin()
    exam.add("left", draw("D"), color="rgb")
    exam.add("right", draw("D", seed=1), color="rgb")
    assert backend.began.wait(LONG_S)
    raised = in_background(lambda: exam.result(LONG_S))
    closing = threading.Thread(target=screener.close)
    closing.start()
    assert isinstance(raised(), ExamClosedError)
    assert closing.is_alive()
    backend.held.set()
    closing.join(LONG_S)
    assert not closing.is_alive()
    assert backend.encoded == [("left",)]
    assert set(threading.enumerate()) <= before


def test_second_eye_wait_is_what_the_caller_waited_for(hindered, draw) -> None:
    screener, _ = hindered
    with screener.begin() as exam:
        exam.add("left", draw("D", seed=1), color="rgb")
        time.sleep(0.3)
        start = time.perf_counter()
        exam.add("right", draw("D", seed=2), color="rgb")
        added_ms = (time.perf_counter() - start) * 1e3
        time.sleep(0.3)
        start = time.perf_counter()
        times = exam.result(LONG_S).time_ms
        asked_ms = (time.perf_counter() - start) * 1e3
    assert times["encode"] is None
    assert times["head"] < times["second_eye_wait"] <= added_ms + asked_ms
    assert times["second_eye_wait"] < 300
    stages = ("preprocess_left", "preprocess_right", "gates_left", "gates_right")
    parts = [times[name] for name in (*stages, "encode_left", "encode_right", "head")]
    assert times["total"] == pytest.approx(sum(parts))


def test_threads_share_a_screener_and_each_gets_its_own_patient(screener, draw) -> None:
    frames = {says: (draw(says, seed=1), draw(says, seed=2)) for says in ("D", "N", "uncertain")}
    expected = {
        says: without_times(screener.screen(*pair, color="rgb")) for says, pair in frames.items()
    }
    wrong: list[str] = []

    def work(says: str, by_pair: bool) -> None:
        for _ in range(10):
            left, right = frames[says]
            if by_pair:
                result = screener.screen(left, right, color="rgb")
            else:
                result = examined(screener, left, right)
            if without_times(result) != expected[says]:
                wrong.append(says)

    jobs = [(says, by_pair) for says in frames for by_pair in (True, False)]
    assert len(jobs) <= DEFAULT_MAX_OPEN_EXAMS
    workers = [threading.Thread(target=work, args=job) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LONG_S)
    assert not wrong


def test_both_eyes_may_be_added_by_two_threads_at_once(screener, draw) -> None:
    frames = {"left": draw("D", seed=1), "right": draw("N", seed=2)}
    expected = without_times(screener.screen(**frames, color="rgb"))
    for _ in range(10):
        with screener.begin() as exam:
            adding = [
                in_background(lambda eye=eye: exam.add(eye, frames[eye], color="rgb"))
                for eye in EYES
            ]
            assert all(wait().usable for wait in adding)
            assert without_times(exam.result(LONG_S)) == expected


def test_of_two_threads_with_the_same_eye_one_is_told(screener, draw) -> None:
    for _ in range(10):
        with screener.begin() as exam:
            adding = [
                in_background(lambda seed=seed: exam.add("left", draw("D", seed=seed), color="rgb"))
                for seed in (1, 2)
            ]
            answers = [wait() for wait in adding]
            told = [answer for answer in answers if isinstance(answer, ExamEyeError)]
            assert len(told) == 1


def test_two_threads_that_ask_get_one_and_the_same_result(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
        exam.declare_absent("right")
        asking = [in_background(lambda: exam.result(LONG_S)) for _ in range(3)]
        backend.held.set()
        answers = [wait() for wait in asking]
    assert all(isinstance(answer, ExamResult) for answer in answers)
    assert len({id(answer) for answer in answers}) == 1


def test_every_exam_error_is_one_family() -> None:
    kinds = (
        ExamClosedError,
        ExamEyeError,
        ExamIncompleteError,
        ExamLimitError,
        ExamTimeoutError,
    )
    assert all(issubclass(kind, ExamError) and issubclass(kind, FundusError) for kind in kinds)


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
