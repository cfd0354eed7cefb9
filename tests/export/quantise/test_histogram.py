"""Percentiles from counts: near the true ones, never inside them, whatever the order of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fundus_export.quantise.histogram import BINS_A_SIDE, ChannelMeans, Extremes, SignedHistogram

Values = npt.NDArray[np.float32]

# float32 of every magnitude, so that widths double by hundreds of steps
anything = st.one_of(
    st.floats(-8, 8, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-20, 4096.0]),
)
values_of_any_size = arrays(np.float32, st.integers(1, 300), elements=anything)
percentiles = st.sampled_from([50.5, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0])


def counted(*portions: Values) -> SignedHistogram:
    histogram = SignedHistogram()
    for portion in portions:
        assert histogram.add(portion)
    return histogram


def true_span(values: Values, percentile: float) -> tuple[float, float]:
    high = np.percentile(values, percentile, method="inverted_cdf")
    low = -np.percentile(-values, percentile, method="inverted_cdf")
    return float(low), float(high)


def assert_near(histogram: SignedHistogram, values: Values, percentile: float) -> None:
    """The ends lie outside the true percentile, within the bin that holds it."""
    low, high = histogram.span(percentile)
    true_low, true_high = true_span(values, percentile)
    for end, truth, outward in ((low, true_low, -1), (high, true_high, 1)):
        reach = histogram.width * (2 if abs(truth) < histogram.width else 1)
        assert 0 <= (end - truth) * outward <= reach


@given(values_of_any_size, percentiles)
def test_a_percentile_is_right_to_the_bin(values: Values, percentile: float) -> None:
    assert_near(counted(values), values, percentile)


def test_a_percentile_of_many_values_is_numpys() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_t(3, 1_000_000).astype(np.float32)
    histogram = counted(*np.array_split(values, 7))
    for percentile in (99.0, 99.9, 99.99):
        low, high = histogram.span(percentile)
        assert high == pytest.approx(np.percentile(values, percentile), abs=histogram.width)
        assert low == pytest.approx(np.percentile(values, 100 - percentile), abs=histogram.width)


@given(values_of_any_size, st.integers(0, 300), percentiles, st.randoms(use_true_random=False))
def test_neither_order_nor_portions_change_anything(
    values: Values, cut: int, percentile: float, random: Any
) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    one, two = counted(values), counted(shuffled[:cut], shuffled[cut:])
    assert one.width == two.width
    assert one.span(percentile) == two.span(percentile)
    assert (one.lowest, one.highest, one.count) == (two.lowest, two.highest, two.count)


@given(values_of_any_size)
def test_the_hundredth_percentile_is_the_extremes_exactly(values: Values) -> None:
    assert counted(values).span(100.0) == (float(values.min()), float(values.max()))


@given(values_of_any_size, st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 299))
def test_what_is_not_finite_is_told_and_nothing_counted(
    values: Values, bad: float, place: int
) -> None:
    histogram = counted(values)
    spoilt = values.copy()
    spoilt[place % len(values)] = bad
    assert not histogram.add(spoilt)
    assert histogram.count == len(values)
    assert_near(histogram, values, 90.0)


def test_zeros_before_small_values_do_not_widen_the_bins() -> None:
    small = np.linspace(-1e-3, 1e-3, 100, dtype=np.float32)
    assert counted(np.zeros(10, np.float32), small).width == counted(small).width


@pytest.mark.parametrize("largest", [1.0, 1.5, 1.9999, 2.0, 3e38, 1e-20])
def test_a_bin_is_narrower_than_a_two_thousandth_of_the_largest_value(largest: float) -> None:
    histogram = counted(np.array([largest], np.float32))
    assert histogram.width <= histogram.largest / (BINS_A_SIDE / 2)


def test_a_percentile_in_decimals_leaves_out_as_many_as_it_says() -> None:
    # 100 - 99.9 is below 0.1 in binary: one of 1000 would be kept for that
    values = np.arange(1, 1001, dtype=np.float32)
    assert counted(values).span(99.9)[1] < 1000
    assert counted(values).span(99.95)[1] == 1000


def test_memory_does_not_grow_with_the_values() -> None:
    histogram = counted(np.ones(10, np.float32))
    before = histogram._counts.nbytes
    for exponent in range(-120, 120, 3):
        assert histogram.add(np.full(1000, 2.0**exponent, np.float32))
    assert histogram._counts.nbytes == before
    assert histogram._counts.sum() == histogram.count == 10 + 80 * 1000


def test_nothing_counted_is_an_empty_span() -> None:
    histogram = counted(np.zeros((0, 4), np.float32))
    assert (histogram.count, histogram.span(99.99), histogram.largest) == (0, (0.0, 0.0), 0.0)


def test_extremes_are_those_of_the_values_not_of_the_start() -> None:
    extremes = Extremes()
    assert extremes.add(np.array([[-3.0, -2.0]], np.float32))
    assert (extremes.lowest, extremes.highest, extremes.largest) == (-3.0, -2.0, 3.0)


@pytest.mark.parametrize(("shape", "axes"), [((2, 3, 4, 5), (0, 2, 3)), ((2, 5, 3), (0, 1))])
def test_means_are_those_of_the_channels_over_all_portions(
    shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    means = ChannelMeans()
    for portion in values:
        means.add(portion)
    np.testing.assert_allclose(means.values(), values.mean(axis=0).mean(axis=axes), atol=1e-6)


def test_means_of_nothing_are_unknown() -> None:
    assert ChannelMeans().values() == ()
