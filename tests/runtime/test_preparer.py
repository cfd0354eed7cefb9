"""Eyes prepared on two threads are those prepared on one, and no frame or thread is kept."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fundus_runtime.errors import ImageError
from fundus_runtime.gates import GateThresholds
from fundus_runtime.helper_thread import HelperThread
from fundus_runtime.prepared import PreparedEye
from fundus_runtime.preparer import EyePreparer
from fundus_runtime.preprocess import PreprocessSpec

SPEC = PreprocessSpec(size=64, illumination_window_px=11)
Draw = Callable[..., np.ndarray]


@pytest.fixture
def helper() -> Iterator[HelperThread]:
    thread = HelperThread("test-helper", lambda: None)
    yield thread
    thread.close()


def preparer(helper: HelperThread | None) -> EyePreparer:
    return EyePreparer(SPEC, thresholds=GateThresholds(), helper=helper)


def same(one: PreparedEye, other: PreparedEye) -> bool:
    assert one.gates is not None
    assert other.gates is not None
    assert one.picture is not None or one.status != "ok"
    return (
        (one.eye, one.status, one.reason, one.field_of_view, one.warnings)
        == (other.eye, other.status, other.reason, other.field_of_view, other.warnings)
        and one.gates.figures == other.gates.figures
        and one.gates.side_score == other.gates.side_score
        and (one.tensor is None) == (other.tensor is None)
        and (one.tensor is None or np.array_equal(one.tensor, other.tensor))
    )


def test_a_helping_thread_changes_nothing(helper: HelperThread, draw: Draw) -> None:
    left, right = draw("D", seed=1), draw("N", seed=2)
    alone, helped = preparer(None), preparer(helper)
    assert same(alone.frame("left", left, color="bgr"), helped.frame("left", left, color="bgr"))
    for one, other in zip(
        alone.frames(left, right, color="rgb"),
        helped.frames(left, right, color="rgb"),
        strict=True,
    ):
        assert same(one, other)


@pytest.mark.parametrize("bad", ["left", "right"])
def test_one_bad_frame_of_a_pair_is_an_error_and_the_next_pair_is_prepared(
    helper: HelperThread, draw: Draw, bad: str
) -> None:
    good = draw("D", seed=1)
    frames = {"left": good, "right": good, bad: np.zeros((8, 8), np.uint8)}
    prepare = preparer(helper)
    with pytest.raises(ImageError):
        prepare.frames(frames["left"], frames["right"], color="rgb")
    assert [eye.eye for eye in prepare.frames(good, good, color="rgb")] == ["left", "right"]


def test_frames_are_the_callers_again(helper: HelperThread, draw: Draw) -> None:
    frame = draw("D", seed=1)
    before = sys.getrefcount(frame)
    prepare = preparer(helper)
    for _ in range(3):
        prepare.frame("left", frame, color="rgb")
        prepare.frames(frame, frame, color="rgb")
    helper.begin(lambda: None).result()  # the thread has let go of what it did before
    assert sys.getrefcount(frame) == before


def test_without_a_thread_to_be_had_the_work_is_done_on_the_calling_one(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    helper = HelperThread("test-helper", lambda: None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert helper.begin(threading.get_ident).result() == threading.get_ident()
    frame = draw("D", seed=1)
    assert same(
        preparer(helper).frame("left", frame, color="rgb"),
        preparer(None).frame("left", frame, color="rgb"),
    )


def test_a_closed_helper_leaves_no_thread_and_still_works() -> None:
    before = set(threading.enumerate())
    helper = HelperThread("test-helper", lambda: None)
    assert helper.begin(threading.get_ident).result() != threading.get_ident()
    helper.close()
    assert set(threading.enumerate()) == before
    assert helper.begin(lambda: 3).result() == 3


def test_what_a_call_raises_is_raised_to_who_waits(helper: HelperThread) -> None:
    def fail() -> None:
        raise ValueError("from the call")

    with pytest.raises(ValueError, match="from the call"):
        helper.begin(fail).result()
