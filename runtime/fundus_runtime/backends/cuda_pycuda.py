"""Device memory and streams of one GPU through pycuda, on the primary context as well.

pycuda captures no CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fundus_runtime.backends.cuda_common import (
    Array,
    closed,
    library_version,
    refused,
    version_text,
)
from fundus_runtime.errors import EngineError

__all__ = ["PycudaDevice"]

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: apart from the default stream of the host program


class PycudaDevice:
    """Driver API through pycuda, on the primary context as well."""

    def __init__(self, driver: Any, index: int, *, sleeps: bool = False) -> None:
        self._driver = driver
        self._event: Any = None
        self._held: dict[int, Any] = {}
        try:
            driver.init()
            self._device = driver.Device(index)
            self._context: Any = self._device.retain_primary_context()
            self._context.push()
            self._stream: Any = driver.Stream(_NON_BLOCKING)
            if sleeps:
                flags = driver.event_flags
                self._event = driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)
            self._context.pop()
        except driver.Error as error:
            raise refused(error) from error

    @property
    def name(self) -> str:
        return str(self._device.name()).strip()

    @property
    def compute_capability(self) -> tuple[int, int]:
        major, minor = self._device.compute_capability()
        return int(major), int(minor)

    @property
    def driver_version(self) -> str:
        return version_text(int(self._driver.get_driver_version()))

    @property
    def library(self) -> str:
        return library_version("pycuda")

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
        if self._event is None:
            self._in_context(self._stream.synchronize)
            return
        self._in_context(self._event.record, self._stream)
        self._in_context(self._event.synchronize)

    def pinned(self, shape: tuple[int, ...]) -> Array:
        values: Array = self._in_context(self._driver.pagelocked_empty, shape, np.float32)
        values[...] = 0
        return values

    def free_pinned(self, values: Array) -> None:
        self._in_context(values.base.free)  # type: ignore[union-attr]  # pycuda's allocation

    def capture(self, work: Callable[[], None]) -> Any:  # noqa: ARG002  # nothing is recorded
        raise EngineError(
            "pycuda captures no CUDA graphs; install cuda-python: "
            'pip install "fundus-edge[tensorrt]"'
        )

    def launch(self, graph: Any) -> None:
        raise EngineError(f"pycuda launches no CUDA graph, but got {graph!r}")

    def free_graph(self, graph: Any) -> None:
        pass

    def close(self) -> None:
        if self._context is None:
            return
        self._context.push()
        self._held.clear()
        self._stream = self._event = None
        self._context.pop()
        self._context.detach()
        self._context = None

    def _in_context(self, function: Any, *arguments: Any) -> Any:
        if self._context is None:
            raise closed()
        self._context.push()
        try:
            return function(*arguments)
        except self._driver.Error as error:
            raise refused(error) from error
        finally:
            self._context.pop()
