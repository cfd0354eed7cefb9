"""Heat maps of the shipped bundle find lesions in normal eyes of patients whom it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fundus_benchmarks.studies.lesions import LESIONS, disc_diameter_px, draw_lesion, place_in
from fundus_benchmarks.studies.localisation import Found, find_lesions, share_found
from fundus_benchmarks.studies.normal_eyes import normal_eyes
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import FieldOfView
from fundus_runtime.screener import Screener

BUNDLE = Path(__file__).parents[2] / "bundles" / "edge"
FIELD = FieldOfView(200, 200, 180, 180, 1000, 1000)
EYES = 120


@pytest.mark.parametrize("kind", LESIONS)
def test_a_lesion_changes_the_photograph_where_it_is_and_nowhere_else(kind: str) -> None:
    frame = np.full((400, 400, 3), (160, 90, 50), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = place_in(FIELD, rng)
        size = disc_diameter_px(FIELD)
        changed = (draw_lesion(frame, kind, (x, y), size, rng) != frame).any(axis=2)
        rows, columns = np.nonzero(changed)
        assert len(rows) > 20
        assert np.hypot(columns - x, rows - y).max() < size


def test_what_is_within_a_cell_is_found() -> None:
    found = [Found("hard exudates", "D", 0.1, 0.4, off) for off in (0, 1, 1, 2)]
    assert share_found(found) == 0.75
    assert share_found(found, within=0) == 0.25


@pytest.mark.slow
def test_the_largest_rise_lies_within_a_cell_of_a_drawn_lesion(fundus_data: Path) -> None:
    eyes = normal_eyes(fundus_data / "odir", BUNDLE / "checkpoint.safetensors")
    frames = (read_photograph(path) for path in eyes[: EYES + 10])
    with Screener.open(threads=1) as screener:
        found = list(find_lesions(screener, frames, size=1.0))[:EYES]
    assert len(found) >= 100
    assert {one.kind for one in found} == set(LESIONS)
    assert share_found(found) >= 0.8
    # and the class concerned becomes more likely, or there would be nothing to explain
    assert np.mean([one.probability_after > one.probability_before for one in found]) > 0.9
