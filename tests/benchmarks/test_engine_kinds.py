"""Stages, exams and certificates are asked of the same engines: all that the runtime has."""

from __future__ import annotations

import os
import re
from collections import defaultdict

import pytest
from own_pytest import run_pytest

from fundus_benchmarks.contenders.agreement import TOLERANCES
from fundus_benchmarks.contenders.engine_kinds import ENGINES, ON_CPU, ON_GPU
from fundus_benchmarks.contenders.models import edge_bundle
from fundus_benchmarks.contenders.timed_model import TimedModel
from fundus_runtime.backends.open import BACKENDS
from fundus_runtime.backends.settings import PRECISIONS, PROVIDERS
from fundus_runtime.latency.frames import camera_frames
from fundus_runtime.screener import Screener


def test_every_backend_and_provider_of_the_runtime_is_among_them() -> None:
    asked = {(kind.backend, kind.shown) for kind in ENGINES}
    assert asked == {("onnxruntime", name) for name in PROVIDERS} | {("tensorrt", "tensorrt")}
    assert {kind.backend for kind in ENGINES} == set(BACKENDS)
    assert {kind.dialect for kind in ON_CPU} == {"int8-cpu", "fp32"}
    assert {kind.dialect for kind in ON_GPU} == {None}
    assert len(set(map(str, ENGINES))) == len(ENGINES)


def test_every_precision_has_a_tolerance() -> None:
    assert set(TOLERANCES) == set(PRECISIONS)


@pytest.mark.parametrize(("words", "models_in_fp32"), [((), 1), (("--full",), 4)])
def test_stages_and_exams_are_asked_of_all_of_them(
    words: tuple[str, ...], models_in_fp32: int
) -> None:
    collected = _collected("benchmarks/test_engines.py", "benchmarks/test_exams.py", *words)
    for test in ("test_encoder", "test_head", "test_pair_at_once", "test_wait_after_a_retake"):
        assert {name for name, _ in collected[test]} == set(map(str, ENGINES)), test
    fp32 = {model for name, model in collected["test_pair_at_once"] if name.endswith("fp32")}
    assert len(fp32) == models_in_fp32
    assert "edge" in fp32


@pytest.mark.slow
def test_fp32_exams_run_in_fp32_and_are_held_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # the model made for this is trusted in the whole process: not beyond this test
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", os.environ.get("FUNDUS_TRUSTED_KEYS", ""))
    # on these frames INT8 is less than FP32's tolerance away in the mean
    model, tolerance = TimedModel(edge_bundle(), camera_frames(2), threads=1), 1e-5
    assert model.bundle_of_exams("int8-cpu") is model.bundle
    with Screener.open(model.bundle_of_exams("fp32"), threads=1) as screener:
        assert (screener.engine.dialect, screener.engine.precision) == ("fp32", "fp32")
        assert "from PyTorch FP32" in model.verify_exams(screener, tolerance)
    with (
        Screener.open(model.bundle, threads=1) as screener,
        pytest.raises(RuntimeError, match="the screener differs"),
    ):
        model.verify_exams(screener, tolerance)


def _collected(*words: str) -> dict[str, set[tuple[str, str]]]:
    """Engine and model of each test, by its name."""
    done = run_pytest("--collect-only", *words, timeout_s=120)
    done.check_returncode()
    models = "edge|resnet50|paper-448|paper"
    found = defaultdict(set)
    for test, params in re.findall(r"::(\w+)\[(.+)\]$", done.stdout, re.MULTILINE):
        for kind in ENGINES:
            for model in re.findall(rf"\b({models})\b", params.replace(str(kind), "")):
                if str(kind) in params:
                    found[test].add((str(kind), model))
    return found
