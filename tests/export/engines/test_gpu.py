"""Real engines on a real GPU: built, inspected, asked, stored, refused.

    FUNDUS_REQUIRE_GPU=1 make test-gpu

Where cuBLAS and cuDNN are absent: FUNDUS_TACTIC_SOURCES=EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS.

Needs TensorRT with its libraries, cuda-python or pycuda, onnx and ONNX Runtime for the reference.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_export.errors import ExportError
from fundus_export.tensorrt.builder import build_engine
from fundus_export.tensorrt.features import probe
from fundus_export.tensorrt.machine import open_machine
from fundus_export.tensorrt.options import PRECISIONS, EngineOptions, Precision
from fundus_export.tensorrt.report import EngineReport
from fundus_export.tensorrt.strategy import choose_strategy
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.backends.open import open_engine
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.backends.tensorrt import TensorRTBackend
from fundus_runtime.backends.tensorrt_install import import_tensorrt
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import PlanError
from fundus_runtime.labels import EYES
from fundus_runtime.plan_key import Device
from fundus_runtime.plans import PLANS_VARIABLE, read_plans
from fundus_runtime.shipped import default_bundle

pytestmark = [pytest.mark.needs_gpu, pytest.mark.timeout(1200)]

# Of a logit, against FP32 on the CPU. FP32 differs by the order of sums; TF32 and FP16 keep 10 bits
# of each factor; INT8 has steps of 0.02 on its inputs here, a tenth of which arrives at a logit.
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2, "int8": 5e-2}


@pytest.fixture(autouse=True)
def wanted() -> None:
    if os.environ.get("FUNDUS_REQUIRE_GPU") != "1":
        pytest.skip("needs a GPU: FUNDUS_REQUIRE_GPU is not 1")


def options(precision: Precision, **more: Any) -> EngineOptions:
    sources = os.environ.get("FUNDUS_TACTIC_SOURCES")
    names = None if not sources else tuple(sources.split(","))
    return EngineOptions(precision, tactic_sources=names, **more)


def build(
    bundle: Bundle, precision: Precision, *, force: bool = False, **more: Any
) -> tuple[EngineReport, Device]:
    machine = open_machine()
    report = build_engine(bundle, options(precision, **more), machine, force=force)
    print(report.in_words())  # shown with -s: what a person would read
    return report, machine.device


def open_backend(bundle: Bundle, device: Device, precision: str, max_batch: int) -> TensorRTBackend:
    plans = read_plans(bundle, device, precision=precision)
    return TensorRTBackend(
        plans.encoder,
        plans.head,
        size=bundle.manifest.spec.size,
        class_count=len(bundle.manifest.classes),
        max_batch=max_batch,
    )


def reference(bundle: Bundle) -> OnnxRuntimeBackend:
    manifest = bundle.manifest
    graphs = bundle.graph_bytes(manifest.graphs["fp32"])
    return OnnxRuntimeBackend(
        *graphs, size=manifest.spec.size, class_count=len(manifest.classes), threads=1
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_real_engine_is_what_the_graph_says_and_answers_as_it_does(
    bundle: Bundle, precision: Precision
) -> None:
    report, device = build(bundle, precision)

    for graph, convolution in (("encoder", "/conv"), ("head", "/fuse")):
        verdict = report.plans[graph].verdict
        assert verdict.violations == ()
        assert convolution not in verdict.untold
        assert verdict.proven >= 1
    backend, expected = open_backend(bundle, device, precision, 2), reference(bundle)
    for count in (1, 2, 3):  # three are more than the plans' largest batch
        images = np.random.default_rng(count).normal(0, 1, (count, 3, 64, 64)).astype(np.float32)
        sides = ("left", "right", "left")[:count]
        came, wanted_eyes = backend.encode(images, sides), expected.encode(images, sides)
        np.testing.assert_allclose(came.logits, wanted_eyes.logits, atol=TOLERANCE[precision])
        flags = np.array([1, 0, 1][:count], np.float32)
        features = wanted_eyes.features
        np.testing.assert_allclose(
            backend.fuse(features, features[::-1], flags, np.ones_like(flags)),
            expected.fuse(features, features[::-1], flags, np.ones_like(flags)),
            atol=TOLERANCE[precision],
        )
    assert device.gpu in backend.provider
    backend.close()


def test_a_timing_cache_makes_the_next_build_measure_less(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "kernels.cache"
    first, _ = build(bundle, "fp16", timing_cache=cache)
    assert cache.stat().st_size > 0
    again, _ = build(bundle, "fp16", timing_cache=cache, force=True)

    seconds = [sum(plan.build_seconds for plan in one.plans.values()) for one in (first, again)]
    assert seconds[1] < seconds[0] * 1.5  # a cache that is not used would cost no more than this


def test_a_timing_cache_that_is_none_is_refused_and_kept(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "kernels.cache"
    cache.write_bytes(b"this was never a timing cache" * 100)

    with pytest.raises(ExportError, match=r"refuses the timing cache"):
        build(bundle, "fp16", timing_cache=cache)
    assert cache.read_bytes().startswith(b"this was never")


def test_a_screeners_engine_replays_cuda_graphs(bundle: Bundle) -> None:
    """Graphs are captured, checked against runs without them, and answer batches in turn."""
    build(bundle, "fp16")
    opened = open_engine(bundle, "tensorrt")
    plain = open_engine(bundle, "tensorrt", settings=EngineSettings(cuda_graphs=False))
    assert (opened.precision, opened.degraded_reason) == ("fp16", None)
    for seed, count in enumerate((1, 2, 1, 2)):
        images = np.random.default_rng(seed).normal(0, 1, (count, 3, 64, 64)).astype(np.float32)
        came = opened.backend.encode(images, EYES[:count])
        expected = plain.backend.encode(images, EYES[:count])
        np.testing.assert_allclose(came.features, expected.features, rtol=1e-3, atol=1e-3)
    for one in (opened, plain):
        one.backend.close()


def test_larger_batches_are_taken_whole(bundle: Bundle) -> None:
    _, device = build(bundle, "fp32", max_batch=8)
    backend = open_backend(bundle, device, "fp32", 8)
    images = np.random.default_rng(0).normal(0, 1, (8, 3, 64, 64)).astype(np.float32)

    whole = backend.encode(images, ["left"] * 8).logits
    one_by_one = np.concatenate([backend.encode(image[None], ["left"]).logits for image in images])
    np.testing.assert_allclose(whole, one_by_one, atol=1e-4)
    backend.close()


def test_a_plan_that_was_changed_never_reaches_tensorrt(bundle: Bundle) -> None:
    report, device = build(bundle, "fp32")
    assert report.folder is not None
    (plan,) = report.folder.glob("encoder-*.plan")
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)

    with pytest.raises(PlanError, match="is not the plan that was built"):
        open_backend(bundle, device, "fp32", 2)


def test_ctrl_c_during_a_real_build_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "export" / "build_engine.py"
    sources = os.environ.get("FUNDUS_TACTIC_SOURCES")
    more = ["--tactic-sources", sources] if sources else []
    command = [sys.executable, str(script), "--bundle", str(bundle.path), "--allow-unsigned"]
    log = tmp_path / "log"
    with log.open("wb") as said:
        build_process = subprocess.Popen(
            [*command, "--precision", "int8", *more],
            stderr=said,
            env={**os.environ, PLANS_VARIABLE: str(tmp_path / "plans")},
        )
        while b"building the encoder" not in log.read_bytes() and build_process.poll() is None:
            time.sleep(0.05)
        build_process.send_signal(signal.SIGINT)
        status = build_process.wait(timeout=120)

    # a build may have ended in the moment between
    assert status in (130, 0), log.read_text("utf-8", "replace")
    if status == 130:
        assert not list((tmp_path / "plans").rglob("report.json"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_shipped_bundle_becomes_engines(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real model, held to its golden pairs by the builder itself."""
    monkeypatch.setenv(PLANS_VARIABLE, str(tmp_path))
    shipped = Bundle.open(default_bundle())
    dialect = choose_strategy(probe(import_tensorrt()), precision).dialect
    if dialect not in shipped.manifest.graphs:
        pytest.skip(f"needs a shipped bundle with the dialect {dialect}")

    report, _ = build(shipped, precision)
    for plan in report.plans.values():
        assert plan.verdict.violations == ()
        assert plan.verdict.proven > 0.9 * plan.verdict.products
