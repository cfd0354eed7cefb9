"""One ONNX Runtime session whose inputs and outputs lie in the device's own memory.

Memory is taken once for each combination of input shapes and used again: a run copies the inputs
in, computes, and copies the outputs out. One caller at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fundus_runtime.backends.protocol import Float32Array

__all__ = ["BoundSession"]

Shapes = tuple[tuple[int, ...], ...]

# An exam's are three; what tools ask beside it must not pile up in the GPU's memory.
_KEPT_SHAPES = 8


class BoundSession:
    """A session that is run through I/O binding.

    Args:
        session: the session; it stays the caller's.
        outputs: names of the outputs to compute.
        device: `cuda`, or `cpu` for tests of this class.
        index: number of the device.
    """

    def __init__(
        self, session: Any, outputs: Sequence[str], *, device: str, index: int = 0
    ) -> None:
        self._session = session
        self._outputs = tuple(outputs)
        self._device = device
        self._index = index
        self._bound: dict[Shapes, _Bound] = {}

    def run(self, feeds: Mapping[str, Float32Array]) -> list[Float32Array]:
        """The outputs, in the order that was given, as new arrays in host memory.

        Args:
            feeds: every input by name.
        """
        held = {name: np.ascontiguousarray(value, np.float32) for name, value in feeds.items()}
        shapes = tuple(value.shape for value in held.values())
        if shapes not in self._bound:
            if len(self._bound) >= _KEPT_SHAPES:
                self._bound.clear()
            self._bound[shapes] = _Bound(
                self._session, held, self._outputs, self._device, self._index
            )
        return self._bound[shapes].run(self._session, held)


class _Bound:
    """A binding with the device memory of its inputs."""

    def __init__(
        self,
        session: Any,
        feeds: Mapping[str, Float32Array],
        outputs: Sequence[str],
        device: str,
        index: int,
    ) -> None:
        from onnxruntime import OrtValue

        self._binding = session.io_binding()
        self._inputs = {
            name: OrtValue.ortvalue_from_shape_and_type(value.shape, np.float32, device, index)
            for name, value in feeds.items()
        }
        for name, memory in self._inputs.items():
            self._binding.bind_ortvalue_input(name, memory)
        for name in outputs:
            self._binding.bind_output(name, device, index)

    def run(self, session: Any, feeds: Mapping[str, Float32Array]) -> list[Float32Array]:
        for name, value in feeds.items():
            self._inputs[name].update_inplace(value)
        self._binding.synchronize_inputs()
        session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return [np.array(value) for value in self._binding.copy_outputs_to_cpu()]
