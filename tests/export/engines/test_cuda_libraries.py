"""The two libraries that device memory comes from, as far as they are asked, on host memory.

`cuda_python_api.json` holds the signatures of cuda-python's own functions, which were the same in
the versions that it names; calls must fit them.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fundus_export.tensorrt.machine import Machine
from fundus_runtime.backends import cuda_device
from fundus_runtime.backends.cuda_device import open_cuda_device
from fundus_runtime.errors import EngineError, EngineMissingError

API = json.loads(Path(__file__).with_name("cuda_python_api.json").read_text("utf-8"))


class Status(int):
    name = "CUDA_ERROR_OUT_OF_MEMORY"


class CUstreamCaptureMode(enum.Enum):
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class CudaPython(SimpleNamespace):
    """cuda-python's driver on host memory: every function answers its status first."""

    def __init__(self, memory: Any) -> None:
        super().__init__(memory=memory, fails="", log=[], recorded=None)
        self.CUdevice_attribute = int
        self.CUstreamCaptureMode = CUstreamCaptureMode
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
            "cuMemcpyHtoDAsync": self._copy,
            "cuMemcpyDtoHAsync": self._copy,
            "cuMemAllocHost": lambda size: (memory.allocate(size),),
            "cuMemFreeHost": lambda address: memory.free(address) or (),
            "cuEventCreate": lambda _: (17,),
            "cuEventRecord": lambda *_: (),
            "cuEventSynchronize": lambda _: (),
            "cuEventDestroy": lambda _: (),
            "cuStreamBeginCapture": self._begin,
            "cuStreamEndCapture": self._end,
            "cuGraphInstantiate": lambda graph, _: (("executable", graph),),
            "cuGraphDestroy": lambda _: (),
            "cuGraphLaunch": lambda graph, _: [step() for step in graph[1]] and (),
            "cuGraphExecDestroy": lambda _: (),
        }
        assert set(answers) == set(API["functions"])
        for name, answer in answers.items():
            setattr(self, name, self._function(name, answer))

    def _function(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        takes = [part for part in API["functions"][name].strip("()").split(", ") if part]

        def function(*arguments: Any) -> tuple[Any, ...]:
            assert len(arguments) == len(takes), f"{name}{API['functions'][name]}: {arguments}"
            self.log.append(name)
            if name == self.fails:
                return (Status(2),)
            return (Status(0), *answer(*arguments))

        function.__name__ = name
        return function

    def _copy(self, to: Any, come: Any, size: int, _: Any) -> tuple[()]:
        if self.recorded is None:
            self.memory.copy(to, come, size)
        else:
            self.recorded.append(lambda: self.memory.copy(to, come, size))
        return ()

    def _begin(self, _: int, mode: Any) -> tuple[()]:
        assert isinstance(mode, CUstreamCaptureMode)  # cuda-python 12 takes no number
        self.recorded = []
        return ()

    def _end(self, _: int) -> tuple[Any]:
        recorded, self.recorded = self.recorded, None
        return (recorded,)


@pytest.fixture
def memory(machine: Callable[..., Machine]) -> Any:
    """Host memory with a copy between addresses."""
    gpu: Any = machine("10.3.0").gpu
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


def test_a_captured_copy_is_done_when_it_is_launched_and_no_sooner(
    monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    driver = CudaPython(memory)
    monkeypatch.setattr(cuda_device, "_cuda_python", lambda: driver)
    gpu = open_cuda_device()
    come, back = gpu.pinned((2, 3)), gpu.pinned((2, 3))
    assert not come.any()
    address = gpu.allocate(come.nbytes)

    def work() -> None:
        gpu.to_device(address, come)
        gpu.to_host(back, address)

    graph = gpu.capture(work)
    come[...] = 5
    assert not back.any()
    for value in (5, 6):
        come[...] = value
        gpu.launch(graph)
        gpu.synchronise()
        assert (back == value).all()
    gpu.free_graph(graph)
    gpu.free_pinned(come)
    gpu.free_pinned(back)
    gpu.free(address)
    assert driver.log.count("cuGraphDestroy") == 1
    assert not memory.memory


@pytest.mark.parametrize("fails", ["cuStreamEndCapture", "cuGraphInstantiate", "work"])
def test_a_capture_that_fails_leaves_the_stream(
    monkeypatch: pytest.MonkeyPatch, memory: Any, fails: str
) -> None:
    driver = CudaPython(memory)
    monkeypatch.setattr(cuda_device, "_cuda_python", lambda: driver)
    gpu = open_cuda_device()
    driver.fails = fails

    def work() -> None:
        if fails == "work":
            raise EngineError("TensorRT failed in the encoder")

    with pytest.raises(EngineError, match=fails if fails != "work" else "TensorRT failed"):
        gpu.capture(work)
    assert "cuStreamEndCapture" in driver.log
    if fails == "cuGraphInstantiate":
        assert driver.log[-1] == "cuGraphDestroy"


def test_a_thread_may_sleep_while_it_waits(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    driver = CudaPython(memory)
    monkeypatch.setattr(cuda_device, "_cuda_python", lambda: driver)
    gpu = open_cuda_device(sleeps=True)
    gpu.synchronise()
    gpu.close()
    assert [name for name in driver.log if "Event" in name or name == "cuStreamSynchronize"] == [
        "cuEventCreate",
        "cuEventRecord",
        "cuEventSynchronize",
        "cuEventDestroy",
    ]


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
            lambda _=0: SimpleNamespace(handle=13, synchronize=self._inside(lambda: None))
        )
        self.event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)
        self.slept = self.freed = 0
        self.Event = self._inside(
            lambda _: SimpleNamespace(
                record=self._inside(lambda _: None), synchronize=self._inside(self._sleep)
            )
        )
        self.pagelocked_empty = self._inside(self._pagelocked)
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

    def _sleep(self) -> None:
        self.slept += 1

    def _pagelocked(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        held, values = self, np.full(shape, np.nan, dtype)

        class Pagelocked:
            __array_interface__ = values.__array_interface__
            memory = values

            def free(self) -> None:
                assert held.depth == 1, "no context is current"
                held.freed += 1

        return np.asarray(Pagelocked())

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
    pinned = gpu.pinned((2, 3))
    assert (pinned.shape, pinned.dtype, pinned.any()) == ((2, 3), np.float32, np.False_)
    gpu.free_pinned(pinned)
    assert driver.freed == 1
    with pytest.raises(EngineError, match="pycuda captures no CUDA graphs; install cuda-python"):
        gpu.capture(lambda: None)
    with pytest.raises(EngineError, match="the CUDA driver refused: cuMemAlloc failed"):
        gpu.allocate(10**12)
    gpu.close()
    gpu.close()
    assert driver.depth == 0
    with pytest.raises(EngineError, match="the GPU is closed"):
        gpu.free_bytes()


def test_a_thread_may_sleep_with_pycuda_too(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    driver = Pycuda(memory)
    monkeypatch.setattr(cuda_device, "_cuda_python", lambda: None)
    monkeypatch.setattr(cuda_device.importlib, "import_module", lambda _: driver)
    gpu = open_cuda_device(sleeps=True)
    gpu.synchronise()
    assert (driver.slept, driver.depth) == (1, 0)
    gpu.close()


def test_neither_library_is_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(cuda_device.importlib, "import_module", missing)
    with pytest.raises(EngineMissingError, match=r"neither cuda-python nor pycuda.*fundus-edge\["):
        open_cuda_device()
