"""The runtime's TensorRT backend on the stand-in, whose engines compute with ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fundus_export.tensorrt.builder import _build, _build_both
from fundus_export.tensorrt.machine import Machine
from fundus_export.tensorrt.options import EngineOptions
from fundus_export.tensorrt.strategy import choose_strategy, typed_strategy
from fundus_runtime.backends import cuda_device
from fundus_runtime.backends.cuda_device import open_cuda_device
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
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


def open_backend(machine: Machine, plans: dict[str, bytes]) -> TensorRTBackend:
    return TensorRTBackend(
        **plans, size=SIZE, class_count=CLASSES, max_batch=MAX_BATCH, device=machine.gpu
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


# The two libraries that device memory comes from, as far as they are asked ----------------------


class Status(int):
    name = "CUDA_ERROR_OUT_OF_MEMORY"


class CudaPython(SimpleNamespace):
    """cuda-python's driver on host memory: every function answers its status first."""

    def __init__(self, memory: Any) -> None:
        super().__init__(memory=memory, current=None, fails="")
        self.CUdevice_attribute = int
        answers: dict[str, Callable[..., Any]] = {
            "cuInit": lambda _: (),
            "cuDeviceGet": lambda index: (index,),
            "cuDevicePrimaryCtxRetain": lambda _: ("context",),
            "cuDevicePrimaryCtxRelease": lambda _: (),
            "cuCtxSetCurrent": lambda _: (),
            "cuStreamCreate": lambda _: (11,),
            "cuStreamDestroy": lambda _: (),
            "cuStreamSynchronize": lambda _: (),
            "cuDeviceGetName": lambda *_: (b"NVIDIA H200\0\0",),
            "cuDeviceGetAttribute": lambda kind, _: ({75: 9, 76: 0}[kind],),
            "cuDriverGetVersion": lambda: (12060,),
            "cuMemGetInfo": lambda: (5_000, 9_000),
            "cuMemAlloc": lambda size: (memory.allocate(size),),
            "cuMemFree": lambda address: memory.free(address) or (),
            "cuMemcpyHtoDAsync": lambda to, come, size, _: memory.copy(to, come, size) or (),
            "cuMemcpyDtoHAsync": lambda to, come, size, _: memory.copy(to, come, size) or (),
        }
        for name, answer in answers.items():
            setattr(self, name, self._function(name, answer))

    def _function(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any) -> tuple[Any, ...]:
            if name == self.fails:
                return (Status(2),)
            return (Status(0), *answer(*arguments))

        function.__name__ = name
        return function


@pytest.fixture
def memory(machine: Callable[..., Machine]) -> Any:
    """Host memory with a copy between addresses."""
    gpu: Any = machine("10.3.0").gpu
    import ctypes

    gpu.copy = lambda to, come, size: ctypes.memmove(to, come, size) and None
    return gpu


def test_cuda_python_is_used_through_the_driver(
    monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    driver = CudaPython(memory)
    monkeypatch.setattr(cuda_device, "_cuda_python", lambda: driver)
    gpu = open_cuda_device()

    assert (gpu.name, gpu.compute_capability) == ("NVIDIA H200", (9, 0))
    assert (gpu.driver_version, gpu.stream, gpu.free_bytes()) == ("12.6", 11, 5_000)
    assert gpu.library.startswith("cuda-python")
    copies(gpu)
    gpu.close()
    gpu.close()
    with pytest.raises(EngineError, match="the GPU is closed"):
        gpu.allocate(1)


def test_a_driver_that_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    driver = CudaPython(memory)
    monkeypatch.setattr(cuda_device, "_cuda_python", lambda: driver)
    gpu = open_cuda_device()
    driver.fails = "cuMemAlloc"

    with pytest.raises(EngineError, match="refused cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY"):
        gpu.allocate(10**12)


def copies(gpu: Any) -> None:
    """What goes to the device comes back."""
    values, back = np.arange(12, dtype=np.float32), np.zeros(12, np.float32)
    address = gpu.allocate(values.nbytes)
    gpu.to_device(address, values)
    gpu.to_host(back, address)
    gpu.synchronise()
    np.testing.assert_array_equal(back, values)
    gpu.free(address)


class Pycuda(SimpleNamespace):
    """pycuda's driver on host memory; nothing may be called outside the context."""

    class Error(Exception):
        pass

    def __init__(self, memory: Any) -> None:
        super().__init__(memory=memory, depth=0)
        self.Device = lambda _: SimpleNamespace(
            name=lambda: "NVIDIA H200",
            compute_capability=lambda: (9, 0),
            retain_primary_context=lambda: SimpleNamespace(
                push=lambda: self._move(1), pop=lambda: self._move(-1), detach=lambda: None
            ),
        )
        self.Stream = self._inside(
            lambda: SimpleNamespace(handle=13, synchronize=self._inside(lambda: None))
        )
        self.mem_get_info = self._inside(lambda: (5_000, 9_000))
        self.mem_alloc = self._inside(self._allocate)
        self.memcpy_htod_async = self._inside(
            lambda to, values, _: memory.copy(to, values.ctypes.data, values.nbytes)
        )
        self.memcpy_dtoh_async = self._inside(
            lambda values, come, _: memory.copy(values.ctypes.data, come, values.nbytes)
        )

    def init(self) -> None:
        pass

    def get_driver_version(self) -> int:
        return 13020

    def _move(self, step: int) -> None:
        self.depth += step

    def _inside(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any) -> Any:
            assert self.depth == 1, "no context is current"
            return function(*arguments)

        return checked

    def _allocate(self, size: int) -> Any:
        if size > 10**9:
            raise self.Error("cuMemAlloc failed: out of memory")
        address = self.memory.allocate(size)

        class Allocation(int):
            free = self._inside(lambda _: self.memory.free(address))

        return Allocation(address)


def test_pycuda_is_the_alternative(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    driver = Pycuda(memory)
    monkeypatch.setattr(cuda_device, "_cuda_python", lambda: None)
    monkeypatch.setattr(cuda_device.importlib, "import_module", lambda _: driver)
    gpu = open_cuda_device()

    assert (gpu.name, gpu.compute_capability) == ("NVIDIA H200", (9, 0))
    assert (gpu.driver_version, gpu.stream, gpu.free_bytes()) == ("13.2", 13, 5_000)
    copies(gpu)
    with pytest.raises(EngineError, match="the CUDA driver refused: cuMemAlloc failed"):
        gpu.allocate(10**12)
    gpu.close()
    gpu.close()
    assert driver.depth == 0
    with pytest.raises(EngineError, match="the GPU is closed"):
        gpu.free_bytes()


def test_neither_library_is_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(cuda_device.importlib, "import_module", missing)
    with pytest.raises(EngineMissingError, match=r"neither cuda-python nor pycuda.*fundus-edge\["):
        open_cuda_device()
