"""The native preprocessing: what the runtime runs, held to the reference.

`NativePreprocessor` does in C++ what `fundus_runtime.preprocess.reference` defines, from the same
frames to the same values and with the same errors. Field of view, box, mask and refusals are equal;
the 8-bit image is the exact area mean, at most one level from the reference's; the tensor is the
reference's FP32 arithmetic on that image, operation by operation.

Frames are H x W x 3, 8 bits, any strides, negative ones too; they are read where they lie and never
copied. Packed pixels, and packed ones with a fourth byte between them, are read fastest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fundus_runtime import _native
from fundus_runtime.errors import ImageError, SpecError, UsageError
from fundus_runtime.preprocess.core_call import (
    MAX_FRAME_SIDE_PX,
    Color,
    geometry_of,
    require_color,
    spec_arguments,
)
from fundus_runtime.preprocess.eye import EyeCrop, EyeTensor, Frame, Mask
from fundus_runtime.preprocess.refusals import require_frame
from fundus_runtime.preprocess.spec import PreprocessSpec

__all__ = ["NativePreprocessor"]

_MAX_THREADS = 256
_TENSOR_TYPES = (np.dtype(np.float32), np.dtype(np.float16))


class NativePreprocessor:
    """Prepares photographs by one spec; keeps its working memory from call to call.

    Calls from several threads are safe and run side by side, without the interpreter's lock; each
    has working memory to itself, of which as much is kept as was ever needed at once. With more
    than one thread of its own it does not outlive a `fork`: make it after.

    Args:
        spec: what to do.
        threads: how many threads share the resampling of one call, 1 to 256.

    Raises:
        UsageError: `threads` is out of range.
    """

    def __init__(self, spec: PreprocessSpec, *, threads: int = 1) -> None:
        if type(threads) is not int or threads not in range(1, _MAX_THREADS + 1):
            raise UsageError(f"threads is {threads!r}, expected 1 to {_MAX_THREADS}")
        self.spec = spec
        self._core = _core_of(spec, threads=threads)

    def crop(self, frame: Frame, *, color: Color) -> EyeCrop:
        """Field of view, crop and area resampling, as the reference's `crop_eye`.

        Args:
            frame: H x W x 3, 8 bits.
            color: channel order of `frame`.

        Raises:
            ImageError: `frame` is no such array, too small or beyond a million pixels on a side.
            UngradableError: no field of view was found, or it is too small to resample.
            UsageError: `color` is neither of the two.
        """
        _require(frame, color)
        image, mask = self._buffers()
        answer = self._core.crop(frame, color, image, mask.view(np.uint8))
        field, box = geometry_of(answer)
        return EyeCrop(image, mask, field, box)

    def prepare(
        self,
        frame: Frame,
        *,
        color: Color,
        out: npt.NDArray[Any] | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> EyeTensor:
        """The whole preprocessing, as the reference's `preprocess`.

        Args:
            frame: H x W x 3, 8 bits.
            color: channel order of `frame`.
            out: where the tensor goes: 3 x S x S, contiguous, writable, FP32 or FP16. Its type
                counts, not `dtype`. Untouched where the frame is refused.
            dtype: FP32 or FP16, of the tensor that is made where `out` is not given.

        Raises:
            ImageError: `frame` is no such array, too small or beyond a million pixels on a side.
            SpecError: `out` or `dtype` does not fit.
            UngradableError: no field of view was found, or it is too small to resample.
            UsageError: `color` is neither of the two.
        """
        _require(frame, color)
        size = self.spec.size
        tensor = _new_tensor(size, dtype) if out is None else _checked_tensor(out, size)
        image, mask = self._buffers()
        answer = self._core.prepare(frame, color, image, mask.view(np.uint8), tensor)
        field, _ = geometry_of(answer)
        return EyeTensor(tensor, image, mask, field)

    def _buffers(self) -> tuple[Frame, Mask]:
        size = self.spec.size
        return np.empty((size, size, 3), np.uint8), np.empty((size, size), np.bool_)


def _core_of(
    spec: PreprocessSpec, *, threads: int = 1, kernels: str = "best"
) -> _native.Preprocessor:
    """The C++ preprocessor of a spec; `kernels` forces one build of its inner loops."""
    return _native.Preprocessor(**spec_arguments(spec), threads=threads, kernels=kernels)


def _require(frame: Frame, color: str) -> None:
    require_frame(frame)
    if max(frame.shape[:2]) > MAX_FRAME_SIDE_PX:
        raise ImageError(
            f"the frame is {frame.shape[1]} x {frame.shape[0]} px, "
            f"expected at most {MAX_FRAME_SIDE_PX} on each side"
        )
    require_color(color)


def _new_tensor(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    try:
        known = np.dtype(dtype) in _TENSOR_TYPES
    except TypeError:  # no type at all
        known = False
    if not known:
        raise SpecError(f"dtype is {dtype!r}, expected float32 or float16")
    return np.empty((3, size, size), dtype)


def _checked_tensor(out: object, size: int) -> npt.NDArray[Any]:
    if not isinstance(out, np.ndarray):
        raise SpecError(f"out is {type(out).__name__}, expected a NumPy array")
    if out.dtype not in _TENSOR_TYPES or out.shape != (3, size, size):
        raise SpecError(
            f"out is {out.dtype} of shape {out.shape}, "
            f"expected float32 or float16 of shape (3, {size}, {size})"
        )
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise SpecError("out is not contiguous, aligned and writable; hand in a fresh array")
    return out
