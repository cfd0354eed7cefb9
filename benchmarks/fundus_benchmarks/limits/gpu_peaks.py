"""The same peaks of a GPU, where PyTorch or ONNX Runtime computes on one.

Neither is asked for where it sees no GPU, and nothing is reported then. All work of a repetition
is queued before the GPU is waited for, so that launching it does not count. On a GPU this has not
been run yet; tests run it on the CPU's devices of the same libraries.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fundus_benchmarks.limits.peaks import fastest_s
from fundus_benchmarks.limits.products import WrongProductError

__all__ = ["Device", "GpuPeaks", "OnnxRuntimeDevice", "TorchDevice", "find_gpu", "measure_gpu"]

Array = NDArray[Any]

SIDE = 4096
COPIED_MB = 512
_QUEUED = 10
_CHECKED_ROWS = 16
_TYPES = {"fp32_gflops": np.float32, "fp16_gflops": np.float16, "int8_gops": np.int8}
# In standard deviations of the answer; TF32 in the place of FP32 is 5e-4 away. INT8 is exact.
_TOLERANCES = {"fp32_gflops": 5e-5, "fp16_gflops": 2e-2, "int8_gops": 0.0}
_LARGEST_INT8 = 63
_ONNX_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int8): TensorProto.INT8,
}


@dataclass(frozen=True)
class Task:
    """Work that lies ready on a device.

    Attributes:
        start: queues it once.
        answer: waits and fetches what it made.
    """

    start: Callable[[], object]
    answer: Callable[[], Array]


class Device(Protocol):
    """Where to compute, and by what."""

    name: str

    def product(self, left: Array, right: Array) -> Task:
        """Make a matrix product ready."""

    def copy(self, source: Array) -> Task:
        """Make a pass ready that reads and writes `source`, save for its signs."""

    def wait(self) -> None:
        """Wait for all that was queued."""


@dataclass(frozen=True)
class GpuPeaks:
    """What a GPU reached.

    Attributes:
        by: library and device.
        figures: 10^9 a second, by `fp32_gflops`, `fp16_gflops`, `int8_gops`, `copy_gb_s`.
        missing: `what` was not measured, and `why`.
    """

    by: str
    figures: dict[str, float]
    missing: tuple[dict[str, str], ...]


class TorchDevice:
    """PyTorch.

    Args:
        device: `cuda`, or `cpu` in tests.
    """

    def __init__(self, device: str = "cuda") -> None:
        import torch

        self._torch, self._device = torch, device
        who = torch.cuda.get_device_name() if device == "cuda" else device
        self.name = f"PyTorch {torch.__version__} on {who}"

    def product(self, left: Array, right: Array) -> Task:
        """A product; of int8 into int32."""
        a, b = (self._torch.from_numpy(one).to(self._device) for one in (left, right))
        multiply = self._torch._int_mm if left.dtype == np.int8 else self._torch.mm
        return Task(lambda: multiply(a, b), lambda: multiply(a, b).cpu().numpy())

    def copy(self, source: Array) -> Task:
        """A copy within the device's memory."""
        here = self._torch.from_numpy(source).to(self._device)
        there = self._torch.empty_like(here)
        return Task(lambda: there.copy_(here), lambda: there.copy_(here).cpu().numpy())

    def wait(self) -> None:
        """Wait for the device."""
        if self._device == "cuda":
            self._torch.cuda.synchronize()


class OnnxRuntimeDevice:
    """ONNX Runtime, tensors bound to the device.

    Args:
        provider: its execution provider.
        device: as ONNX Runtime names it.
    """

    def __init__(self, provider: str = "CUDAExecutionProvider", device: str = "cuda") -> None:
        import onnxruntime

        self._runtime, self._provider, self._device = onnxruntime, provider, device
        self.name = f"ONNX Runtime {onnxruntime.__version__} on {device}"

    def product(self, left: Array, right: Array) -> Task:
        """A product; of int8 into int32."""
        kind = "MatMulInteger" if left.dtype == np.int8 else "MatMul"
        return self._task(kind, {"left": left, "right": right})

    def copy(self, source: Array) -> Task:
        """A change of sign, the plainest pass over memory that no optimiser leaves out."""
        return self._task("Neg", {"source": source})

    def wait(self) -> None:
        """Nothing to wait for: each run ends with the device's work done."""

    def _task(self, kind: str, inputs: dict[str, Array]) -> Task:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        # else what the GPU lacks would be timed on the CPU
        if self._device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = self._runtime.InferenceSession(
            _graph(kind, inputs), options, providers=[self._provider]
        )
        binding = session.io_binding()
        for name, value in inputs.items():
            placed = self._runtime.OrtValue.ortvalue_from_numpy(value, self._device, 0)
            binding.bind_ortvalue_input(name, placed)
        binding.bind_output("answer", self._device)

        def run() -> None:
            session.run_with_iobinding(binding)

        def answer() -> Array:
            run()
            fetched: Array = binding.copy_outputs_to_cpu()[0]
            return fetched

        return Task(run, answer)


def find_gpu() -> Device | None:
    """A library that sees a CUDA GPU; None without one."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return TorchDevice()
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return OnnxRuntimeDevice()
    return None


def measure_gpu(
    device: Device, *, seconds: float, side: int = SIDE, copied_mb: int = COPIED_MB
) -> GpuPeaks:
    """Measure products and a copy.

    Args:
        device: where.
        seconds: of measuring, in all.
        side: rows and columns of the matrices.
        copied_mb: size of what is copied, in 2^20 bytes.
    """
    figures: dict[str, float] = {}
    missing: list[dict[str, str]] = []
    each = seconds / (len(_TYPES) + 1)
    for figure in (*_TYPES, "copy_gb_s"):
        try:
            if figure == "copy_gb_s":
                figures[figure] = _copy_rate(device, copied_mb, each)
            else:
                figures[figure] = _product_rate(device, figure, side, each)
        except Exception as error:  # each library's errors have their own types
            missing.append({"what": f"{figure} of {device.name}", "why": str(error)})
    return GpuPeaks(device.name, figures, tuple(missing))


def _product_rate(device: Device, figure: str, side: int, seconds: float) -> float:
    left, right = (_drawn(_TYPES[figure], side, seed) for seed in (0, 1))
    task = device.product(left, right)
    some = left[:_CHECKED_ROWS].astype(np.float64) @ right.astype(np.float64)
    difference = float(np.abs(task.answer()[:_CHECKED_ROWS] - some).max())
    most = _TOLERANCES[figure] * math.sqrt(side)
    if not difference <= most:
        raise WrongProductError(
            f"{device.name} is {difference:.3g} away from NumPy's product, at most {most:.3g} was "
            "expected; its speed is left out"
        )
    return 2 * side**3 / _once_s(device, task, seconds) / 1e9


def _copy_rate(device: Device, megabytes: int, seconds: float) -> float:
    source = np.random.default_rng(0).standard_normal(megabytes << 18, np.float32)
    task = device.copy(source)
    if not np.array_equal(np.abs(task.answer()), np.abs(source)):
        raise RuntimeError(f"the copy by {device.name} differs from its source")
    return 2 * source.nbytes / _once_s(device, task, seconds) / 1e9


def _once_s(device: Device, task: Task, seconds: float) -> float:
    def queue() -> None:
        for _ in range(_QUEUED):
            task.start()
        device.wait()

    return fastest_s(queue, seconds=seconds) / _QUEUED


def _drawn(kind: Any, side: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if kind == np.int8:
        return rng.integers(-_LARGEST_INT8, _LARGEST_INT8 + 1, (side, side), np.int8)
    return rng.standard_normal((side, side), np.float32).astype(kind)


def _graph(kind: str, inputs: dict[str, Array]) -> bytes:
    values = [
        helper.make_tensor_value_info(name, _ONNX_TYPES[value.dtype], value.shape)
        for name, value in inputs.items()
    ]
    first = next(iter(inputs.values()))
    made = TensorProto.INT32 if kind == "MatMulInteger" else _ONNX_TYPES[first.dtype]
    answer = helper.make_tensor_value_info("answer", made, first.shape)
    graph = helper.make_graph(
        [helper.make_node(kind, list(inputs), ["answer"])], "task", values, [answer]
    )
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())
