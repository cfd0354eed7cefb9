"""Device memory and streams of one NVIDIA GPU, through cuda-python or pycuda.

Both are used through CUDA's driver API on the GPU's primary context, the one that TensorRT's own
calls use, so that pointers mean the same everywhere. Copies are synchronous as far as the caller
can tell: host arrays may be reused once `synchronise` has returned. Every call makes the context
current first, because a context is current in one thread at a time.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy.typing as npt

from fundus_runtime.errors import EngineError, EngineMissingError

__all__ = ["CudaDevice", "open_cuda_device"]

Array = npt.NDArray[Any]

# CUdevice_attribute, the same numbers in every CUDA
_COMPUTE_CAPABILITY = (75, 76)


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

    def close(self) -> None:
        """Free stream and context; closing twice is allowed."""


def open_cuda_device(index: int = 0) -> CudaDevice:
    """The GPU with this number, through cuda-python or, where only that is installed, pycuda.

    Raises:
        EngineMissingError: neither is installed.
        EngineError: the driver refused.
    """
    driver = _cuda_python()
    if driver is not None:
        return _CudaPythonDevice(driver, index)
    try:
        pycuda = importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise EngineMissingError(
            "neither cuda-python nor pycuda is installed, one of which device memory comes from; "
            'install one: pip install "fundus-edge[tensorrt]" (cuda-python) or '
            '"fundus-edge[pycuda]"'
        ) from error
    return _PycudaDevice(pycuda, index)


def _cuda_python() -> Any:
    """cuda-python's driver module, which moved in 12.8; None where it is not installed."""
    for name in ("cuda.bindings.driver", "cuda.cuda"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _version_text(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _library(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution


class _CudaPythonDevice:
    """Driver API through cuda-python."""

    def __init__(self, driver: Any, index: int) -> None:
        self._driver = driver
        self._call(driver.cuInit, 0)
        self._device = self._call(driver.cuDeviceGet, index)
        self._context: Any = self._call(driver.cuDevicePrimaryCtxRetain, self._device)
        self._make_current()
        self._stream: Any = self._call(driver.cuStreamCreate, 0)

    @property
    def name(self) -> str:
        raw = self._call(self._driver.cuDeviceGetName, 128, self._device)
        return bytes(raw).split(b"\0")[0].decode("utf-8", "replace").strip()

    @property
    def compute_capability(self) -> tuple[int, int]:
        kind = self._driver.CUdevice_attribute
        major, minor = (
            int(self._call(self._driver.cuDeviceGetAttribute, kind(number), self._device))
            for number in _COMPUTE_CAPABILITY
        )
        return major, minor

    @property
    def driver_version(self) -> str:
        return _version_text(int(self._call(self._driver.cuDriverGetVersion)))

    @property
    def library(self) -> str:
        return _library("cuda-python")

    @property
    def stream(self) -> int:
        return int(self._stream)

    def free_bytes(self) -> int:
        self._make_current()
        free, _ = self._call(self._driver.cuMemGetInfo)
        return int(free)

    def allocate(self, size: int) -> int:
        self._make_current()
        return int(self._call(self._driver.cuMemAlloc, size))

    def free(self, address: int) -> None:
        self._make_current()
        self._call(self._driver.cuMemFree, address)

    def to_device(self, address: int, values: Array) -> None:
        self._make_current()
        copy = self._driver.cuMemcpyHtoDAsync
        self._call(copy, address, values.ctypes.data, values.nbytes, self._stream)

    def to_host(self, values: Array, address: int) -> None:
        self._make_current()
        copy = self._driver.cuMemcpyDtoHAsync
        self._call(copy, values.ctypes.data, address, values.nbytes, self._stream)

    def synchronise(self) -> None:
        self._make_current()
        self._call(self._driver.cuStreamSynchronize, self._stream)

    def close(self) -> None:
        if self._context is None:
            return
        self._make_current()
        self._call(self._driver.cuStreamDestroy, self._stream)
        self._call(self._driver.cuDevicePrimaryCtxRelease, self._device)
        self._context = self._stream = None

    def _make_current(self) -> None:
        if self._context is None:
            raise EngineError("the GPU is closed; open it again")
        self._call(self._driver.cuCtxSetCurrent, self._context)

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            status, *values = function(*arguments)
        except RuntimeError as error:  # the driver's library is missing, or too old for the call
            raise _refused(error) from error
        if int(status) != 0:
            raise EngineError(
                f"the CUDA driver refused {function.__name__}: {getattr(status, 'name', status)}; "
                "see whether another program holds the GPU or its memory"
            )
        return values[0] if len(values) == 1 else tuple(values)


class _PycudaDevice:
    """Driver API through pycuda, on the primary context as well."""

    def __init__(self, driver: Any, index: int) -> None:
        self._driver = driver
        self._held: dict[int, Any] = {}
        try:
            driver.init()
            self._device = driver.Device(index)
            self._context: Any = self._device.retain_primary_context()
            self._context.push()
            self._stream: Any = driver.Stream()
            self._context.pop()
        except driver.Error as error:
            raise _refused(error) from error

    @property
    def name(self) -> str:
        return str(self._device.name()).strip()

    @property
    def compute_capability(self) -> tuple[int, int]:
        major, minor = self._device.compute_capability()
        return int(major), int(minor)

    @property
    def driver_version(self) -> str:
        return _version_text(int(self._driver.get_driver_version()))

    @property
    def library(self) -> str:
        return _library("pycuda")

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def free_bytes(self) -> int:
        free, _ = self._in_context(self._driver.mem_get_info)
        return int(free)

    def allocate(self, size: int) -> int:
        memory = self._in_context(self._driver.mem_alloc, size)
        address = int(memory)
        self._held[address] = memory  # pycuda frees what nobody holds
        return address

    def free(self, address: int) -> None:
        self._in_context(self._held.pop(address).free)

    def to_device(self, address: int, values: Array) -> None:
        self._in_context(self._driver.memcpy_htod_async, address, values, self._stream)

    def to_host(self, values: Array, address: int) -> None:
        self._in_context(self._driver.memcpy_dtoh_async, values, address, self._stream)

    def synchronise(self) -> None:
        self._in_context(self._stream.synchronize)

    def close(self) -> None:
        if self._context is None:
            return
        self._context.push()
        self._held.clear()
        self._stream = None
        self._context.pop()
        self._context.detach()
        self._context = None

    def _in_context(self, function: Any, *arguments: Any) -> Any:
        if self._context is None:
            raise EngineError("the GPU is closed; open it again")
        self._context.push()
        try:
            return function(*arguments)
        except self._driver.Error as error:
            raise _refused(error) from error
        finally:
            self._context.pop()


def _refused(error: Exception) -> EngineError:
    return EngineError(
        f"the CUDA driver refused: {error}; see whether another program holds the GPU or its memory"
    )
