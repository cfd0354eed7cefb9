"""How the native preprocessing is called: layouts, the caller's memory, threads, refusals."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from fundus_runtime.errors import ImageError, SpecError, UngradableError, UsageError
from fundus_runtime.preprocess import EyeCrop, FieldOfView, PreprocessSpec, preprocess
from fundus_runtime.preprocess.native import NativePreprocessor

SMALL = PreprocessSpec(size=40, illumination_window_px=9)


def textured(
    height: int, width: int, center: tuple[float, float], radius: float, seed: int = 0
) -> np.ndarray:
    """Bright noise inside a disc, black outside."""
    y, x = np.ogrid[:height, :width]
    inside = (x + 0.5 - center[0]) ** 2 + (y + 0.5 - center[1]) ** 2 <= radius**2
    noise = np.random.default_rng(seed).integers(60, 256, (height, width, 3))
    return (noise * inside[:, :, None]).astype(np.uint8)


FRAME = textured(190, 240, (130, 90), 85)


def test_preprocessor_stays_usable_after_a_refusal() -> None:
    native = NativePreprocessor(SMALL)
    before = native.prepare(FRAME, color="rgb")
    with pytest.raises(UngradableError):
        native.prepare(np.zeros_like(FRAME), color="rgb")
    with pytest.raises(ImageError):
        native.prepare(FRAME[:10], color="rgb")
    assert np.array_equal(native.prepare(FRAME, color="rgb").tensor, before.tensor)


# --- frames of other layouts, and what is no frame


def layouts(frame: np.ndarray) -> Iterator[np.ndarray]:
    """The same frame as cameras and libraries hand it out."""
    height, width = frame.shape[:2]
    yield np.asfortranarray(frame)
    yield np.ascontiguousarray(frame[::-1])[::-1]
    yield np.ascontiguousarray(frame[::-1, ::-1])[::-1, ::-1]
    yield np.ascontiguousarray(frame[:, :, ::-1])[:, :, ::-1]
    yield np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    for channels, step in ((4, 1), (4, 2), (5, 1), (7, 3)):
        wide = np.full((step * height, step * width + 3, channels), 255, np.uint8)
        view = wide[::step, 3::step, -3:]
        view[...] = frame
        yield view
    read_only = frame.copy()
    read_only.flags.writeable = False
    yield read_only


def test_memory_layout_does_not_matter() -> None:
    native = NativePreprocessor(SMALL)
    expected = native.prepare(FRAME, color="rgb")
    strides = set()
    for same in layouts(FRAME):
        strides.add(same.strides)
        assert np.array_equal(native.prepare(same, color="rgb").tensor, expected.tensor)
    assert len(strides) >= 8
    reversed_view = native.prepare(FRAME[:, :, ::-1], color="bgr")
    assert np.array_equal(reversed_view.tensor, expected.tensor)
    assert np.array_equal(reversed_view.crop, expected.crop)


def test_no_layout_is_copied() -> None:
    frame = textured(600, 700, (350, 300), 250)
    native = NativePreprocessor(SMALL)
    for same in layouts(frame):
        tracemalloc.start()
        try:
            native.prepare(same, color="rgb")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < frame.nbytes // 8


def test_the_frame_is_left_as_it_was() -> None:
    frame = FRAME.copy()
    NativePreprocessor(SMALL).prepare(frame, color="rgb")
    assert np.array_equal(frame, FRAME)


@pytest.mark.parametrize(
    "frame",
    [
        None,
        [[[0, 0, 0]]],
        np.zeros((100, 100, 3)),
        np.zeros((100, 100, 3), np.uint16),
        np.zeros((100, 100, 3), np.int8),
        np.zeros((100, 100, 3), np.bool_),
        np.zeros((100, 100), np.uint8),
        np.zeros((100, 100, 1), np.uint8),
        np.zeros((100, 100, 4), np.uint8),
        np.zeros((3, 100, 100), np.uint8),
        np.zeros((1, 100, 100, 3), np.uint8),
        np.zeros((63, 100, 3), np.uint8),
        np.zeros((100, 63, 3), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((100, 0, 3), np.uint8),
        np.zeros((100, 100, 0), np.uint8),
    ],
    ids=lambda v: f"{v.dtype}{v.shape}" if isinstance(v, np.ndarray) else type(v).__name__,
)
def test_what_is_no_frame_is_refused_in_the_references_words(frame: Any) -> None:
    with pytest.raises(ImageError) as expected:
        preprocess(frame, SMALL)
    native = NativePreprocessor(SMALL)
    for step in (native.prepare, native.crop):
        with pytest.raises(ImageError) as caught:
            step(frame, color="rgb")
        assert str(caught.value) == str(expected.value)


def test_frame_of_more_than_a_million_columns_is_refused() -> None:
    endless = np.broadcast_to(np.zeros(3, np.uint8), (64, (1 << 20) + 1, 3))
    with pytest.raises(ImageError, match="1048577 x 64"):
        NativePreprocessor(SMALL).prepare(endless, color="rgb")


@pytest.mark.parametrize("color", ["RGB", "grb", "", None])
def test_unknown_channel_order_is_refused(color: Any) -> None:
    native = NativePreprocessor(SMALL)
    for step in (native.prepare, native.crop):
        with pytest.raises(UsageError, match="'rgb' or 'bgr'"):
            step(FRAME, color=color)


def test_channel_order_has_no_default() -> None:
    with pytest.raises(TypeError, match="color"):
        NativePreprocessor(SMALL).prepare(FRAME)  # type: ignore[call-arg]


# --- the tensor's memory and type


def test_tensor_is_written_where_the_caller_wants_it() -> None:
    native = NativePreprocessor(SMALL)
    expected = native.prepare(FRAME, color="rgb").tensor
    batch = np.full((2, 3, 40, 40), 7, np.float32)
    eye = native.prepare(FRAME, color="rgb", out=batch[1])
    assert eye.tensor.base is batch
    assert np.array_equal(batch[1], expected)
    assert (batch[0] == 7).all()


def test_callers_memory_is_untouched_where_the_frame_is_refused() -> None:
    out = np.full((3, 40, 40), 7, np.float32)
    with pytest.raises(UngradableError):
        NativePreprocessor(SMALL).prepare(np.zeros_like(FRAME), color="rgb", out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("illumination", ["subtract", "divide", "none"])
def test_fp16_is_the_fp32_tensor_rounded_to_nearest_even(illumination: Any) -> None:
    native = NativePreprocessor(dataclasses.replace(SMALL, illumination=illumination))
    wide = native.prepare(FRAME, color="rgb").tensor
    narrow = native.prepare(FRAME, color="rgb", dtype=np.float16).tensor
    assert narrow.dtype == np.float16
    assert np.array_equal(narrow, wide.astype(np.float16))
    out = np.empty((3, 40, 40), np.float16)
    native.prepare(FRAME, color="rgb", out=out)
    assert np.array_equal(out, narrow)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ([0.0], "list"),
        (np.empty((3, 40, 41), np.float32), r"\(3, 40, 41\)"),
        (np.empty((1, 3, 40, 40), np.float32), r"\(1, 3, 40, 40\)"),
        (np.empty((3, 40, 40), np.float64), "float64"),
        (np.empty((3, 40, 40), np.uint8), "uint8"),
        (np.empty((3, 40, 40), ">f4"), ">f4"),
        (np.empty((40, 40, 3), np.float32).transpose(2, 0, 1), "contiguous"),
        (np.empty((3, 40, 80), np.float32)[:, :, ::2], "contiguous"),
        (read_only(np.empty((3, 40, 40), np.float32)), "writable"),
        (np.empty(3 * 40 * 40 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(3, 40, 40), "align"),
    ],
)
def test_memory_that_does_not_fit_is_refused(out: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        NativePreprocessor(SMALL).prepare(FRAME, color="rgb", out=out)


@pytest.mark.parametrize("dtype", [np.float64, "nonsense"])
def test_other_types_of_tensor_are_refused(dtype: Any) -> None:
    with pytest.raises(SpecError, match=r"float64|nonsense"):
        NativePreprocessor(SMALL).prepare(FRAME, color="rgb", dtype=dtype)


# --- threads


@pytest.mark.parametrize("threads", [2, 3, 50])
def test_number_of_threads_changes_nothing(threads: int) -> None:
    expected = NativePreprocessor(SMALL).prepare(FRAME, color="bgr")
    native = NativePreprocessor(SMALL, threads=threads)
    for _ in range(20):
        eye = native.prepare(FRAME, color="bgr")
        assert np.array_equal(eye.tensor, expected.tensor)
        assert np.array_equal(eye.crop, expected.crop)


@pytest.mark.parametrize("threads", [0, -1, 257, None, "two", 1.0, True])
def test_number_of_threads_out_of_range_is_refused(threads: Any) -> None:
    with pytest.raises(UsageError, match="1 to 256"):
        NativePreprocessor(SMALL, threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_from_several_threads_do_not_mix(threads: int) -> None:
    native = NativePreprocessor(SMALL, threads=threads)
    frames = [textured(200, 240, (120, 100), 60 + 10 * k, seed=k) for k in range(4)]
    expected = [native.prepare(frame, color="rgb").tensor for frame in frames]
    wrong: list[int] = []

    def screen(k: int) -> None:
        for _ in range(50):
            if not np.array_equal(native.prepare(frames[k], color="rgb").tensor, expected[k]):
                wrong.append(k)

    workers = [threading.Thread(target=screen, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@contextmanager
def switching_only_where_the_lock_is_released() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_other_python_threads_run_meanwhile() -> None:
    native = NativePreprocessor(PreprocessSpec(size=224))
    frame = textured(1500, 1600, (800, 750), 700)
    steps, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            steps[0] += 1
            time.sleep(0)

    with switching_only_where_the_lock_is_released():
        other = threading.Thread(target=count)
        other.start()
        try:
            for _ in range(200):
                before = steps[0]
                native.prepare(frame, color="rgb")
                if steps[0] > before:
                    break
        finally:
            stop.set()
            other.join()
    assert steps[0] > before


def test_result_types_are_the_references() -> None:
    crop = NativePreprocessor(SMALL).crop(FRAME, color="rgb")
    assert isinstance(crop, EyeCrop)
    assert isinstance(crop.field_of_view, FieldOfView)
    assert all(type(value) is int for value in dataclasses.astuple(crop.field_of_view))
    assert all(type(value) is int for value in dataclasses.astuple(crop.box))
