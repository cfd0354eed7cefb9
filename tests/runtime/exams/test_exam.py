"""Exams eye by eye: results are the ready pair's, whatever the order and the retakes."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exam_tools import BLACK, LONG_S, examined, wait_until, without_times
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus_runtime.engine import Encoding
from fundus_runtime.errors import (
    ExamClosedError,
    ExamEyeError,
    ExamIncompleteError,
    FundusError,
    ImageError,
    UsageError,
)
from fundus_runtime.gates import GateThresholds
from fundus_runtime.labels import EYES
from fundus_runtime.photograph import read_photograph
from fundus_runtime.prepared import PreparedEye
from fundus_runtime.screener import Screener


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


def test_exam_keeps_no_frame_and_no_input_of_what_it_has_encoded(hindered, draw) -> None:
    screener, backend = hindered
    backend.held = threading.Event()
    with screener.begin() as exam:
        frame = draw("D")
        seen = weakref.ref(frame)
        exam.add("left", frame, color="rgb")
        exam.declare_absent("right")
        del frame
        assert seen() is None
        backend.held.set()
        wait_until(lambda: backend.encoded == [("left",)])
        gc.collect()
        held = [one for one in gc.get_objects() if type(one) in (PreparedEye, Encoding)]
        inputs = [vars(one).get("tensor", vars(one).get("_tensor")) for one in held]
        assert len(inputs) >= 3
        assert not [one for one in inputs if one is not None]
        assert exam.result(LONG_S).findings == ("D",)


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


def test_real_eyes_answer_an_exam_bit_for_bit_as_a_pair(
    fundus_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUNDUS_BUNDLE", raising=False)
    lefts = sorted((fundus_data / "odir").rglob("*_left.jpg"))[:12]
    assert lefts
    with Screener.open(threads=2, gates=GateThresholds()) as shipped:
        for left in lefts:
            right = left.with_name(left.name.replace("_left", "_right"))
            frames = [read_photograph(path) for path in (left, right) if path.exists()]
            frames += [None] * (2 - len(frames))
            pair = shipped.screen(*frames, color="rgb")
            assert without_times(examined(shipped, *frames)) == without_times(pair)


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


def fault_of(
    call: str, known: dict[str, Any], eye: str | None, name: str | None, ended: bool
) -> type[FundusError] | None:
    """The error that a step in a sequence of calls must raise."""
    if call == "cancel":
        return None
    if ended:
        return ExamClosedError
    if call == "result":
        return ExamIncompleteError if len(known) < 2 else None
    if (eye in known) != (call == "replace"):
        return ExamEyeError
    return ImageError if name == "no frame" else None


STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["add", "replace"]),
        st.sampled_from(EYES),
        st.sampled_from(["N1", "N2", "D1", "black", "no frame"]),
    ),
    st.tuples(st.just("declare_absent"), st.sampled_from(EYES)),
    st.tuples(st.sampled_from(["result", "cancel"])),
)


@settings(max_examples=60)
@given(steps=st.lists(STEPS, max_size=12))
def test_whatever_the_order_of_calls_the_result_is_that_of_the_latest_photographs(
    screener, draw, steps
) -> None:
    frames = {"N1": draw("N", seed=1), "N2": draw("N", seed=2), "D1": draw("D", seed=3)}
    frames |= {"black": BLACK, "no frame": BLACK[:, :, 0], None: None}
    known: dict[str, str | None] = {}
    latest, ended, result = "", False, None
    with screener.begin() as exam:
        for call, *words in steps:
            eye, name = [*words, None, None][:2]
            fault = fault_of(call, known, eye, name, ended)
            calls = {
                "add": lambda eye=eye, name=name: exam.add(eye, frames[name], color="rgb"),
                "replace": lambda eye=eye, name=name: exam.replace(eye, frames[name], color="rgb"),
                "declare_absent": lambda eye=eye: exam.declare_absent(eye),
                "result": lambda: exam.result(LONG_S),
                "cancel": exam.cancel,
            }
            if fault is not None:
                # of an exam with its result the result may be asked again
                if call != "result" or result is None:
                    with pytest.raises(fault):
                        calls[call]()
                continue
            answer = calls[call]()
            ended = ended or call in ("result", "cancel")
            result = answer if call == "result" else result
            if eye is not None:
                known[eye], latest = name, eye
    if result is None:
        return
    same = known["left"] == known["right"] and known["left"] in ("N1", "N2", "D1")
    if same and latest == "left":  # the ready pair would refuse the right one
        assert (result.left.reason, result.right.status) == ("same_photograph", "ok")
        return
    pair = screener.screen(*(frames[known[eye]] for eye in EYES), color="rgb")
    assert without_times(result) == without_times(pair)
