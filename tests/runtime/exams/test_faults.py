"""What goes wrong in an exam is a typed error, and the screener serves the next exam.

Faults are put between the screener and the real engine by `Hindered`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exam_tools import LONG_S, examined, without_times

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
from fundus_runtime.grader import EncodedEye, conclude
from fundus_runtime.labels import EYES
from fundus_runtime.screener import Screener

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
        lambda frame: np.frombuffer(frame.tobytes(), np.uint8).reshape(frame.shape),
    ],
    ids=[
        "gaps",
        "upside down",
        "mirrored",
        "channels turned",
        "columns first",
        "every second",
        "read only",
    ],
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
    ("failure", "words"),
    [(EngineError, "NaN in 'features'"), (RuntimeError, "CUDA error 700"), (MemoryError, "")],
)
def test_engine_that_dies_in_an_exam_is_an_error_and_the_next_exam_works(
    hindered, draw, failure, words
) -> None:
    screener, backend = hindered
    frames = [draw("D", seed=1), draw("N", seed=2)]
    expected = without_times(screener.screen(*frames, color="rgb"))
    backend.failures.append(failure(words))
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


def test_every_exam_error_is_one_family() -> None:
    kinds = (
        ExamClosedError,
        ExamEyeError,
        ExamIncompleteError,
        ExamLimitError,
        ExamTimeoutError,
    )
    assert all(issubclass(kind, ExamError) and issubclass(kind, FundusError) for kind in kinds)


def no_more_threads(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_eye_that_no_thread_can_encode_is_an_error_and_is_never_graded_without(
    shared_bundle, draw, monkeypatch
) -> None:
    left, right = draw("N", seed=1), draw("N", seed=2)
    with Screener.open(shared_bundle, threads=1) as screener:
        with screener.begin() as exam:
            with monkeypatch.context() as patched:
                patched.setattr(threading.Thread, "start", no_more_threads)
                with pytest.raises(EngineError, match="no thread can be had to encode on"):
                    exam.add("left", left, color="rgb")
            # the exam is as before, and the engine tries again
            assert exam.verdict("left") is None
            exam.add("right", right, color="rgb")
            with pytest.raises(ExamIncompleteError, match="left eye"):
                exam.result(LONG_S)
            exam.add("left", left, color="rgb")
            assert exam.result(LONG_S).outcome == "normal"
        assert examined(screener, left, right).outcome == "normal"


def test_retake_that_the_engine_does_not_take_leaves_the_former_photograph(
    hindered, draw, monkeypatch
) -> None:
    screener, _ = hindered
    frames = [draw("D", seed=1), draw("N", seed=2)]
    expected = without_times(screener.screen(*frames, color="rgb"))

    def refuse(*_: Any) -> None:
        raise EngineError("no thread can be had to encode on")

    with screener.begin() as exam:
        for eye, frame in zip(EYES, frames, strict=True):
            exam.add(eye, frame, color="rgb")
        with monkeypatch.context() as patched:
            patched.setattr(screener._engine, "encode_later", refuse)
            with pytest.raises(EngineError):
                exam.replace("left", draw("N", seed=3), color="rgb")
        assert without_times(exam.result(LONG_S)) == expected


def test_usable_eye_that_was_not_encoded_is_never_graded(screener, draw) -> None:
    left, right = (
        screener.prepare(eye, draw("N", seed=i), color="rgb") for i, eye in enumerate(EYES)
    )
    images = np.stack([left.tensor])
    encoded, _ = screener._engine.encode(images, ["left"])
    eyes = EncodedEye(left, encoded), EncodedEye(right)
    with pytest.raises(EngineError, match="right eye is usable, but was not encoded"):
        conclude(screener._engine, screener._grader, *eyes, likeness=None)


def test_error_of_the_encoder_does_not_grow_when_it_is_asked_for_again(hindered, draw) -> None:
    screener, backend = hindered
    backend.failures.append(RuntimeError("CUDA error 700"))
    depths = []
    with screener.begin() as exam:
        exam.add("left", draw("D"), color="rgb")
        exam.declare_absent("right")
        for _ in range(3):
            with pytest.raises(EngineError) as caught:
                exam.result(LONG_S)
            depths.append(len(caught.traceback))
    assert len(set(depths)) == 1
