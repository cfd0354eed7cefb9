"""Device memory, streams and graphs of one NVIDIA GPU, through cuda-python or pycuda.

Both are used through CUDA's driver API on the GPU's primary context, the one that TensorRT's own
calls use, so that pointers mean the same everywhere. Copies end by the time that `synchronise`
returns; until then the host's array must live, and keep its values. Every call makes the context
current first, because a context is current in one thread at a time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from fundus_runtime.backends.cuda_common import Array
from fundus_runtime.backends.cuda_pycuda import PycudaDevice
from fundus_runtime.backends.cuda_python import CudaPythonDevice
from fundus_runtime.errors import EngineMissingError

__all__ = ["CudaDevice", "open_cuda_device"]


class CudaDevice(Protocol):
    """A GPU that memory can be taken from."""

    @property
    def name(self) -> str:
        """The GPU's name."""

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Major and minor."""

    @property
    def driver_version(self) -> str:
        """The newest CUDA that the driver speaks, for example `12.6`."""

    @property
    def library(self) -> str:
        """What calls the driver, with its version."""

    @property
    def stream(self) -> int:
        """Handle of the stream that everything runs on."""

    def free_bytes(self) -> int:
        """Device memory that is free; on Jetson it is the machine's own."""

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes of device memory."""

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""

    def to_device(self, address: int, values: Array) -> None:
        """Copy a C-contiguous array to device memory."""

    def to_host(self, values: Array, address: int) -> None:
        """Copy device memory into a C-contiguous array."""

    def synchronise(self) -> None:
        """Wait until everything on the stream is done."""

    def pinned(self, shape: tuple[int, ...]) -> Array:
        """A float32 array of zeros in page-locked host memory, which the GPU copies by itself."""

    def free_pinned(self, values: Array) -> None:
        """Give back what `pinned` returned; nothing may look at it any more."""

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what `work` puts on the stream, without running it, as a graph for `launch`.

        The graph holds addresses and shapes as they were. Whatever happens, the stream is then as
        it was before.

        Raises:
            EngineError: the work cannot be captured, or the library captures nothing.
        """

    def launch(self, graph: Any) -> None:
        """Put a captured graph on the stream."""

    def free_graph(self, graph: Any) -> None:
        """Give back what `capture` returned."""

    def close(self) -> None:
        """Free stream and context; closing twice is allowed."""


def open_cuda_device(index: int = 0, *, sleeps: bool = False) -> CudaDevice:
    """The GPU with this number, through cuda-python or, where only that is installed, pycuda.

    Args:
        index: as the driver counts GPUs.
        sleeps: whether a thread that waits for the GPU sleeps; else the driver decides, and mostly
            spins.

    Raises:
        EngineMissingError: neither is installed.
        EngineError: the driver refused.
    """
    driver = _cuda_python()
    if driver is not None:
        return CudaPythonDevice(driver, index, sleeps=sleeps)
    try:
        pycuda = importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise EngineMissingError(
            "neither cuda-python nor pycuda is installed, one of which device memory comes from; "
            'install one: pip install "fundus-edge[tensorrt]" (cuda-python) or '
            '"fundus-edge[pycuda]"'
        ) from error
    return PycudaDevice(pycuda, index, sleeps=sleeps)


def _cuda_python() -> Any:
    """cuda-python's driver module, which moved in 12.8; None where it is not installed."""
    for name in ("cuda.bindings.driver", "cuda.cuda"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
