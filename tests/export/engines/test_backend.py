"""The runtime's TensorRT backend on the stand-in, whose engines compute with ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fundus_export.tensorrt.builder import _build, _build_both
from fundus_export.tensorrt.machine import Machine
from fundus_export.tensorrt.options import EngineOptions
from fundus_export.tensorrt.strategy import choose_strategy, typed_strategy
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.backends.tensorrt import TensorRTBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineError, EngineMissingError
from fundus_runtime.labels import EYES

SIZE, CLASSES, MAX_BATCH = 64, 8, 2


def plans_of(bundle: Bundle, machine: Machine) -> dict[str, bytes]:
    options = EngineOptions("fp32", max_batch=MAX_BATCH)
    strategy = choose_strategy(machine.features, "fp32")
    plans, _ = _build_both(bundle, bundle.manifest.graphs["fp32"], strategy, options, machine)
    return plans


def open_backend(machine: Machine, plans: dict[str, bytes], **settings: Any) -> TensorRTBackend:
    return TensorRTBackend(
        **plans,
        size=SIZE,
        class_count=CLASSES,
        max_batch=MAX_BATCH,
        device=machine.gpu,
        settings=EngineSettings(**settings),
    )


@pytest.fixture
def reference(bundle: Bundle) -> OnnxRuntimeBackend:
    graphs = bundle.graph_bytes(bundle.manifest.graphs["fp32"])
    return OnnxRuntimeBackend(*graphs, size=SIZE, class_count=CLASSES, threads=1)


@pytest.fixture(params=["8.5.3.1", "10.3.0", "11.4.0.106"])
def made(request: pytest.FixtureRequest, machine: Callable[..., Machine]) -> Machine:
    return machine(request.param)


@pytest.fixture
def backend(bundle: Bundle, made: Machine) -> TensorRTBackend:
    return open_backend(made, plans_of(bundle, made))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(0, 1, (count, 3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_batch_is_answered_in_parts_of_the_plans_largest(
    backend: TensorRTBackend, reference: OnnxRuntimeBackend, count: int
) -> None:
    eyes = images(count)
    sides = (EYES * 3)[:count]
    came, expected = backend.encode(eyes, sides), reference.encode(eyes, sides)

    np.testing.assert_allclose(came.features, expected.features, atol=1e-6)
    np.testing.assert_allclose(came.logits, expected.logits, atol=1e-6)
    flags = np.ones(count, np.float32)
    fused = backend.fuse(came.features, came.features[::-1], flags, flags)
    wanted = reference.fuse(expected.features, expected.features[::-1], flags, flags)
    np.testing.assert_allclose(fused, wanted, atol=1e-6)


def test_an_encoder_may_treat_the_eyes_differently_and_say_nothing_of_one_alone(
    bundle: Bundle, machine: Callable[..., Machine], beside: Any
) -> None:
    made = machine("10.3.0")
    encoder, options = beside("tiny").sided_encoder(), EngineOptions("fp32", max_batch=MAX_BATCH)
    plan, report = _build("encoder", encoder, typed_strategy("fp32"), options, made)
    assert report.verdict.proven == 1
    backend = open_backend(made, {**plans_of(bundle, made), "encoder": plan})
    _, head = bundle.graph_bytes(bundle.manifest.graphs["fp32"])
    reference = OnnxRuntimeBackend(encoder, head, size=SIZE, class_count=CLASSES, threads=1)
    asked = images(3), ["left", "right", "left"]

    came, expected = backend.encode(*asked), reference.encode(*asked)
    assert came.logits is None
    np.testing.assert_allclose(came.features, expected.features, atol=1e-6)
    with pytest.raises(EngineError, match="name 'left' or 'right' for each"):
        backend.encode(images(2), ["left"])


def test_maps_of_an_eye_are_handed_on(
    bundle: Bundle, machine: Callable[..., Machine], beside: Any
) -> None:
    made, options = machine("10.3.0"), EngineOptions("fp32", max_batch=MAX_BATCH)
    encoder = beside("tiny").mapped_encoder(CLASSES)
    plan, _ = _build("encoder", encoder, typed_strategy("fp32"), options, made)
    backend = open_backend(made, {**plans_of(bundle, made), "encoder": plan})

    encoded = backend.encode(images(3), ["left"] * 3)
    assert encoded.maps is not None
    assert encoded.maps.shape == (3, CLASSES, SIZE // 4, SIZE // 4)
    np.testing.assert_allclose(encoded.maps.mean((2, 3)), encoded.logits, atol=1e-5)


def test_it_says_what_it_is(backend: TensorRTBackend, made: Machine) -> None:
    assert (backend.name, backend.threads) == ("tensorrt", 1)
    assert backend.provider == f"TensorRT {made.features.version} on Orin (sm_87)"


def test_threads_share_it(backend: TensorRTBackend, reference: OnnxRuntimeBackend) -> None:
    problems = []

    def ask(seed: int) -> None:
        asked = images(seed), ["left"] * seed
        if not np.allclose(
            backend.encode(*asked).logits, reference.encode(*asked).logits, atol=1e-6
        ):
            problems.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize(
    "wrong",
    [
        images(1).astype(np.float64),
        images(1)[0],
        images(1)[:, :, :32],
        images(1)[:0],
    ],
    ids=["type", "no batch", "size", "empty"],
)
def test_other_images_are_refused(backend: TensorRTBackend, wrong: np.ndarray) -> None:
    with pytest.raises(EngineError):
        backend.encode(wrong, ["left"] * len(wrong))


def test_other_features_are_refused(backend: TensorRTBackend) -> None:
    features, flag = np.zeros((1, 4, 4, 4), np.float32), np.ones(1, np.float32)

    with pytest.raises(EngineError, match="takes 'features_left' with rows of"):
        backend.fuse(features, features, flag, flag)


def test_nan_is_no_answer(backend: TensorRTBackend) -> None:
    eyes = images(1)
    eyes[0, 0, 0, 0] = np.nan

    with pytest.raises(EngineError, match="answered NaN or infinity"):
        backend.encode(eyes, ["left"])


def test_a_closed_backend_refuses_and_closes_twice(backend: TensorRTBackend, made: Machine) -> None:
    backend.close()
    backend.close()

    assert made.gpu.closed
    with pytest.raises(EngineError, match="the engine is closed"):
        backend.encode(images(1), ["left"])


@pytest.mark.parametrize("graph", ["encoder", "head"])
def test_bytes_that_are_no_plan_are_refused_and_all_is_given_back(
    bundle: Bundle, machine: Callable[..., Machine], graph: str
) -> None:
    made = machine("10.3.0")
    plans = plans_of(bundle, made) | {graph: b"not a plan"}

    with pytest.raises(EngineError, match=f"loading the {graph}'s plan failed: Magic tag"):
        open_backend(made, plans)
    assert made.gpu.closed


def test_plans_that_were_exchanged_are_refused(
    bundle: Bundle, machine: Callable[..., Machine]
) -> None:
    made = machine("10.3.0")
    plans = plans_of(bundle, made)

    with pytest.raises(EngineError, match=r"the encoder's plan has the inputs \['features_left'"):
        open_backend(made, {"encoder": plans["head"], "head": plans["encoder"]})


def test_another_number_of_classes_is_refused(
    bundle: Bundle, machine: Callable[..., Machine]
) -> None:
    made = machine("10.3.0")
    backend = TensorRTBackend(
        **plans_of(bundle, made), size=SIZE, class_count=5, max_batch=2, device=made.gpu
    )
    with pytest.raises(EngineError, match=r"logits of shape \(1, 8\), expected \(1, 5\)"):
        backend.encode(images(1), ["left"])


def test_no_driver_is_told(bundle: Bundle, machine: Callable[..., Machine]) -> None:
    plans = plans_of(bundle, machine("10.3.0"))

    with pytest.raises(EngineMissingError, match="TensorRT's runtime cannot start: CUDA error 35"):
        open_backend(machine("10.3.0", gpu=False), plans)


# CUDA graphs ------------------------------------------------------------------------------------


def test_an_exam_is_one_launch_an_eye_or_pair_and_one_for_the_head(
    backend: TensorRTBackend, made: Machine
) -> None:
    """Everything was captured when the engine was opened, each batch size for itself."""
    gpu: Any = made.gpu
    assert (len(gpu.graphs), backend.degraded_reason) == (3, None)
    before = gpu.launches
    alone = backend.encode(images(1), ["left"]).features
    pair = backend.encode(images(2), EYES).features
    flag = np.ones(1, np.float32)
    backend.fuse(alone, pair[1:], flag, flag)
    assert gpu.launches == before + 3
    assert len(gpu.graphs) == 3


def test_batches_in_turn_do_not_disturb_each_other(
    backend: TensorRTBackend, reference: OnnxRuntimeBackend
) -> None:
    for count in (1, 2, 1, 2, 2, 1):
        asked = images(count), EYES[:count]
        came, expected = backend.encode(*asked), reference.encode(*asked)
        np.testing.assert_allclose(came.features, expected.features, atol=1e-6)


def test_an_answer_stays_as_it_was_when_the_next_one_comes(backend: TensorRTBackend) -> None:
    first = backend.encode(images(1), ["left"])
    kept = first.features.copy()
    backend.encode(images(1) + 1, ["left"])
    np.testing.assert_array_equal(first.features, kept)


def test_without_graphs_the_answers_are_the_same_and_nothing_is_degraded(
    bundle: Bundle, made: Machine, reference: OnnxRuntimeBackend
) -> None:
    backend = open_backend(made, plans_of(bundle, made), cuda_graphs=False)
    gpu: Any = made.gpu
    came, expected = backend.encode(images(2), EYES), reference.encode(images(2), EYES)
    np.testing.assert_allclose(came.features, expected.features, atol=1e-6)
    assert (gpu.launches, backend.degraded_reason) == (0, None)


@pytest.mark.parametrize(
    ("fault", "value", "words"),
    [
        ("refuses_capture", "cuStreamEndCapture: CAPTURE_INVALIDATED", "CAPTURE_INVALIDATED"),
        ("forgets", True, "replayed, it answers otherwise in features, eye_logits"),
    ],
)
def test_a_graph_that_cannot_be_had_is_done_without_and_told(
    bundle: Bundle,
    made: Machine,
    reference: OnnxRuntimeBackend,
    fault: str,
    value: Any,
    words: str,
) -> None:
    gpu: Any = made.gpu
    setattr(gpu, fault, value)
    backend = open_backend(made, plans_of(bundle, made))

    reason = str(backend.degraded_reason)
    assert words in reason
    for part in ("encoder runs without a CUDA graph at batch 1", "at batch 2", "the head runs"):
        assert part in reason
    came, expected = backend.encode(images(2), EYES), reference.encode(images(2), EYES)
    np.testing.assert_allclose(came.features, expected.features, atol=1e-6)
    backend.close()
    assert gpu.closed


def test_a_graph_that_dies_in_an_exam_is_an_error_and_the_next_exam_is_answered(
    backend: TensorRTBackend, made: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(graph: Any) -> None:
        raise EngineError("the CUDA driver refused cuGraphLaunch")

    with monkeypatch.context() as patch:
        patch.setattr(made.gpu, "launch", dies)
        with pytest.raises(EngineError, match="refused cuGraphLaunch"):
            backend.encode(images(1), ["left"])
    assert backend.encode(images(1), ["left"]).features.shape[0] == 1


def test_memory_that_runs_out_while_a_batch_is_prepared_leaves_nothing(
    bundle: Bundle, made: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, gpu = plans_of(bundle, made), made.gpu
    taken, allocate = [], gpu.allocate

    def scarce(size: int) -> int:
        if len(taken) == 4:  # within the second batch size
            raise EngineError("the CUDA driver refused cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY")
        taken.append(size)
        return allocate(size)

    monkeypatch.setattr(gpu, "allocate", scarce)
    with pytest.raises(EngineError, match="OUT_OF_MEMORY"):
        open_backend(made, plans)
    assert made.gpu.closed  # which asserts that everything was given back


def test_a_driver_that_died_does_not_keep_the_engine_from_closing(
    backend: TensorRTBackend, made: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: Any) -> None:
        raise EngineError("the CUDA driver refused: CUDA_ERROR_ILLEGAL_ADDRESS")

    for name in ("free", "free_pinned", "free_graph", "close"):
        monkeypatch.setattr(made.gpu, name, dead)
    backend.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        backend.encode(images(1), ["left"])
