"""Whole exams, from frames of 5 megapixels to the result, with the gates and all."""

from __future__ import annotations

import time
from itertools import count

import pytest

from fundus_benchmarks.contenders.agreement import TOLERANCES
from fundus_benchmarks.contenders.engine_kinds import ENGINES
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.errors import BundleError, EngineError
from fundus_runtime.latency.exams import seconds_to_encode, two_frames
from fundus_runtime.latency.first_result import measure_first_result
from fundus_runtime.latency.subject import Subject
from fundus_runtime.screener import Screener

# ONNX Runtime's TensorRT provider builds its engines in its first runs.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="session", params=ENGINES, ids=str)
def screener(request, timed_model, threads, missing):
    """A screener that really opens here with this model, and its row."""
    kind, name = request.param, timed_model.model.name
    on_cpu = kind.dialect is not None
    try:
        opened = Screener.open(
            timed_model.bundle_of_exams(kind.dialect),
            backend=kind.backend,
            provider=kind.provider,
            settings=EngineSettings(threads=threads) if on_cpu else EngineSettings(),
        )
    except (EngineError, BundleError) as error:
        missing(f"exams of {name} on {kind}", error)
    with opened:
        row = {
            "model": name,
            "backend": opened.engine.backend,
            "provider": kind.shown,
            "dialect": opened.engine.dialect,
            "threads": opened.engine.threads,
            "verified": timed_model.verify_exams(opened, TOLERANCES[opened.engine.precision]),
        }
        yield opened, row


def test_pair_at_once(timed, frames, screener):
    opened, row = screener
    turns = count()
    timed(
        lambda left, right: opened.screen(left, right, color="rgb"),
        lambda: two_frames(frames, next(turns)),
        stage="pair",
        **row,
    )


def test_wait_after_the_second_eye(timed, frames, screener):
    opened, row = screener
    turns, move_s = count(), seconds_to_encode(opened, frames)

    def first_eye():
        left, right = two_frames(frames, next(turns))
        exam = opened.begin()
        exam.add("left", left, color="rgb")
        time.sleep(move_s)
        return exam, right

    def second_eye(exam, right):
        exam.add("right", right, color="rgb")
        return exam.result()

    timed(second_eye, first_eye, stage="second_eye", **row)


def test_wait_after_a_retake(timed, frames, screener):
    opened, row = screener
    turns, move_s = count(), seconds_to_encode(opened, frames)

    def both_eyes():
        turn = next(turns)
        left, right = two_frames(frames, turn)
        exam = opened.begin()
        for eye, frame in (("left", left), ("right", right)):
            exam.add(eye, frame, color="rgb")
            time.sleep(move_s)
        return exam, two_frames(frames, turn + 1)[0]

    def retake(exam, left):
        exam.replace("left", left, color="rgb")
        return exam.result()

    timed(retake, both_eyes, stage="retake", **row)


def test_first_result_of_a_fresh_process(timed, timed_model, frames, threads):
    """Interpreter, imports, verification of the bundle, loading, one exam; files warm."""
    subject = Subject(str(timed_model.model.bundle), threads=threads)
    timed_model.model.trust()
    timed(
        lambda: measure_first_result(subject, *frames[:2]),
        stage="first_result",
        model=timed_model.model.name,
        backend="onnxruntime",
        provider="cpu",
        dialect=timed_model.bundle.manifest.graphs_for("cpu").dialect,
        verified="each process graded both eyes, or the row would not be",
    )
