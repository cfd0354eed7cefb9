"""The CUDA preprocessing without a GPU: what is refused before one, and what is handed over.

A stand-in takes the core's place. It does the real work, on host memory, by the addresses and
strides that it is handed. `test_preprocess_cuda_on_gpu.py` asks the real one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_runtime import _native
from fundus_runtime.errors import (
    EngineError,
    EngineMissingError,
    ImageError,
    SpecError,
    UngradableError,
    UsageError,
)
from fundus_runtime.preprocess.cuda import CudaArray, CudaPreprocessor, core_has_cuda
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.preprocess.spec import PreprocessSpec

SPEC = PreprocessSpec(size=64, illumination_window_px=11)
Draw = Callable[..., np.ndarray]


class CoreError(Exception):
    """Stands for the errors that only a core with CUDA has."""


class HostCore:
    """`_native.CudaPreprocessor` on host memory."""

    error: Exception | None = None

    def __init__(self, *, device: int, **spec: Any) -> None:
        assert device == 0
        self.core = _native.Preprocessor(**spec, threads=1, kernels="best")
        self.size = spec["size"]

    def prepare(
        self, *, height: int, width: int, color: str, half: bool, **memory: Any
    ) -> tuple[Any, ...]:
        if self.error is not None:
            raise self.error
        frame = host_array(memory["frame"], (height, width, 3), "|u1", memory["strides"])
        shape = (3, self.size, self.size)
        tensor = host_array(memory["tensor"], shape, "<f2" if half else "<f4", None)
        image, mask = memory["image"], memory["mask"]
        if image is None:
            image = np.empty((self.size, self.size, 3), np.uint8)
            mask = np.empty((self.size, self.size), np.uint8)
        return self.core.prepare(frame, color, image, mask, tensor)


def host_array(
    address: int, shape: tuple[int, ...], typestr: str, strides: tuple[int, ...] | None
) -> np.ndarray:
    class Interface:
        __array_interface__ = {  # noqa: RUF012 - the protocol's name, read once
            "version": 3,
            "data": (address, False),
            "shape": shape,
            "typestr": typestr,
            "strides": strides,
        }

    return np.asarray(Interface())


def named(array: np.ndarray, **more: Any) -> CudaArray:
    """Host memory under the CUDA array interface."""
    shape, typestr = array.shape, array.dtype.str
    return CudaArray(array.ctypes.data, shape, typestr, array.strides, owner=array, **more)


def tensor_of(dtype: type[np.floating[Any]] = np.float32, size: int = SPEC.size) -> np.ndarray:
    return np.full((3, size, size), 7, dtype)


@pytest.fixture
def host_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HostCore]]:
    monkeypatch.setattr(_native, "CudaPreprocessor", HostCore, raising=False)
    for name in ("CudaError", "FrameMemoryError", "TensorMemoryError"):
        monkeypatch.setattr(_native, name, type(name, (CoreError,), {}), raising=False)
    yield HostCore
    HostCore.error = None


def test_a_core_without_cuda_says_how_to_build_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_native, "CudaPreprocessor", raising=False)
    assert not core_has_cuda()
    with pytest.raises(EngineMissingError, match="FUNDUS_CUDA=ON"):
        CudaPreprocessor(SPEC)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_frame_and_tensor_are_handed_over_as_they_lie(
    host_core: type[HostCore], dtype: type[np.floating[Any]], color: str, draw: Draw
) -> None:
    whole = np.zeros((300, 350, 4), np.uint8)
    whole[10:290, 20:340, :3] = draw()
    frames = (draw(), whole[10:290, 20:340, :3], draw()[::-1], draw()[:, :, ::-1])
    for frame in frames:
        tensor = tensor_of(dtype)
        eye = CudaPreprocessor(SPEC).prepare(
            named(frame), color=color, out=named(tensor), with_crop=True
        )
        expected = NativePreprocessor(SPEC).prepare(frame, color=color, dtype=dtype)
        assert np.array_equal(tensor, expected.tensor)
        assert np.array_equal(eye.image, expected.crop)
        assert np.array_equal(eye.mask, expected.mask)
        assert eye.field_of_view == expected.field_of_view


def test_numpy_memory_and_one_eye_of_a_batch_are_taken(
    host_core: type[HostCore], draw: Draw
) -> None:
    frame, batch = draw(), np.zeros((2, 3, SPEC.size, SPEC.size), np.float32)
    eye = CudaPreprocessor(SPEC).prepare(frame, color="rgb", out=named(batch[1:]))
    assert eye.image is None
    assert not batch[0].any()
    assert np.array_equal(batch[1], NativePreprocessor(SPEC).prepare(frame, color="rgb").tensor)


def test_refused_frames_are_the_native_refusals(host_core: type[HostCore]) -> None:
    tensor = tensor_of()
    for frame in (np.zeros((100, 100, 3), np.uint8), np.full((100, 100, 3), 200, np.uint8)):
        with pytest.raises(UngradableError) as expected:
            NativePreprocessor(SPEC).prepare(frame, color="rgb")
        with pytest.raises(UngradableError) as refused:
            CudaPreprocessor(SPEC).prepare(named(frame), color="rgb", out=named(tensor))
        assert str(refused.value) == str(expected.value)
    assert (tensor == 7).all()


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ("eye.jpg", "str"),
        (np.zeros((100, 100, 3), np.float32), "f4"),
        (np.zeros((100, 100), np.uint8), "shape"),
        (np.zeros((100, 100, 4), np.uint8), "shape"),
        (np.zeros((100, 40, 3), np.uint8), "40 x 100"),
        (np.zeros((0, 100, 3), np.uint8), "100 x 0"),
        (CudaArray(64, (1 << 21, 100, 3), "|u1"), "1048576"),
        (CudaArray(64, (100, 100, 3), "|u1", (300, 3)), "CudaArray"),
    ],
)
def test_what_is_no_frame_is_refused_before_the_gpu(
    host_core: type[HostCore], frame: object, says: str
) -> None:
    host_core.error = AssertionError("the core was asked")
    with pytest.raises(ImageError, match=says):
        CudaPreprocessor(SPEC).prepare(frame, color="rgb", out=named(tensor_of()))


@pytest.mark.parametrize(
    ("out", "says"),
    [
        (tensor_of(), "ndarray"),
        (None, "NoneType"),
        (CudaArray(64, (3, 64, 64), "<f8"), "<f8"),
        (CudaArray(64, (3, 64, 65), "<f4"), "65"),
        (CudaArray(64, (2, 3, 64, 64), "<f4"), "shape"),
        (CudaArray(64, (3, 64, 64), "<f4", (64 * 64 * 8, 64 * 8, 8)), "contiguous"),
    ],
)
def test_what_is_no_tensor_is_refused_before_the_gpu(
    host_core: type[HostCore], out: object, says: str, draw: Draw
) -> None:
    host_core.error = AssertionError("the core was asked")
    with pytest.raises(SpecError, match=says):
        CudaPreprocessor(SPEC).prepare(named(draw()), color="rgb", out=out)


def test_a_color_has_no_other_name(host_core: type[HostCore], draw: Draw) -> None:
    with pytest.raises(UsageError, match="grb"):
        CudaPreprocessor(SPEC).prepare(named(draw()), color="grb", out=named(tensor_of()))  # type: ignore[arg-type]


def test_the_cores_errors_are_the_runtimes(host_core: type[HostCore], draw: Draw) -> None:
    typed = {
        "CudaError": EngineError,
        "FrameMemoryError": ImageError,
        "TensorMemoryError": SpecError,
    }
    for name, error in typed.items():
        host_core.error = getattr(_native, name)("what CUDA said")
        with pytest.raises(error, match="what CUDA said"):
            CudaPreprocessor(SPEC).prepare(named(draw()), color="rgb", out=named(tensor_of()))


# In a process of its own: this one has the installed core.
ASK_BUILT_CORE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("fundus_runtime._native", sys.argv[1])
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
from fundus_runtime.errors import EngineError
from fundus_runtime.preprocess.cuda import CudaPreprocessor, core_has_cuda
from fundus_runtime.preprocess.spec import PreprocessSpec
assert core_has_cuda()
try:
    print("GPU:", CudaPreprocessor(PreprocessSpec()))
except EngineError as error:
    print("no GPU:", error)
"""


def test_a_core_built_with_cuda_finds_a_gpu_or_says_why_not() -> None:
    folder = os.environ.get("FUNDUS_CUDA_BUILD")
    if not folder:
        pytest.skip("needs what `make test-cuda-build` builds: FUNDUS_CUDA_BUILD names no folder")
    (core,) = Path(folder).rglob("_native" + str(sysconfig.get_config_var("EXT_SUFFIX")))
    command = [sys.executable, "-W", "error", "-c", ASK_BUILT_CORE, str(core)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "GPU:" in answer.stdout
    if os.environ.get("FUNDUS_REQUIRE_GPU") == "1":
        assert answer.stdout.startswith("GPU:"), answer.stdout
    elif answer.stdout.startswith("no GPU:"):
        assert "driver" in answer.stdout
