"""Memory that a GPU reads or writes, described by the CUDA array interface.

The interface is how CuPy, PyTorch, Numba and others name their arrays (version 3, see
numba.readthedocs.io). `CudaArray` gives it to an address alone, such as an engine's input;
`view_of` reads it from whatever has it. Shapes are in elements, strides in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ArrayView", "CudaArray", "view_of"]


@dataclass(frozen=True)
class CudaArray:
    """An array at an address that the GPU reaches.

    Attributes:
        address: of the first element.
        shape: in elements.
        typestr: NumPy's name of the element's type: `|u1`, `<f2` or `<f4`.
        strides: in bytes; None is C order without gaps.
        owner: what keeps the memory alive, if this should.
        stream: the stream that still writes it (1 is the legacy default stream), None if none does.
    """

    address: int
    shape: tuple[int, ...]
    typestr: str
    strides: tuple[int, ...] | None = None
    owner: object = None
    stream: int | None = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface."""
        return {
            "version": 3,
            "data": (self.address, False),
            "shape": self.shape,
            "typestr": self.typestr,
            "strides": self.strides,
            "stream": self.stream,
        }


@dataclass(frozen=True)
class ArrayView:
    """What an array's owner says of it, with strides in every case."""

    address: int
    shape: tuple[int, ...]
    typestr: str
    strides: tuple[int, ...]
    writable: bool
    stream: int | None

    @property
    def contiguous(self) -> bool:
        """C order without gaps; an axis of one element may have any stride."""
        packed = _packed_strides(self.shape, self.typestr)
        return all(
            length == 1 or given == expected
            for length, given, expected in zip(self.shape, self.strides, packed, strict=True)
        )


def view_of(array: object) -> ArrayView | None:
    """The array that an object stands for: its CUDA array interface, or a NumPy array's own memory.

    Returns:
        None where it is neither, or its interface lacks a part or describes a masked array.
    """
    if isinstance(array, np.ndarray):
        return ArrayView(
            array.ctypes.data,
            array.shape,
            array.dtype.str,
            array.strides,
            array.flags.writeable,
            None,
        )
    interface = getattr(array, "__cuda_array_interface__", None)
    if not isinstance(interface, Mapping) or interface.get("mask") is not None:
        return None
    try:
        return _view_of_interface(interface)
    except (KeyError, TypeError, ValueError):
        return None


def _view_of_interface(interface: Mapping[str, Any]) -> ArrayView:
    address, read_only = interface["data"]
    shape = tuple(int(length) for length in interface["shape"])
    typestr = str(interface["typestr"])
    given = interface.get("strides")
    strides = _packed_strides(shape, typestr) if given is None else tuple(int(s) for s in given)
    if len(strides) != len(shape):
        raise ValueError("strides and shape are of different lengths")
    stream = interface.get("stream")
    return ArrayView(
        int(address),
        shape,
        typestr,
        strides,
        not read_only,
        None if stream is None else int(stream),
    )


def _packed_strides(shape: tuple[int, ...], typestr: str) -> tuple[int, ...]:
    size = np.dtype(typestr).itemsize
    return tuple(size * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
