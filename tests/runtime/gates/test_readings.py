"""The gates' readings: the native core equals the reference in every whole number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus_runtime.errors import ImageError, UsageError
from fundus_runtime.gates import native, reference
from fundus_runtime.gates.readings import GateReadings
from fundus_runtime.preprocess import FieldOfView


def assert_equal(one: GateReadings, other: GateReadings) -> None:
    for field in dataclasses.fields(GateReadings):
        assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels)).astype(np.uint8)


@settings(max_examples=max(60, settings.default.max_examples))
@given(
    size=st.tuples(st.integers(64, 240), st.integers(64, 240)),
    center=st.tuples(st.integers(-80, 320), st.integers(-80, 320)),
    radius=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    seed=st.integers(0, 99),
)
def test_any_disc_in_any_frame_is_read_equally(size, center, radius, seed) -> None:
    frame = noise(*size, seed=seed)
    disc = FieldOfView(*center, *radius, 1000, 1000)
    assert_equal(
        native.measure(frame, disc, color="rgb"), reference.measure(frame, disc, color="rgb")
    )


def test_a_photograph_is_read_equally_whatever_its_strides_and_order(eye, field_of) -> None:
    disc = field_of(eye)
    expected = reference.measure(eye, disc, color="rgb")
    four = np.concatenate([eye, eye[:, :, :1]], axis=2)
    upside_down = np.ascontiguousarray(eye[::-1])[::-1]
    bgr = np.ascontiguousarray(eye[:, :, ::-1])
    for frame in (eye, four[:, :, :3], upside_down, bgr[:, :, ::-1]):
        assert_equal(native.measure(frame, disc, color="rgb"), expected)
    for frame in (bgr, eye[:, :, ::-1]):
        assert_equal(native.measure(frame, disc, color="bgr"), expected)
    assert expected.detail > 0


def test_a_frame_of_one_column_shown_again_and_again_is_read_equally() -> None:
    column = noise(200, 1)
    frame = np.broadcast_to(column, (200, 240, 3))
    assert frame.strides[1] == 0
    disc = FieldOfView(120, 100, 90, 90, 1000, 1000)
    expected = reference.measure(frame, disc, color="rgb")
    assert_equal(native.measure(frame, disc, color="rgb"), expected)
    assert expected.red > 0


def test_cells_of_many_pixels_are_read_equally() -> None:
    """More pixels a cell than 16 bits hold the sum of."""
    frame = np.full((64, 60_000, 3), 255, np.uint8)
    frame[:, ::7] = 3
    disc = FieldOfView(30_000, 32, 30_000, 32, 1000, 1000)
    expected = reference.measure(frame, disc, color="rgb")
    assert_equal(native.measure(frame, disc, color="rgb"), expected)
    assert expected.cells > 1000


def test_full_resolution_is_read_equally(eye, field_of) -> None:
    large = np.repeat(np.repeat(eye, 3, axis=0), 3, axis=1)[:1944, :2592]
    disc = field_of(large)
    assert_equal(
        native.measure(large, disc, color="rgb"), reference.measure(large, disc, color="rgb")
    )


def test_at_most_96_rows_of_the_frame_count(eye, field_of) -> None:
    large = np.repeat(np.repeat(eye, 2, axis=0), 2, axis=1)
    disc = field_of(large)
    step = 2 * disc.radius_y_px
    rows = disc.center_y_px - disc.radius_y_px + (2 * np.arange(96) + 1) * step // 192
    others = np.setdiff1d(np.arange(large.shape[0]), rows)
    changed = large.copy()
    changed[others] = noise(*large.shape)[others]
    assert_equal(
        native.measure(changed, disc, color="rgb"), native.measure(large, disc, color="rgb")
    )


@pytest.mark.parametrize(
    ("frame", "color", "error"),
    [
        (np.zeros((100, 100), np.uint8), "rgb", ImageError),
        (np.zeros((100, 100, 3), np.float32), "rgb", ImageError),
        (np.zeros((20, 100, 3), np.uint8), "rgb", ImageError),
        (np.zeros((100, 100, 3), np.uint8), "gbr", UsageError),
    ],
)
def test_what_is_no_frame_is_refused(frame, color, error) -> None:
    with pytest.raises(error):
        native.measure(frame, FieldOfView(50, 50, 40, 40, 1000, 1000), color=color)


def test_a_flat_disc_has_its_levels_and_no_detail() -> None:
    frame = np.zeros((300, 300, 3), np.uint8)
    frame[:] = (200, 120, 60)
    readings = native.measure(frame, FieldOfView(150, 150, 120, 120, 1000, 1000), color="rgb")
    assert (readings.red, readings.green, readings.blue) == (16 * 200, 16 * 120, 16 * 60)
    assert (readings.detail, readings.noise, readings.shaded_permille) == (0, 0, 0)
    assert readings.red_over_blue == 16 * 140
