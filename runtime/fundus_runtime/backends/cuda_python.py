"""Device memory, streams and graphs of one GPU through cuda-python, the driver's API.

Every function of cuda-python answers a status before its values. Enumerations are passed as their
own members: cuda-python 12 takes no number in their place.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from fundus_runtime.backends.cuda_common import (
    COMPUTE_CAPABILITY,
    Array,
    closed,
    library_version,
    refused,
    version_text,
)
from fundus_runtime.errors import EngineError

__all__ = ["CudaPythonDevice"]

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: apart from the default stream of the host program
_SLEEPING_EVENT = 1 | 2  # CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING


class CudaPythonDevice:
    """Driver API through cuda-python."""

    def __init__(self, driver: Any, index: int, *, sleeps: bool = False) -> None:
        self._driver = driver
        self._event: Any = None
        self._call(driver.cuInit, 0)
        self._device = self._call(driver.cuDeviceGet, index)
        self._context: Any = self._call(driver.cuDevicePrimaryCtxRetain, self._device)
        self._make_current()
        self._stream: Any = self._call(driver.cuStreamCreate, _NON_BLOCKING)
        if sleeps:
            self._event = self._call(driver.cuEventCreate, _SLEEPING_EVENT)

    @property
    def name(self) -> str:
        raw = self._call(self._driver.cuDeviceGetName, 128, self._device)
        return bytes(raw).split(b"\0")[0].decode("utf-8", "replace").strip()

    @property
    def compute_capability(self) -> tuple[int, int]:
        kind = self._driver.CUdevice_attribute
        major, minor = (
            int(self._call(self._driver.cuDeviceGetAttribute, kind(number), self._device))
            for number in COMPUTE_CAPABILITY
        )
        return major, minor

    @property
    def driver_version(self) -> str:
        return version_text(int(self._call(self._driver.cuDriverGetVersion)))

    @property
    def library(self) -> str:
        return library_version("cuda-python")

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
        if self._event is None:
            self._call(self._driver.cuStreamSynchronize, self._stream)
            return
        self._call(self._driver.cuEventRecord, self._event, self._stream)
        self._call(self._driver.cuEventSynchronize, self._event)

    def pinned(self, shape: tuple[int, ...]) -> Array:
        self._make_current()
        count = int(np.prod(shape))
        address = int(self._call(self._driver.cuMemAllocHost, 4 * count))
        values = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
        values[:] = 0
        return values.reshape(shape)

    def free_pinned(self, values: Array) -> None:
        self._make_current()
        self._call(self._driver.cuMemFreeHost, values.ctypes.data)

    def capture(self, work: Callable[[], None]) -> Any:
        self._make_current()
        driver = self._driver
        # other threads of the program may go on asking the driver for memory
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(driver.cuStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BaseException:
            with suppress(EngineError):  # the stream must leave the capture, whatever it answers
                self._call(driver.cuStreamEndCapture, self._stream)
            raise
        graph = self._call(driver.cuStreamEndCapture, self._stream)
        try:
            return self._call(driver.cuGraphInstantiate, graph, 0)
        finally:
            self._call(driver.cuGraphDestroy, graph)

    def launch(self, graph: Any) -> None:
        self._make_current()
        self._call(self._driver.cuGraphLaunch, graph, self._stream)

    def free_graph(self, graph: Any) -> None:
        self._make_current()
        self._call(self._driver.cuGraphExecDestroy, graph)

    def close(self) -> None:
        if self._context is None:
            return
        self._make_current()
        if self._event is not None:
            self._call(self._driver.cuEventDestroy, self._event)
        self._call(self._driver.cuStreamDestroy, self._stream)
        self._call(self._driver.cuDevicePrimaryCtxRelease, self._device)
        self._context = self._stream = self._event = None

    def _make_current(self) -> None:
        if self._context is None:
            raise closed()
        self._call(self._driver.cuCtxSetCurrent, self._context)

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            status, *values = function(*arguments)
        except RuntimeError as error:  # the driver's library is missing, or too old for the call
            raise refused(error) from error
        if int(status) != 0:
            raise EngineError(
                f"the CUDA driver refused {function.__name__}: {getattr(status, 'name', status)}; "
                "see whether another program holds the GPU or its memory"
            )
        return values[0] if len(values) == 1 else tuple(values)
