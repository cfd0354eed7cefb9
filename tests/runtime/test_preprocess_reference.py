"""The reference preprocessing, step by step, against plain restatements of each step."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus_runtime.errors import ImageError, UngradableError, UsageError
from fundus_runtime.preprocess import (
    CropBox,
    FieldOfView,
    PreprocessSpec,
    crop_box,
    crop_eye,
    normalise_crop,
    preprocess,
    visible_crop,
)

FEW = settings(max_examples=max(20, settings.default.max_examples // 5))

# A sum of a few hundred products in FP32, of values to 255: far above its rounding, far below a
# level.
LEVEL_TOLERANCE = 1e-2
# The same after division by 255 times the standard deviation.
TENSOR_TOLERANCE = LEVEL_TOLERANCE / (255 * 0.2)


def textured(
    height: int, width: int, center: tuple[int, int], radius: int, seed: int = 0
) -> np.ndarray:
    """Bright noise inside a disc, black outside: every pixel of the crop matters."""
    y, x = np.ogrid[:height, :width]
    inside = (x + 0.5 - center[0]) ** 2 + (y + 0.5 - center[1]) ** 2 <= radius**2
    noise = np.random.default_rng(seed).integers(60, 256, (height, width, 3))
    return (noise * inside[:, :, None]).astype(np.uint8)


def cut(frame: np.ndarray, box: CropBox) -> np.ndarray:
    """The box's pixels, black beyond the frame."""
    reach = max(frame.shape) + 2 * max(box.width_px, box.height_px)
    wide = np.pad(frame, ((reach, reach), (reach, reach), (0, 0)))
    return wide[
        reach + box.top_px : reach + box.bottom_px, reach + box.left_px : reach + box.right_px
    ]


def shares(length: int, size: int) -> np.ndarray:
    """size x length whole numbers: of each output cell's `length` parts, how many a source covers.

    Every source cell is split into `size` parts, so that each output cell has `length` whole ones.
    """
    source = np.arange(size * length) // size
    counts = np.zeros((size, length), np.int64)
    np.add.at(counts, (np.arange(size * length) // length, source), 1)
    return counts


def area_means(crop: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Exact sums over each output cell, and the count that they are to be divided by."""
    height, width = crop.shape[:2]
    rows, columns = shares(height, size), shares(width, size)
    totals = np.einsum("sh,hwc,tw->stc", rows, crop.astype(np.int64), columns, optimize=True)
    return totals, height * width


def half_even(totals: np.ndarray, count: int) -> np.ndarray:
    whole, rest = np.divmod(totals, count)
    up = (2 * rest > count) | ((2 * rest == count) & (whole % 2 == 1))
    return whole + up


# --- crop and resampling


@FEW
@given(
    st.integers(36, 110),
    st.sampled_from([32, 48, 64, 96, 224]),
    st.integers(-20, 30),
    st.integers(-20, 30),
    st.integers(0, 99),
)
def test_resampling_is_the_area_integral(
    radius: int, size: int, right: int, down: int, seed: int
) -> None:
    """Down-scaling, up-scaling (a crop smaller than the output) and cut discs alike."""
    side = 2 * radius + 6
    frame = textured(side, side + 9, (radius + right, radius + down), radius, seed)
    eye = crop_eye(frame, PreprocessSpec(size=size))
    totals, count = area_means(cut(frame, eye.box), size)
    assert eye.image.dtype == np.uint8
    assert eye.image.shape == (size, size, 3)
    # a thousandth: FP32 may see an exact half as a little more or less
    assert np.abs(eye.image - totals / count).max() <= 0.5 + 1e-3


def test_area_integral_of_a_small_case_by_hand() -> None:
    totals, count = area_means(np.array([[[0], [30], [60]]]), 2)
    # of three cells, each output takes one and a half: (0 + 15) / 1.5 and (15 + 60) / 1.5
    assert (totals[0, :, 0] / count).tolist() == [10, 50]


@pytest.mark.parametrize("size", [32, 50, 100])
def test_down_scaling_equals_opencv(size: int) -> None:
    frame = textured(260, 300, (150, 130), 117)
    eye = crop_eye(frame, PreprocessSpec(size=size))
    expected = cv2.resize(cut(frame, eye.box), (size, size), interpolation=cv2.INTER_AREA)
    assert eye.box.width_px > size
    assert np.array_equal(eye.image, expected)


def framed(width_px: int) -> tuple[np.ndarray, CropBox]:
    """A disc whose crop box has exactly this width, and the box."""
    for radius in range(width_px // 2 - 3, width_px // 2 + 4):
        frame = textured(width_px + 40, width_px + 60, (width_px // 2 + 20,) * 2, radius)
        box = crop_eye(frame, PreprocessSpec(size=32)).box
        if box.width_px == box.height_px == width_px:
            return frame, box
    raise AssertionError(f"no disc has a box of {width_px} px")


# Not 2 to 1: there OpenCV takes whole-number arithmetic of its own, which rounds halves up.
@pytest.mark.parametrize(("width_px", "size"), [(128, 32), (256, 64), (80, 120)])
def test_exact_halves_round_to_even(width_px: int, size: int) -> None:
    frame, box = framed(width_px)
    eye = crop_eye(frame, PreprocessSpec(size=size))
    assert eye.box == box
    totals, count = area_means(cut(frame, box), size)
    assert (2 * (totals % count) == count).sum() > 100
    assert np.array_equal(eye.image, half_even(totals, count))


@pytest.mark.parametrize("permille", [500, 900, 1000, 1051, 2000])
def test_crop_is_centred_on_the_disc_and_scaled_by_permille(permille: int) -> None:
    disc = FieldOfView(201, 148, 120, 99, 1000, 1000)
    box = crop_box(disc, PreprocessSpec(crop_permille=permille))
    assert box.left_px + box.right_px == 2 * 201
    assert box.top_px + box.bottom_px == 2 * 148
    assert box.width_px == 2 * int(Fraction(120 * permille, 1000) + Fraction(1, 2))
    assert box.height_px == 2 * int(Fraction(99 * permille, 1000) + Fraction(1, 2))


def test_squashed_disc_gets_its_shape_back() -> None:
    round_disc = textured(300, 300, (150, 150), 130)
    squashed = cv2.resize(round_disc, (225, 300), interpolation=cv2.INTER_AREA)
    spec = PreprocessSpec(size=64)
    restored, original = crop_eye(squashed, spec), crop_eye(round_disc, spec)
    assert restored.box.width_px < 0.8 * restored.box.height_px
    inside = original.mask & restored.mask
    difference = restored.image[inside].astype(int) - original.image[inside]
    assert inside.sum() > 0.7 * 64 * 64
    # the noise has a deviation of 56 levels at full size and some 14 at this one
    assert np.abs(difference).mean() < 8


# --- mask


def cell_is_whole(start: int, length: int, limit: int, size: int, index: int) -> bool:
    begin = start + Fraction(index * length, size)
    return begin >= 0 and begin + Fraction(length, size) <= limit


@FEW
@given(
    st.sampled_from([32, 33, 48]),
    st.integers(500, 1000),
    st.integers(500, 2000),
    st.integers(-15, 40),
)
def test_mask_is_the_exact_circle_within_the_frame(
    size: int, mask_permille: int, crop_permille: int, right: int
) -> None:
    frame = textured(100, 120, (50 + right, 52), 45)
    spec = PreprocessSpec(size=size, mask_permille=mask_permille, crop_permille=crop_permille)
    eye = crop_eye(frame, spec)
    # pixel centres in disc radii
    place = [Fraction(2 * i + 1 - size, size) * Fraction(crop_permille, 1000) for i in range(size)]
    reach = Fraction(mask_permille, 1000) ** 2
    box = eye.box
    rows = [cell_is_whole(box.top_px, box.height_px, 100, size, i) for i in range(size)]
    columns = [cell_is_whole(box.left_px, box.width_px, 120, size, i) for i in range(size)]
    expected = [
        [rows[i] and columns[j] and place[i] ** 2 + place[j] ** 2 <= reach for j in range(size)]
        for i in range(size)
    ]
    assert eye.mask.dtype == np.bool_
    assert np.array_equal(eye.mask, expected)


def test_where_the_camera_cut_the_disc_is_black_and_masked() -> None:
    whole = textured(240, 240, (120, 120), 100)
    frame = whole[50:]
    eye = crop_eye(frame, PreprocessSpec(size=64))
    beyond = np.array(
        [not cell_is_whole(eye.box.top_px, eye.box.height_px, 190, 64, i) for i in range(64)]
    )
    first_inside = int(np.argmin(beyond))
    assert eye.box.top_px < -20
    assert 5 < first_inside < 15
    assert not eye.mask[:first_inside].any()
    assert not eye.image[: first_inside - 1].any()
    assert eye.mask[first_inside].any()
    assert not preprocess(frame, PreprocessSpec(size=64)).tensor[:, :first_inside].any()


# --- illumination

SMALL = PreprocessSpec(size=40, illumination_window_px=9)


def circle(size: int) -> np.ndarray:
    offset = 2 * np.arange(size) + 1 - size
    return (offset[:, None] ** 2 + offset[None, :] ** 2) <= size**2


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)


def levels_of(tensor: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """A tensor's levels, S x S x 3, with the normalisation undone."""
    planes = tensor.astype(np.float64).transpose(1, 2, 0)
    return (planes * np.array(spec.std) + np.array(spec.mean)) * 255


def local_means(image: np.ndarray, mask: np.ndarray, window: int) -> np.ndarray:
    """Mean of the masked pixels in each window, one pixel at a time."""
    means = np.zeros(image.shape)
    for row, column in np.argwhere(mask):
        top, left = max(row - window // 2, 0), max(column - window // 2, 0)
        area = np.s_[top : row + window // 2 + 1, left : column + window // 2 + 1]
        means[row, column] = image[area][mask[area]].mean(axis=0)
    return means


@pytest.mark.parametrize("window", [3, 9, 31, 99])
@pytest.mark.parametrize("illumination", ["subtract", "divide"])
def test_illumination_is_corrected_by_the_mean_inside_the_mask(
    window: int, illumination: Any
) -> None:
    spec = dataclasses.replace(
        SMALL, illumination=illumination, illumination_window_px=window, illumination_gain=1.2
    )
    image, mask = noise(40), circle(40)
    mask[:6] = False
    mean = local_means(image, mask, window)
    if illumination == "subtract":
        expected = 1.2 * (image - mean) + 128
    else:
        expected = 1.2 * image / np.maximum(mean, 1) * 128
    levels = levels_of(normalise_crop(image, mask, spec), spec)
    assert np.abs(levels - np.clip(expected, 0, 255))[mask].max() < LEVEL_TOLERANCE
    # the clipping was put to the test, and did not swallow everything
    assert expected[mask].max() > 255
    assert ((expected > 0) & (expected < 255))[mask].mean() > 0.6


@given(st.tuples(*[st.integers(1, 255)] * 3), st.sampled_from([3, 37, 201]))
@FEW
def test_even_light_becomes_the_constant_up_to_the_rim(
    colour: tuple[int, int, int], window: int
) -> None:
    spec = PreprocessSpec(size=64, illumination_window_px=window, illumination_constant=100)
    image, mask = np.full((64, 64, 3), colour, np.uint8), circle(64)
    for illumination, gain in (("subtract", 2.0), ("divide", 1.0)):
        changed = dataclasses.replace(
            spec,
            illumination=illumination,  # type: ignore[arg-type]
            illumination_gain=gain,
        )
        levels = levels_of(normalise_crop(image, mask, changed), changed)
        assert np.abs(levels[mask] - 100).max() < LEVEL_TOLERANCE


@FEW
@given(st.sampled_from(["subtract", "divide", "none"]), st.integers(0, 99))
def test_what_lies_outside_the_mask_changes_nothing(illumination: Any, seed: int) -> None:
    spec = dataclasses.replace(SMALL, illumination=illumination)
    image, mask = noise(40, seed), circle(40)
    other = np.where(mask[:, :, None], image, noise(40, seed + 1000))
    assert not np.array_equal(image, other)
    assert np.array_equal(normalise_crop(image, mask, spec), normalise_crop(other, mask, spec))
    assert np.array_equal(visible_crop(image, mask, spec), visible_crop(other, mask, spec))


def test_dark_picture_is_not_divided_by_nought() -> None:
    image, mask = np.zeros((40, 40, 3), np.uint8), circle(40)
    for illumination in ("subtract", "divide", "none"):
        spec = dataclasses.replace(SMALL, illumination=illumination)  # type: ignore[arg-type]
        assert np.isfinite(normalise_crop(image, mask, spec)).all()
        assert np.isfinite(normalise_crop(image, np.zeros_like(mask), spec)).all()


# --- normalisation and layout


def test_without_correction_the_tensor_is_the_normalised_crop() -> None:
    spec = dataclasses.replace(SMALL, illumination="none", mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 1))
    image, mask = noise(40), circle(40)
    expected = (image / 255 - np.array(spec.mean)) / np.array(spec.std)
    tensor = normalise_crop(image, mask, spec)
    assert np.abs(tensor.transpose(1, 2, 0) - expected)[mask].max() < TENSOR_TOLERANCE


@pytest.mark.parametrize("illumination", ["subtract", "divide", "none"])
def test_tensor_is_zero_outside_the_mask_and_ready_to_batch(illumination: Any) -> None:
    frame = textured(200, 240, (130, 100), 105)
    eye = preprocess(frame, dataclasses.replace(SMALL, illumination=illumination))
    assert eye.tensor.shape == (3, 40, 40)
    assert eye.tensor.dtype == np.float32
    assert eye.tensor.flags.c_contiguous
    assert not eye.tensor[:, ~eye.mask].any()
    assert (eye.tensor[:, eye.mask] != 0).mean() > 0.99
    assert np.stack([eye.tensor, eye.tensor]).shape == (2, 3, 40, 40)


def test_whole_is_its_two_halves() -> None:
    frame, spec = textured(200, 240, (130, 100), 90), PreprocessSpec(size=64)
    whole, crop = preprocess(frame, spec), crop_eye(frame, spec)
    assert np.array_equal(whole.crop, crop.image)
    assert np.array_equal(whole.mask, crop.mask)
    assert whole.field_of_view == crop.field_of_view
    assert np.array_equal(whole.tensor, normalise_crop(crop.image, crop.mask, spec))


@pytest.mark.parametrize("illumination", ["subtract", "divide", "none"])
def test_picture_for_people_shows_what_the_network_sees(illumination: Any) -> None:
    spec = dataclasses.replace(SMALL, illumination=illumination)
    image, mask = noise(40), circle(40)
    picture = visible_crop(image, mask, spec)
    levels = levels_of(normalise_crop(image, mask, spec), spec)
    assert picture.dtype == np.uint8
    assert picture.shape == (40, 40, 3)
    assert np.abs(picture - levels)[mask].max() <= 0.5 + LEVEL_TOLERANCE
    assert not picture[~mask].any()


def test_inputs_are_left_as_they_were() -> None:
    frame = textured(200, 240, (130, 100), 90)
    image, mask = noise(40), circle(40)
    kept = frame.copy(), image.copy(), mask.copy()
    preprocess(frame, SMALL)
    normalise_crop(image, mask, SMALL)
    visible_crop(image, mask, SMALL)
    for now, before in zip((frame, image, mask), kept, strict=True):
        assert np.array_equal(now, before)


# --- frames of other layouts, and what is no frame


def test_bgr_frame_gives_the_same_tensor() -> None:
    frame = textured(200, 240, (130, 100), 90)
    expected = preprocess(frame, SMALL)
    views = (frame[:, :, ::-1], np.ascontiguousarray(frame[:, :, ::-1]))
    for bgr in views:
        eye = preprocess(bgr, SMALL, color="bgr")
        assert np.array_equal(eye.tensor, expected.tensor)
        assert np.array_equal(eye.crop, expected.crop)
    assert not np.array_equal(preprocess(views[1], SMALL).tensor, expected.tensor)


@pytest.mark.parametrize("size", [40, 224])
def test_strides_do_not_matter(size: int) -> None:
    spec = PreprocessSpec(size=size)
    frame = textured(190, 240, (130, 100), 90)
    wide = np.full((380, 500, 4), 255, np.uint8)
    wide[::2, 5:485:2, :3] = frame
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    upside_down = np.ascontiguousarray(frame[::-1])[::-1]
    expected = preprocess(frame, spec).tensor
    for same in (wide[::2, 5:485:2, :3], planes, upside_down, np.asfortranarray(frame)):
        assert not same.flags.c_contiguous
        assert np.array_equal(preprocess(same, spec).tensor, expected)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (None, "NoneType"),
        ([[[0, 0, 0]]], "list"),
        ("eye.jpg", "str"),
        (np.zeros((100, 100, 3)), "float64"),
        (np.zeros((100, 100, 3), np.uint16), "uint16"),
        (np.zeros((100, 100, 3), np.int8), "int8"),
        (np.zeros((100, 100, 3), np.bool_), "bool"),
        (np.zeros((100, 100), np.uint8), r"\(100, 100\)"),
        (np.zeros((100, 100, 1), np.uint8), r"\(100, 100, 1\)"),
        (np.zeros((100, 100, 4), np.uint8), r"\(100, 100, 4\)"),
        (np.zeros((3, 100, 100), np.uint8), r"\(3, 100, 100\)"),
        (np.zeros((1, 100, 100, 3), np.uint8), r"\(1, 100, 100, 3\)"),
        (np.zeros((63, 100, 3), np.uint8), "100 x 63"),
        (np.zeros((100, 63, 3), np.uint8), "63 x 100"),
        (np.zeros((0, 0, 3), np.uint8), "0 x 0"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_no_frame_is_refused(frame: Any, says: str) -> None:
    for step in (preprocess, crop_eye):
        with pytest.raises(ImageError, match=says):
            step(frame, SMALL)


def test_smallest_frame_is_searched() -> None:
    with pytest.raises(UngradableError, match="no_fundus"):
        preprocess(np.zeros((64, 64, 3), np.uint8), SMALL)


@pytest.mark.parametrize("color", ["RGB", "grb", "", None])
def test_unknown_channel_order_is_refused(color: Any) -> None:
    with pytest.raises(UsageError, match="'rgb' or 'bgr'"):
        crop_eye(textured(100, 100, (50, 50), 45), SMALL, color=color)
