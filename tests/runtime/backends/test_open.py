"""Opening an engine: what runs is what was asked for and declared, or nothing does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fundus_runtime import _native
from fundus_runtime.backends import onnxruntime as onnxruntime_module
from fundus_runtime.backends.io_binding import BoundSession
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.backends.open import OpenedEngine, open_engine
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import BundleError, EngineError, EngineMissingError, UsageError

FEATURES = ["avx512_vnni", "avx_vnni", "asimddp"]


def _forms(manifest: dict[str, Any]) -> None:
    """The tiny graphs under the names of a shipped bundle's forms."""
    plain = manifest["graphs"].pop("fp32")
    manifest["graphs"] = {
        "int8-cpu": {**plain, "dialect": "int8-cpu", "precision": "int8", "cpu_features": FEATURES},
        "fp16": {**plain, "dialect": "fp16", "precision": "fp16"},
        "int8-trt": {**plain, "dialect": "int8-trt", "precision": "int8"},
    }
    manifest["default_graphs"] = {"cpu": "int8-cpu", "cpu_without_dot_product": "fp16"}


@pytest.fixture
def make_forms(tmp_path: Path, make_bundle) -> Callable[..., Bundle]:
    def make(change: Callable[[dict[str, Any]], None] = lambda _: None) -> Bundle:
        def both(manifest: dict[str, Any]) -> None:
            _forms(manifest)
            change(manifest)

        shutil.rmtree(tmp_path / "bundle", ignore_errors=True)
        return Bundle.open(make_bundle(tmp_path / "bundle", change=both))

    return make


@pytest.fixture
def dot_product(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether this CPU sums INT8 products exactly."""

    def set_it(has: bool) -> None:
        monkeypatch.setattr(_native, "cpu_features", lambda: dict.fromkeys(FEATURES, has))

    return set_it


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batches that encoders were given."""
    seen: list[int] = []
    encode = OnnxRuntimeBackend.encode

    def counted(self: OnnxRuntimeBackend, images: Any, eyes: Any) -> Any:
        seen.append(len(images))
        return encode(self, images, eyes)

    monkeypatch.setattr(OnnxRuntimeBackend, "encode", counted)
    return seen


def close(opened: OpenedEngine) -> None:
    opened.backend.close()


def test_on_a_cpu_the_declared_form_runs_warm(make_forms, dot_product, runs) -> None:
    dot_product(True)
    opened = open_engine(make_forms(), settings=EngineSettings(threads=1))
    assert (opened.graphs.name, opened.precision) == ("int8-cpu", "int8")
    assert opened.backend.provider == "CPUExecutionProvider"
    assert (opened.degraded_reason, opened.plan_sha256) == (None, None)
    assert runs == [1, 2]
    close(opened)


@pytest.mark.parametrize(("count", "expected"), [(0, []), (2, [1, 2, 1, 2])])
def test_warm_up_runs_as_often_as_asked(shared_bundle, runs, count, expected) -> None:
    settings = EngineSettings(threads=1, warm_up_runs=count)
    close(open_engine(Bundle.open(shared_bundle), settings=settings))
    assert runs == expected


def test_where_the_first_runs_build_no_exam_waits_for_them(make_forms, runs, monkeypatch) -> None:
    """TensorRT's provider, with the CPU's sessions in its place."""
    real = onnxruntime_module.open_session
    monkeypatch.setattr(
        onnxruntime_module,
        "open_session",
        lambda graph, data, _, settings: real(graph, data, "cpu", settings),
    )
    monkeypatch.setattr(onnxruntime_module, "BoundSession", _on_the_cpu)
    opened = open_engine(make_forms(), provider="tensorrt", settings=EngineSettings(warm_up_runs=0))
    assert (opened.graphs.name, runs) == ("int8-trt", [1, 2])
    images = np.random.default_rng(0).normal(size=(5, 3, 64, 64)).astype(np.float32)
    encoded = opened.backend.encode(images, ["left"] * 5)  # in parts of what was built for
    alone = opened.backend.encode(images[4:], ["left"])
    assert encoded.features.shape[0] == 5
    np.testing.assert_allclose(encoded.features[4:], alone.features, atol=1e-6)
    flags = np.ones(5, np.float32)
    assert opened.backend.fuse(encoded.features, encoded.features, flags, flags).shape == (5, 8)
    close(opened)


def _on_the_cpu(session: Any, outputs: Any, *, device: str, index: int) -> BoundSession:
    assert (device, index) == ("cuda", 0)
    return BoundSession(session, outputs, device="cpu")


def test_what_the_bundle_declares_for_an_older_cpu_is_told(make_forms, dot_product) -> None:
    dot_product(False)
    opened = open_engine(make_forms(), settings=EngineSettings(threads=1))
    assert opened.graphs.name == "fp16"
    assert "fp16 runs instead, as the bundle declares" in str(opened.degraded_reason)
    close(opened)


def test_a_precision_that_was_named_is_never_replaced(make_forms, dot_product) -> None:
    bundle = make_forms()
    dot_product(True)
    opened = open_engine(bundle, settings=EngineSettings(threads=1, precision="fp16"))
    assert (opened.graphs.name, opened.degraded_reason) == ("fp16", None)
    close(opened)
    dot_product(False)
    with pytest.raises(EngineError, match="need dot-product instructions"):
        open_engine(bundle, settings=EngineSettings(precision="int8"))
    with pytest.raises(BundleError, match="fp32 on cpu runs the dialect fp32, but bundle 'tiny'"):
        open_engine(bundle, settings=EngineSettings(precision="fp32"))
    with pytest.raises(EngineError, match="CPUs have no TF32"):
        open_engine(bundle, settings=EngineSettings(precision="tf32"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backend": "tflite"}, "no backend 'tflite'; there is onnxruntime, tensorrt"),
        ({"provider": "rocm"}, "no provider 'rocm'; there is cpu, cuda, tensorrt"),
        ({"backend": "tensorrt", "provider": "cuda"}, "tensorrt takes no provider"),
    ],
)
def test_what_does_not_exist_is_wrong_usage(shared_bundle, arguments, words) -> None:
    with pytest.raises(UsageError, match=words):
        open_engine(Bundle.open(shared_bundle), **arguments)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_this_build_lacks_is_an_error_that_names_the_extra(
    make_forms, provider
) -> None:
    built_with = onnxruntime.get_available_providers()
    if any(name.startswith(("CUDA", "Tensorrt")) for name in built_with):
        pytest.skip("needs an ONNX Runtime without GPU providers")
    words = r'was built with .*CPUExecutionProvider, but .*"fundus-edge\[gpu\]"'
    with pytest.raises(EngineMissingError, match=words):
        open_engine(make_forms(), provider=provider)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_session_on_the_cpu_is_refused(make_forms, monkeypatch, provider) -> None:
    """The library was built with the provider, whose own libraries do not load here."""
    name = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[provider]
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [name, "CPUExecutionProvider"]
    )
    real = onnxruntime.InferenceSession

    def silent(data: bytes, options: Any, *, providers: Any, **more: Any) -> Any:
        # what the GPU build does without CUDA's libraries: a word in its log, and the CPU
        options = onnxruntime.SessionOptions()
        return real(data, options, providers=["CPUExecutionProvider"], **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", silent)
    words = rf"the encoder runs on \['CPUExecutionProvider'\], but {name} alone was asked for"
    with pytest.raises(EngineError, match=words):
        open_engine(make_forms(), provider=provider)


def test_operators_on_the_cpu_end_a_gpu_session(make_forms, monkeypatch) -> None:
    """The real library's own refusal, with the real option, here where no node is on a GPU."""
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    real = onnxruntime.InferenceSession

    def without_cuda(data: bytes, options: Any, *, providers: Any, **more: Any) -> Any:
        return real(data, options, providers=[], **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", without_cuda)
    with pytest.raises(EngineError, match=r"on CUDAExecutionProvider alone: .*nothing runs on"):
        open_engine(make_forms(), provider="cuda")


def _needs_tensorrt_missing() -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        return
    pytest.skip("needs a machine without TensorRT")


def test_tensorrt_that_is_missing_is_an_error_that_says_how_to_get_it(shared_bundle) -> None:
    _needs_tensorrt_missing()
    with pytest.raises(EngineMissingError, match=r"TensorRT is missing: .*install"):
        open_engine(Bundle.open(shared_bundle), "tensorrt")


def test_an_engine_that_fails_while_it_warms_up_is_closed(make_bundle, tmp_path, graphs) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle", head=graphs["head"](answers="nan")))
    closed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxRuntimeBackend, "close", lambda self: closed.append(self))
        with pytest.raises(EngineError, match="NaN or infinity in 'logits'"):
            open_engine(bundle, settings=EngineSettings(threads=1))
    assert len(closed) == 1


def test_an_engine_is_imported_only_when_it_is_opened(shared_bundle) -> None:
    code = (
        "import sys, fundus_runtime.backends.open\n"
        "print([name for name in ('onnxruntime', 'tensorrt', 'cuda') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("spinning", ["while_running", "never"])
@pytest.mark.parametrize("arena", [True, False])
def test_settings_change_no_answer(shared_bundle, spinning, arena) -> None:
    bundle = Bundle.open(shared_bundle)
    size = bundle.manifest.spec.size
    image = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    answers = []
    for settings in (EngineSettings(threads=1), EngineSettings(2, None, spinning, arena)):
        opened = open_engine(bundle, settings=settings)
        answers.append(opened.backend.encode(image, ["left"]).features)
        close(opened)
    assert np.array_equal(*answers)


def _own_threads(before: set[str]) -> list[set[int]]:
    """CPUs that the threads begun since may use."""
    tasks = {path.name for path in Path("/proc/self/task").iterdir()} - before
    found = []
    for task in sorted(tasks):
        with suppress(ProcessLookupError):
            found.append(os.sched_getaffinity(int(task)))
    return found


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_the_engines_own_threads_stay_on_the_cpus_that_were_named(shared_bundle) -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    before = {path.name for path in Path("/proc/self/task").iterdir()}
    opened = open_engine(
        Bundle.open(shared_bundle), settings=EngineSettings(affinity=(first, second))
    )
    # the one that runs both sessions, and one more for each of them; the calling one is not moved
    expected = sorted([{first}, {second}, {second}], key=min)
    deadline = time.monotonic() + 5
    while sorted(_own_threads(before), key=min) != expected and time.monotonic() < deadline:
        time.sleep(0.01)  # threads that loaded the graphs take a moment to be gone
    assert sorted(_own_threads(before), key=min) == expected
    assert len(os.sched_getaffinity(0)) >= 2
    assert opened.backend.threads == 2
    close(opened)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_thread_on_the_engines_cpu_computes_itself_and_others_hand_over(
    shared_bundle, monkeypatch
) -> None:
    cpus = tuple(sorted(os.sched_getaffinity(0))[:2])
    settings = EngineSettings(affinity=cpus)
    opened = open_engine(Bundle.open(shared_bundle), settings=settings)
    computing: list[int] = []
    run = onnxruntime.InferenceSession.run

    def recorded(self: Any, *args: Any, **options: Any) -> Any:
        computing.append(threading.get_ident())
        return run(self, *args, **options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", recorded)
    size = Bundle.open(shared_bundle).manifest.spec.size
    image = np.ones((1, 3, size, size), np.float32)

    def encode_on(place: int) -> int:
        settings.pin_calling_thread(place)
        opened.backend.encode(image, ["left"])
        return threading.get_ident()

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        on_first = first.submit(encode_on, 0).result()
        on_second = second.submit(encode_on, 1).result()
    opened.backend.encode(image, ["left"])
    assert computing[0] == on_first
    # the engine's own, which is the same for both
    assert computing[1] == computing[2]
    assert computing[1] not in (on_first, on_second, threading.get_ident())
    close(opened)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_with_an_empty_affinity_no_thread_is_kept_on_a_cpu(shared_bundle) -> None:
    allowed = os.sched_getaffinity(0)
    before = {path.name for path in Path("/proc/self/task").iterdir()}
    settings = EngineSettings(threads=len(allowed), affinity=())
    opened = open_engine(Bundle.open(shared_bundle), settings=settings)
    found = _own_threads(before)
    assert found
    assert all(cpus == allowed for cpus in found)
    close(opened)


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-gpu",
)
@pytest.mark.skipif(os.environ.get("FUNDUS_REQUIRE_GPU") == "1", reason="there is a GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_build_without_a_gpu_does_not_run_on_the_cpu(make_forms, provider) -> None:
    with pytest.raises(EngineError, match="nothing runs on the CPU in its place"):
        open_engine(make_forms(), provider=provider)
