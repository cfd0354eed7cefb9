"""The preprocessing on an NVIDIA GPU: from the frame's memory into the engine's input.

`CudaPreprocessor` does what `NativePreprocessor` does, to the same values, on a stream of the
caller. The frame lies in pinned host, managed or device memory and is read there, once; the tensor
is written where the engine reads it. Only a thumbnail visits the host, in between.

The wheel's core has no CUDA in it; where it was built without, making one says how to build it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from fundus_runtime import _native
from fundus_runtime.errors import EngineError, EngineMissingError, ImageError, SpecError
from fundus_runtime.preprocess.core_call import (
    MAX_FRAME_SIDE_PX,
    Color,
    geometry_of,
    require_color,
    spec_arguments,
)
from fundus_runtime.preprocess.cuda_array import ArrayView, CudaArray, view_of
from fundus_runtime.preprocess.eye import CropBox, FieldOfView, Frame, Mask
from fundus_runtime.preprocess.refusals import MIN_FRAME_SIDE_PX
from fundus_runtime.preprocess.spec import PreprocessSpec

__all__ = ["CudaArray", "CudaEye", "CudaPreprocessor", "core_has_cuda"]

_TENSOR_TYPES = {"<f4": False, "<f2": True}  # whether it is half precision


@dataclass(frozen=True)
class CudaEye:
    """An eye whose tensor the stream writes.

    Attributes:
        field_of_view: the disc in frame pixels.
        box: what was cropped, in frame pixels.
        image: S x S x 3 RGB, 8 bits, on the host; None unless it was asked for.
        mask: S x S, true where the image shows the fundus; None unless it was asked for.
    """

    field_of_view: FieldOfView
    box: CropBox
    image: Frame | None = None
    mask: Mask | None = None


class CudaPreprocessor:
    """Prepares photographs by one spec on one GPU; keeps its working memory from call to call.

    Calls from several threads are safe and wait for each other, without the interpreter's lock.

    Args:
        spec: what to do.
        device: the GPU's number.

    Raises:
        EngineMissingError: the core was built without CUDA.
        EngineError: CUDA refused: no driver, no such GPU, no memory.
    """

    def __init__(self, spec: PreprocessSpec, *, device: int = 0) -> None:
        if not core_has_cuda():
            raise EngineMissingError(
                "this core was built without CUDA; build it on a machine with the CUDA compiler: "
                "pip install fundus-edge --no-binary fundus-edge -C cmake.define.FUNDUS_CUDA=ON"
            )
        self.spec = spec
        with _typed_errors():
            self._core = _native.CudaPreprocessor(**spec_arguments(spec), device=device)

    def prepare(
        self, frame: object, *, color: Color, out: object, stream: int = 0, with_crop: bool = False
    ) -> CudaEye:
        """Find the field of view, and let the stream write the tensor.

        Returns once the field of view is known; with the crop, once all is done. The frame must
        stay as it is until the stream has come that far.

        Args:
            frame: H x W x 3, 8 bits, any strides: a NumPy array over pinned memory, or anything
                with the CUDA array interface, whose stream is waited for; see `CudaArray`.
            color: channel order of `frame`.
            out: 3 x S x S, or one of a batch as 1 x 3 x S x S, contiguous, FP32 or FP16, with the
                CUDA array interface. Untouched where the frame is refused.
            stream: handle of the CUDA stream; not one under capture.
            with_crop: also return the 8-bit image and the mask.

        Raises:
            ImageError: `frame` is no such array, too small or large, or lies in memory that the GPU
                cannot read, such as NumPy's own.
            SpecError: `out` does not fit, or lies in memory that the GPU cannot write.
            UngradableError: no field of view was found, or it is too small to resample.
            UsageError: `color` is neither of the two.
            EngineError: CUDA refused a call, or earlier work on this GPU failed.
        """
        require_color(color)
        source, target = _checked_frame(frame), _checked_tensor(out, self.spec.size)
        image, mask = self._buffers() if with_crop else (None, None)
        rows, columns, channels = source.strides
        with _typed_errors():
            answer = self._core.prepare(
                frame=source.address,
                height=source.shape[0],
                width=source.shape[1],
                strides=(rows, columns, channels),
                color=color,
                tensor=target.address,
                half=_TENSOR_TYPES[target.typestr],
                stream=stream,
                producer=source.stream,
                image=image,
                mask=None if mask is None else mask.view(np.uint8),
            )
        field, box = geometry_of(answer)
        return CudaEye(field, box, image, mask)

    def _buffers(self) -> tuple[Frame, Mask]:
        size = self.spec.size
        return np.empty((size, size, 3), np.uint8), np.empty((size, size), np.bool_)


def core_has_cuda() -> bool:
    """Whether the core was built with CUDA; says nothing of a GPU."""
    return hasattr(_native, "CudaPreprocessor")


@contextmanager
def _typed_errors() -> Iterator[None]:
    """The core's errors as the runtime's."""
    try:
        yield
    except _native.FrameMemoryError as error:
        raise ImageError(str(error)) from error
    except _native.TensorMemoryError as error:
        raise SpecError(str(error)) from error
    except _native.CudaError as error:
        raise EngineError(str(error)) from error


def _checked_frame(frame: object) -> ArrayView:
    view = view_of(frame)
    if view is None:
        raise ImageError(
            f"the frame is {type(frame).__name__}, expected a NumPy array over pinned memory or an "
            "object with the CUDA array interface"
        )
    if view.typestr != "|u1" or len(view.shape) != 3 or view.shape[2] != 3:
        raise ImageError(
            f"the frame is {view.typestr} of shape {view.shape}, "
            "expected |u1 (uint8) of shape (height, width, 3)"
        )
    if not MIN_FRAME_SIDE_PX <= min(view.shape[:2]) <= max(view.shape[:2]) <= MAX_FRAME_SIDE_PX:
        raise ImageError(
            f"the frame is {view.shape[1]} x {view.shape[0]} px, expected from "
            f"{MIN_FRAME_SIDE_PX} to {MAX_FRAME_SIDE_PX} on each side"
        )
    return view


def _checked_tensor(out: object, size: int) -> ArrayView:
    view = None if isinstance(out, np.ndarray) else view_of(out)
    if view is None:
        raise SpecError(
            f"out is {type(out).__name__}, expected an object with the CUDA array interface; "
            "CudaArray makes one of an address"
        )
    shapes = ((3, size, size), (1, 3, size, size))
    if view.typestr not in _TENSOR_TYPES or view.shape not in shapes:
        raise SpecError(
            f"out is {view.typestr} of shape {view.shape}, "
            f"expected <f4 or <f2 of shape (3, {size}, {size})"
        )
    if not (view.contiguous and view.writable):
        raise SpecError("out is not contiguous and writable; hand in the engine's own input")
    return view
