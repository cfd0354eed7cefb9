"""The native preprocessing held to the reference: equal where it is exact, else by a tolerance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus_runtime import _native
from fundus_runtime.errors import UngradableError
from fundus_runtime.preprocess import (
    CropBox,
    EyeCrop,
    PreprocessSpec,
    crop_eye,
    normalise_crop,
)
from fundus_runtime.preprocess.native import NativePreprocessor, _core_of

GOLDEN = Path(__file__).parent / "data" / "golden_preprocess.npz"
FEW = settings(max_examples=max(20, settings.default.max_examples // 5))
SMALL = PreprocessSpec(size=40, illumination_window_px=9)

# OpenCV sums a resampled level in FP32, which sees an exact half as a little more or less, and so
# rounds it the other way; between halves both give the same.
WORST_LEVEL = 1
MEAN_LEVEL = 0.02


def assert_same_levels(image: np.ndarray, reference: np.ndarray) -> None:
    difference = np.abs(image.astype(int) - reference)
    assert difference.max() <= WORST_LEVEL
    assert difference.mean() < MEAN_LEVEL


def tensor_tolerance(spec: PreprocessSpec) -> float:
    """What `WORST_LEVEL` in the image can make of the tensor, plus a thousandth for FP32.

    Subtracting the local mean, the level and the mean move by up to that each, times the gain;
    without correction the level alone. Division has no bound in levels: in the dark, where the mean
    is 1, one level is all of it. There and everywhere, `assert_prepared` also wants the tensor to
    be the reference's of the native image, bit for bit.
    """
    gain = {"subtract": 2 * spec.illumination_gain, "none": 1.0, "divide": np.inf}
    return 1.001 * WORST_LEVEL * gain[spec.illumination] / (255 * min(spec.std))


def answer_of(call: Any) -> Any:
    """What a call returns, or the reason and the hint with which it refuses the frame."""
    try:
        return call()
    except UngradableError as error:
        return error.reason, error.hint


def assert_prepared(frame: np.ndarray, spec: PreprocessSpec, color: Any = "rgb") -> bool:
    """Compares the two implementations on one frame; whether it was usable."""
    native = NativePreprocessor(spec)
    expected = answer_of(lambda: crop_eye(frame, spec, color=color))
    eye = answer_of(lambda: native.prepare(frame, color=color))
    crop = answer_of(lambda: native.crop(frame, color=color))
    if isinstance(expected, tuple):
        assert eye == crop == expected
        return False
    assert crop.field_of_view == eye.field_of_view == expected.field_of_view
    assert crop.box == expected.box
    assert eye.mask.dtype == np.bool_
    assert np.array_equal(eye.mask, expected.mask)
    assert np.array_equal(crop.mask, expected.mask)
    assert_same_levels(eye.crop, expected.image)
    assert np.array_equal(crop.image, eye.crop)
    assert np.array_equal(eye.tensor, normalise_crop(eye.crop, eye.mask, spec))
    reference = normalise_crop(expected.image, expected.mask, spec)
    assert np.abs(eye.tensor - reference).max() <= tensor_tolerance(spec)
    return True


def textured(
    height: int, width: int, center: tuple[float, float], radius: float, seed: int = 0
) -> np.ndarray:
    y, x = np.ogrid[:height, :width]
    inside = (x + 0.5 - center[0]) ** 2 + (y + 0.5 - center[1]) ** 2 <= radius**2
    noise = np.random.default_rng(seed).integers(60, 256, (height, width, 3))
    return (noise * inside[:, :, None]).astype(np.uint8)


FRAME = textured(190, 240, (130, 90), 85)


# --- golden vectors


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return {k.partition("/")[2]: arrays[k] for k in arrays if k.startswith(f"{name}/")}


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize(
    "name",
    [
        "whole",
        "divided",
        "uncorrected",
        "notched",
        "banded",
        "cut",
        "squashed",
        "enlarged",
        "wide crop",
        "two to one",
    ],
)
def test_golden_vectors_are_met(name: str, color: Any) -> None:
    expected = golden(name)
    spec = PreprocessSpec.from_dict(json.loads(str(expected["spec"])))
    frame = expected["frame"] if color == "rgb" else expected["frame"][:, :, ::-1].copy()
    native = NativePreprocessor(spec)
    eye, box = native.prepare(frame, color=color), native.crop(frame, color=color).box
    assert list(eye.field_of_view.to_dict().values()) == expected["field_of_view"].tolist()
    assert box == CropBox(*expected["box"].tolist())
    assert np.array_equal(eye.mask, expected["mask"])
    assert_same_levels(eye.crop, expected["image"])
    assert np.array_equal(eye.tensor, normalise_crop(eye.crop, eye.mask, spec))
    if "tensor" in expected:
        assert np.abs(eye.tensor - expected["tensor"]).max() <= tensor_tolerance(spec)


def test_no_golden_vector_is_left_out() -> None:
    with np.load(GOLDEN) as arrays:
        names = {name.partition("/")[0] for name in arrays}
    marks = test_golden_vectors_are_met.pytestmark  # type: ignore[attr-defined]
    (tested,) = (mark.args[1] for mark in marks if mark.args[0] == "name")
    assert names == set(tested)


# --- random images


def random_frame(random: np.random.Generator) -> np.ndarray:
    """Whole, cut, squashed, notched, banded and tiny discs, and pictures without one."""
    height, width = int(random.integers(64, 300)), int(random.integers(64, 360))
    kind = random.choice(["whole", "cut", "squashed", "notched", "banded", "blots"])
    radius = random.uniform(0.25, 0.55) * min(height, width)
    squash = random.choice([0.66, 0.75, 0.8, 1.25, 1.33, 1.5]) if kind == "squashed" else 1
    shift = random.uniform(-0.3, 0.3, 2) * (kind == "cut")
    x, y = width * (0.5 + shift[0]), height * (0.5 + shift[1])
    rows, columns = np.ogrid[:height, :width]
    inside = ((columns + 0.5 - x) / (radius * squash)) ** 2 + ((rows + 0.5 - y) / radius) ** 2 <= 1
    spread = int(random.choice([1, 9, 110]))
    level = random.integers(70, 150, 3) + random.integers(-spread, spread, (height, width, 3))
    frame = np.clip(level, 0, 255) * inside[:, :, None] + random.integers(0, 5, level.shape)
    frame = np.clip(frame, 0, 255).astype(np.uint8)
    if kind == "notched":
        frame = cv2.circle(frame, (int(x + radius), int(y)), int(radius / 10) + 1, (99,) * 3, -1)
    if kind == "banded":
        frame[: max(int(y - 0.7 * radius), 0)] //= 40
    if kind == "blots":
        noise = random.integers(0, 256, frame.shape).astype(np.uint8)
        blots = cv2.GaussianBlur(noise, (0, 0), random.uniform(1, 30))
        frame = np.where(blots > np.median(blots), blots, 0).astype(np.uint8)
    return frame


def random_view(frame: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same frame in one of the layouts that cameras and libraries hand out."""
    height, width = frame.shape[:2]
    wide = np.full((2 * height, 2 * width + 3, 5), 255, np.uint8)
    kind = random.integers(0, 7)
    if kind == 0:
        return np.asfortranarray(frame)
    if kind == 1:
        return np.ascontiguousarray(frame[::-1, ::-1])[::-1, ::-1]
    if kind == 2:
        return np.ascontiguousarray(frame[:, :, ::-1])[:, :, ::-1]
    if kind == 3:
        return np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    step = (1, 2, 2)[kind - 4]
    view = wide[: step * height : step, 3 : 3 + step * width : step, (0, 1, 2)[kind - 4] :][..., :3]
    view[...] = frame
    return view


def random_spec(random: np.random.Generator) -> PreprocessSpec:
    return PreprocessSpec(
        size=int(random.choice([32, 48, 64, 101, 128, 224])),
        crop_permille=int(random.choice([1000, 1000, 900, 1100, 500, 2000])),
        illumination=random.choice(["subtract", "divide", "none"]).item(),
        illumination_window_px=int(random.choice([3, 9, 37, 151, 999])),
        mask_permille=int(random.integers(500, 1001)),
    )


def usable_share(seeds: range) -> float:
    usable = 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        frame = random_view(random_frame(random), random)
        usable += assert_prepared(frame, random_spec(random), random.choice(["rgb", "bgr"]).item())
    return usable / len(seeds)


def test_hundred_random_images_match_the_reference() -> None:
    assert 0.5 < usable_share(range(100)) < 0.95


@pytest.mark.slow
def test_nine_hundred_more_random_images_match_the_reference() -> None:
    assert 0.5 < usable_share(range(100, 1000)) < 0.95


@FEW
@given(
    st.integers(64, 200),
    st.integers(64, 200),
    st.floats(0.2, 0.9),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.integers(32, 120),
    st.integers(500, 2000),
)
def test_any_place_and_size_of_the_disc_matches_the_reference(
    height: int,
    width: int,
    radius: float,
    center: tuple[float, float],
    size: int,
    crop_permille: int,
) -> None:
    frame = textured(height, width, (center[0] * width, center[1] * height), radius * height)
    assert_prepared(frame, PreprocessSpec(size=size, crop_permille=crop_permille))


def test_of_two_equal_components_the_first_one_is_taken() -> None:
    """Both discs are the same."""
    disc = textured(140, 130, (65, 70), 60)
    assert assert_prepared(np.concatenate([disc, disc], axis=1), SMALL)
    assert assert_prepared(np.concatenate([disc, disc], axis=0), SMALL)


def width_of(frame: np.ndarray, size: int) -> int:
    crop = answer_of(lambda: crop_eye(frame, PreprocessSpec(size=size)))
    return crop.box.width_px if isinstance(crop, EyeCrop) else 0


@pytest.mark.parametrize("size", [32, 64, 224])
def test_crop_of_twice_the_size_is_rounded_as_the_reference_rounds_it(size: int) -> None:
    """There OpenCV rounds halves up, and one in four sums of four levels is a half."""
    side = 2 * size + 40
    frames = (
        textured(side, side, (side / 2, side / 2), radius)
        for radius in np.arange(size - 0.5, size + 4, 0.5)
    )
    frame = next(f for f in frames if width_of(f, size) == 2 * size)
    crop = crop_eye(frame, PreprocessSpec(size=size))
    native = NativePreprocessor(PreprocessSpec(size=size)).crop(frame, color="rgb")
    assert np.array_equal(native.image, crop.image)


def test_frame_of_many_rows_to_an_output_row_is_summed_exactly() -> None:
    frame = textured(1500, 1600, (800, 750), 700)
    assert assert_prepared(frame, PreprocessSpec(size=32))
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert assert_prepared(planes, PreprocessSpec(size=32))


# --- refusals


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((200, 200, 3), np.uint8),
        np.full((200, 200, 3), 255, np.uint8),
        cv2.rectangle(np.zeros((240, 320, 3), np.uint8), (50, 40), (270, 200), (200, 99, 50), -1),
        cv2.circle(np.zeros((240, 320, 3), np.uint8), (160, 120), 100, (200, 99, 50), 8),
        np.random.default_rng(7).integers(0, 256, (240, 320, 3)).astype(np.uint8),
        textured(200, 160, (90, 70), 26),
        textured(300, 300, (150, 150), 400),
    ],
    ids=["dark", "white", "rectangle", "ring", "noise", "small disc", "disc beyond the frame"],
)
def test_refusal_has_the_references_reason_and_hint(frame: np.ndarray) -> None:
    assert not assert_prepared(frame, SMALL)


def test_one_grey_channel_shown_as_three_is_read_in_place() -> None:
    grey = np.ascontiguousarray(FRAME[:, :, 0])
    for order in ("rgb", "bgr"):
        assert assert_prepared(np.broadcast_to(grey[:, :, None], FRAME.shape), SMALL, order)


# --- instruction sets


def both_types(native: NativePreprocessor, frame: np.ndarray) -> list[Any]:
    """All that comes out, FP32 and FP16, as what can be compared bit for bit."""
    answers = []
    for dtype in (np.float32, np.float16):
        eye = answer_of(lambda d=dtype: native.prepare(frame, color="rgb", dtype=d))
        parts = () if isinstance(eye, tuple) else (eye.tensor, eye.crop, eye.mask)
        answers += [eye if isinstance(eye, tuple) else eye.field_of_view, *map(bytes, parts)]
    return answers


def usable_sets() -> list[str]:
    return [name for name in _native.kernel_sets() if name != "best"]


def test_kernel_sets_are_those_that_this_processor_can_run() -> None:
    features = _native.cpu_features()
    expected = ["baseline"]
    if features.get("avx2"):
        expected.append("avx2")
    if features.get("avx2") and features["avx512f"] and features["avx512bw"]:
        expected.append("avx512")
    assert usable_sets() == expected


@pytest.mark.parametrize("kernels", ["avx2", "avx512", "best"])
def test_every_instruction_set_gives_the_same_bits(kernels: str) -> None:
    if kernels not in _native.kernel_sets():
        pytest.skip(f"this processor has no {kernels}")
    for seed in range(60):
        random = np.random.default_rng(seed)
        frame, spec = random_view(random_frame(random), random), random_spec(random)
        plain, other = NativePreprocessor(spec), NativePreprocessor(spec)
        plain._core = _core_of(spec, kernels="baseline")
        other._core = _core_of(spec, kernels=kernels)
        expected, eye = both_types(plain, frame), both_types(other, frame)
        assert eye == expected


# --- real photographs


def test_real_photographs_match_the_reference(fundus_data: Path) -> None:
    paths = [
        *sorted((fundus_data / "odir" / "images").glob("*.jpg"))[::80],
        *sorted((fundus_data / "eyepacs").glob("*.jpg"))[::20],
        *sorted((fundus_data / "full_resolution").glob("*.jpg"))[::3],
    ]
    usable = 0
    for path in paths:
        frame = cv2.imread(str(path))
        assert frame is not None, path
        usable += assert_prepared(frame, PreprocessSpec(), "bgr")
    assert usable >= 0.9 * len(paths) >= 90
