"""Fine structure and side of the optic disc: the native core follows the NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus_runtime import _native
from fundus_runtime.gates import laterality, native, structure_reference
from fundus_runtime.gates.readings import CELLS, GateReadings
from fundus_runtime.gates.structure_reference import local_mean

EXAMPLES = settings(max_examples=max(60, settings.default.max_examples))
discs = st.tuples(st.floats(0.0, 1.5), st.floats(0.0, 1.5), st.floats(0.0, 1.4))


def cells_of(disc: tuple[float, float, float]) -> np.ndarray:
    """A disc's cells, cut by the border where it lies beyond; none where it is small."""
    y, x = (np.mgrid[:CELLS, :CELLS] + 0.5) / CELLS
    inside: np.ndarray = (x - disc[0]) ** 2 + (y - disc[1]) ** 2 < disc[2] ** 2 / 4
    return inside


def levels_of(inside: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = rng.integers(0, 3600, 3) + rng.integers(0, 480, (CELLS, CELLS, 3))
    return (smooth * inside[:, :, None]).astype(np.uint16)


@EXAMPLES
@given(disc=discs, other=discs, seed=st.integers(0, 99))
def test_the_fine_structure_is_the_references(disc, other, seed) -> None:
    inside = cells_of(disc)
    green, cells = levels_of(inside, seed)[:, :, 1], inside & cells_of(other)
    expected = structure_reference.fine_structure(green, inside, cells)
    found = native.fine_structure(green, inside, cells)
    assert found.shape == expected.shape == (np.count_nonzero(cells),)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@EXAMPLES
@given(disc=discs, seed=st.integers(0, 99))
def test_the_side_score_is_the_references(disc, seed) -> None:
    inside = cells_of(disc)
    readings = GateReadings(*range(9), levels=levels_of(inside, seed), inside=inside)
    expected = float(laterality.side_features(readings) @ laterality._weights())
    assert laterality.side_score(readings) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    mirrored = GateReadings(
        *range(9), levels=readings.levels[:, ::-1], inside=readings.inside[:, ::-1]
    )
    assert laterality.side_score(mirrored) == pytest.approx(-expected, rel=1e-9, abs=1e-9)


def test_a_real_eye_has_the_references_structure_and_side(eye, field_of) -> None:
    readings = native.measure(eye, field_of(eye), color="rgb")
    green = readings.levels[:, :, 1]
    expected = structure_reference.fine_structure(green, readings.inside, readings.inside)
    found = native.fine_structure(green, readings.inside, readings.inside)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert found.std() > 1
    side = float(laterality.side_features(readings) @ laterality._weights())
    assert laterality.side_score(readings) == pytest.approx(side, rel=1e-9)


@pytest.mark.parametrize(("size", "window"), [(96, 5), (16, 11), (4, 11)])
def test_the_mean_around_a_cell_is_of_what_lies_inside(size: int, window: int) -> None:
    rng = np.random.default_rng(size)
    counts = rng.integers(0, 2, (size, size)).astype(np.int32)
    counts[: size // 2, : size // 2] = 0
    sums = rng.integers(0, 4081, (2, size, size)).astype(np.int32) * counts
    found = local_mean(sums, counts, window)
    reach = window // 2
    for y, x in np.ndindex(size, size):
        box = np.s_[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        for channel in range(2):
            mean = sums[channel][box].sum() / max(counts[box].sum(), 1)
            assert found[channel, y, x] == mean


def test_the_core_refuses_arrays_that_do_not_fit() -> None:
    green, marks = np.zeros((CELLS, CELLS), np.uint16), np.ones((CELLS, CELLS), np.uint8)
    for values in (np.zeros(CELLS * CELLS - 1), np.zeros(CELLS * CELLS + 1)):
        with pytest.raises(ValueError, match="as many as cells"):
            _native.fine_structure(green, marks, marks, values)
    with pytest.raises(ValueError, match="96 x 96"):
        _native.fine_structure(green[:-1], marks, marks, np.zeros(CELLS * CELLS))
    with pytest.raises(ValueError, match="256 weights"):
        _native.side_score(np.zeros((CELLS, CELLS, 3), np.uint16), marks, np.zeros(255))
    with pytest.raises(ValueError, match="96 x 96 x 3"):
        _native.side_score(green, marks, np.zeros(256))
    with pytest.raises(TypeError):
        _native.side_score(np.zeros((CELLS, CELLS, 3), np.int32), marks, np.zeros(256))
