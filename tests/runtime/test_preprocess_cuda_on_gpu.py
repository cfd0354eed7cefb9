"""The CUDA preprocessing on a GPU: golden vectors, and the native preprocessing's bits.

    pip install -e . -C cmake.define.FUNDUS_CUDA=ON
    FUNDUS_REQUIRE_GPU=1 pytest tests/runtime/test_preprocess_cuda_on_gpu.py

Needs cuda-python or pycuda, for memory and a stream. What else a frame's memory may be, and two
streams in turn, the C++ test `cuda` tries (`make test-cuda-build`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_runtime.backends.cuda_device import CudaDevice, open_cuda_device
from fundus_runtime.errors import ImageError, UngradableError
from fundus_runtime.preprocess.cuda import CudaArray, CudaEye, CudaPreprocessor, core_has_cuda
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.preprocess.spec import PreprocessSpec

pytestmark = pytest.mark.needs_gpu

GOLDEN = Path(__file__).parent / "data" / "golden_preprocess.npz"
RANDOM_FRAMES = 100
TYPESTR = {np.dtype(np.float32): "<f4", np.dtype(np.float16): "<f2"}


@pytest.fixture(scope="module")
def gpu() -> Iterator[CudaDevice]:
    if not core_has_cuda():
        pytest.fail("the core has no CUDA: pip install -e . -C cmake.define.FUNDUS_CUDA=ON")
    device = open_cuda_device()
    yield device
    device.close()


def on_gpu(
    gpu: CudaDevice,
    preprocessor: CudaPreprocessor,
    frame: np.ndarray,
    *,
    color: Any = "rgb",
    dtype: type[np.floating[Any]] = np.float32,
) -> tuple[CudaEye, np.ndarray]:
    """Prepare a frame in device memory; the eye and its tensor on the host."""
    size = preprocessor.spec.size
    tensor = np.full((3, size, size), 7, dtype)
    source, target = gpu.allocate(frame.nbytes), gpu.allocate(tensor.nbytes)
    try:
        gpu.to_device(source, np.ascontiguousarray(frame))
        eye = preprocessor.prepare(
            CudaArray(source, frame.shape, "|u1"),
            color=color,
            out=CudaArray(target, tensor.shape, TYPESTR[tensor.dtype]),
            stream=gpu.stream,
            with_crop=True,
        )
        gpu.to_host(tensor, target)
        gpu.synchronise()
    finally:
        gpu.free(source)
        gpu.free(target)
    return eye, tensor


def assert_native_bits(
    eye: CudaEye, tensor: np.ndarray, frame: np.ndarray, spec: PreprocessSpec, color: Any = "rgb"
) -> None:
    native = NativePreprocessor(spec)
    expected = native.prepare(frame, color=color, dtype=tensor.dtype)
    assert eye.box == native.crop(frame, color=color).box
    assert eye.field_of_view == expected.field_of_view
    assert np.array_equal(eye.image, expected.crop)
    assert np.array_equal(eye.mask, expected.mask)
    assert np.array_equal(tensor, expected.tensor)


def test_golden_vectors_are_met(gpu: CudaDevice) -> None:
    with np.load(GOLDEN) as arrays:
        parts = {key: arrays[key] for key in arrays.files}
    names = {key.rpartition("/")[0] for key in parts}
    assert names
    for name in sorted(names):
        spec = PreprocessSpec.from_dict(json.loads(str(parts[f"{name}/spec"])))
        frame = parts[f"{name}/frame"]
        eye, tensor = on_gpu(gpu, CudaPreprocessor(spec), frame)
        assert astuple(eye.field_of_view) == tuple(parts[f"{name}/field_of_view"]), name
        assert astuple(eye.box) == tuple(parts[f"{name}/box"]), name
        assert np.array_equal(eye.mask, parts[f"{name}/mask"]), name
        assert eye.image is not None
        # the reference rounds an exact half either way: see the native tests
        assert np.abs(eye.image.astype(int) - parts[f"{name}/image"]).max() <= 1, name
        assert_native_bits(eye, tensor, frame, spec)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("size", [64, 224, 512, 2048])
def test_values_are_the_native_ones(
    gpu: CudaDevice,
    draw: Callable[..., np.ndarray],
    dtype: type[np.floating[Any]],
    color: str,
    size: int,
) -> None:
    spec = PreprocessSpec(size=size, illumination_window_px=size // 6 | 1)
    frame = draw(width=1203, height=901)
    eye, tensor = on_gpu(gpu, CudaPreprocessor(spec), frame, color=color, dtype=dtype)
    assert_native_bits(eye, tensor, frame, spec, color)


def test_random_frames_in_turn_on_one_preprocessor(
    gpu: CudaDevice, draw: Callable[..., np.ndarray]
) -> None:
    spec = PreprocessSpec(size=96, illumination_window_px=17)
    preprocessor = CudaPreprocessor(spec)
    random = np.random.default_rng(0)
    for seed in range(RANDOM_FRAMES):
        height, width = (int(side) for side in random.integers(120, 900, 2))
        frame = draw(height=height, width=width, seed=seed)
        eye, tensor = on_gpu(gpu, preprocessor, frame)
        assert_native_bits(eye, tensor, frame, spec)


def test_refused_frames_are_refused_alike_and_leave_the_next_one_alone(
    gpu: CudaDevice, draw: Callable[..., np.ndarray]
) -> None:
    spec = PreprocessSpec(size=64, illumination_window_px=11)
    preprocessor = CudaPreprocessor(spec)
    for level in (0, 200):
        with pytest.raises(UngradableError) as expected:
            NativePreprocessor(spec).prepare(np.full((100, 100, 3), level, np.uint8), color="rgb")
        with pytest.raises(UngradableError) as refused:
            on_gpu(gpu, preprocessor, np.full((100, 100, 3), level, np.uint8))
        assert str(refused.value) == str(expected.value)
        eye, tensor = on_gpu(gpu, preprocessor, draw())
        assert_native_bits(eye, tensor, draw(), spec)


def test_pageable_memory_is_refused_with_what_to_do(
    gpu: CudaDevice, draw: Callable[..., np.ndarray]
) -> None:
    out = gpu.allocate(3 * 64 * 64 * 4)
    preprocessor = CudaPreprocessor(PreprocessSpec(size=64, illumination_window_px=11))
    with pytest.raises(ImageError, match="cudaHostRegister"):
        preprocessor.prepare(draw(), color="rgb", out=CudaArray(out, (3, 64, 64), "<f4"))
    gpu.free(out)
