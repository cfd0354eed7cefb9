"""A `CudaDevice` whose device memory is the host's, for the stand-in.

What is captured is recorded and not done, as with a real stream; `launch` does it, with the
addresses and shapes of the recording.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from fundus_runtime.errors import EngineError


class HostGpu:
    """A `CudaDevice` whose device memory is the host's."""

    name = "Orin"
    compute_capability = (8, 7)
    driver_version = "12.6"
    library = "stand-in"
    stream = 7

    def __init__(self, world: Any = None) -> None:
        self.closed = False
        self.memory: dict[int, Any] = {}
        self.host: dict[int, np.ndarray] = {}
        self.graphs: list[list[Callable[[], None]]] = []
        self.launches = 0
        self.refuses_capture = ""
        self.forgets = False
        self.world = SimpleNamespace(recorded=None) if world is None else world

    def free_bytes(self) -> int:
        return 1_000_000

    def allocate(self, size: int) -> int:
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def free(self, address: int) -> None:
        del self.memory[address]

    def to_device(self, address: int, values: np.ndarray) -> None:
        assert values.nbytes <= len(self.memory[address])
        self._do(lambda: ctypes.memmove(address, values.ctypes.data, values.nbytes))

    def to_host(self, values: np.ndarray, address: int) -> None:
        assert values.nbytes <= len(self.memory[address])
        self._do(lambda: ctypes.memmove(values.ctypes.data, address, values.nbytes))

    def synchronise(self) -> None:
        assert self.world.recorded is None, "a stream that captures cannot be waited for"

    def pinned(self, shape: tuple[int, ...]) -> np.ndarray:
        values = np.zeros(shape, np.float32)
        self.host[values.ctypes.data] = values
        return values

    def free_pinned(self, values: np.ndarray) -> None:
        del self.host[values.ctypes.data]

    def capture(self, work: Callable[[], None]) -> Any:
        self.world.recorded = []
        try:
            work()
            if self.refuses_capture:
                raise EngineError(self.refuses_capture)
            self.graphs.append(self.world.recorded)
        finally:
            self.world.recorded = None
        return self.graphs[-1]

    def launch(self, graph: Any) -> None:
        assert any(graph is one for one in self.graphs)
        self.launches += 1
        for step in () if self.forgets else graph:
            step()

    def free_graph(self, graph: Any) -> None:
        self.graphs = [one for one in self.graphs if one is not graph]

    def _do(self, step: Callable[[], Any]) -> None:
        if self.world.recorded is None:
            step()
        else:
            self.world.recorded.append(step)

    def close(self) -> None:
        assert not self.memory, "device memory was not given back"
        assert not self.host, "page-locked memory was not given back"
        assert not self.graphs, "graphs were not given back"
        self.closed = True
