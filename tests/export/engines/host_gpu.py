"""A `CudaDevice` whose device memory is the host's, for the stand-in."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np


class HostGpu:
    """A `CudaDevice` whose device memory is the host's."""

    name = "Orin"
    compute_capability = (8, 7)
    driver_version = "12.6"
    library = "stand-in"
    stream = 7

    def __init__(self) -> None:
        self.closed = False
        self.memory: dict[int, Any] = {}

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
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    def to_host(self, values: np.ndarray, address: int) -> None:
        assert values.nbytes <= len(self.memory[address])
        ctypes.memmove(values.ctypes.data, address, values.nbytes)

    def synchronise(self) -> None:
        pass

    def close(self) -> None:
        assert not self.memory, "device memory was not given back"
        self.closed = True
