from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from fundus_export.certificate.bounds import (
    clopper_pearson,
    design_effect,
    share_of,
    share_of_clusters,
)
from fundus_export.errors import ExportError


# Newcombe, Statistics in Medicine 17 (1998), table I, method 5
@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_bounds_are_the_published_ones(count: int, of: int, low: float, high: float) -> None:
    assert clopper_pearson(count, of) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 600).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_bounds_invert_the_binomial_distribution(drawn: tuple[int, int]) -> None:
    count, of = drawn
    low, high = clopper_pearson(count, of)

    assert low <= count / of <= high
    if count < of:
        assert binom.cdf(count, of, high) == pytest.approx(0.025, rel=1e-6)
    if count > 0:
        assert binom.sf(count - 1, of, low) == pytest.approx(0.025, rel=1e-6)


def test_nothing_and_everything_have_one_sided_ends() -> None:
    assert clopper_pearson(0, 416) == (0.0, pytest.approx(1 - 0.025 ** (1 / 416)))
    assert clopper_pearson(416, 416) == (pytest.approx(0.025 ** (1 / 416)), 1.0)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_more_than_all_is_no_share() -> None:
    with pytest.raises(ExportError, match="5 of 4"):
        clopper_pearson(5, 4)


def test_share_counts_flags() -> None:
    share = share_of([True, False, False, True])

    assert (share.count, share.of, share.share) == (2, 4, 0.5)
    assert (share.low, share.high) == clopper_pearson(2, 4)


def test_share_of_nobody_is_unknown() -> None:
    share = share_of([])

    assert (share.share, share.low, share.high) == (0.0, 0.0, 1.0)


def test_independent_classes_have_no_design_effect() -> None:
    flags = np.random.default_rng(0).random((4000, 8)) < 0.02

    assert design_effect(flags) == pytest.approx(1.0, abs=0.1)


def test_classes_that_change_together_count_once() -> None:
    together = np.repeat(np.random.default_rng(0).random((500, 1)) < 0.1, 4, axis=1)
    count = int(together[:, 0].sum())

    # K identical columns hold the evidence of one, but for the N - 1 of an estimated variance
    assert design_effect(together) == pytest.approx(4.0, rel=0.01)
    assert share_of_clusters(together).high == pytest.approx(
        clopper_pearson(count, 500)[1], rel=0.01
    )
    assert share_of_clusters(together).high > share_of(together).high


def test_both_eyes_of_a_patient_go_together() -> None:
    eyes = np.random.default_rng(0).random((500, 3)) < 0.1
    owner = np.tile(np.arange(500), 2)

    assert design_effect(np.concatenate([eyes, eyes]), owner) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("value", [False, True])
def test_constant_flags_have_no_design_effect(value: bool) -> None:
    assert design_effect(np.full((10, 8), value)) == 1.0
