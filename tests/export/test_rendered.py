"""Rendered and degraded pictures are the same everywhere, and are fundi to the preprocessing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fundus_export.golden import GoldenPair, golden_files, golden_pairs
from fundus_export.rendered import degrade, render_fundus
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.photograph import decode_photograph
from fundus_runtime.preprocess import PreprocessSpec, preprocess

SPEC = PreprocessSpec(size=64)


@pytest.fixture(scope="module")
def pairs() -> tuple[GoldenPair, ...]:
    return golden_pairs()


def _disc_side(frame: np.ndarray) -> Eye:
    """The eye that an optic disc on this side of the picture belongs to."""
    smooth = cv2.GaussianBlur(frame.astype(np.float32).sum(axis=2), (0, 0), frame.shape[0] / 30)
    return "left" if int(smooth.argmax()) % frame.shape[1] < frame.shape[1] // 2 else "right"


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("seed", range(6))
def test_a_seed_draws_the_same_picture_and_another_seed_another(eye: Eye, seed: int) -> None:
    frame = render_fundus(eye, side=160, seed=seed)
    assert frame.shape == (160, 160, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, render_fundus(eye, side=160, seed=seed))
    assert not np.array_equal(frame, render_fundus(eye, side=160, seed=seed + 1))


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("seed", range(20))
def test_the_optic_disc_lies_on_the_nasal_side(eye: Eye, seed: int) -> None:
    assert _disc_side(render_fundus(eye, side=160, seed=seed)) == eye


@pytest.mark.parametrize("side", [96, 320, 700])
def test_the_preprocessing_finds_the_drawn_disc(side: int) -> None:
    disc = preprocess(render_fundus("left", side=side), SPEC).field_of_view
    assert disc.visible_permille == 1000
    assert disc.rim_permille > 900
    assert disc.radius_x_px == pytest.approx(0.47 * side, rel=0.03)
    assert disc.center_x_px == pytest.approx(side / 2, abs=0.02 * side)
    assert disc.center_y_px == pytest.approx(side / 2, abs=0.02 * side)


def test_no_degradation_changes_nothing() -> None:
    frame = render_fundus("left", side=96)
    assert np.array_equal(degrade(frame, strength=0.0, seed=3), frame)


def test_degradation_grows_with_its_strength_and_leaves_the_frame_alone() -> None:
    frame = render_fundus("right", side=96)
    before = frame.copy()
    changes = [
        float(np.abs(degrade(frame, strength=s, seed=5).astype(int) - frame.astype(int)).mean())
        for s in (0.2, 0.6, 1.0)
    ]
    assert 0 < changes[0] < changes[1] < changes[2]
    assert np.array_equal(frame, before)


def test_degradation_is_the_same_for_the_same_seed() -> None:
    frame = render_fundus("left", side=96)
    first = degrade(frame, strength=1.0, seed=1)
    assert np.array_equal(first, degrade(frame, strength=1.0, seed=1))
    assert not np.array_equal(first, degrade(frame, strength=1.0, seed=2))


def test_golden_files_are_the_same_bytes_every_time(pairs: tuple[GoldenPair, ...]) -> None:
    files = golden_files(pairs)
    assert files == golden_files(golden_pairs())
    assert sorted(files) == sorted(f"golden/{k:02d}_{eye}.png" for k in range(16) for eye in EYES)
    assert len(set(files.values())) == len(files)
    assert sum(map(len, files.values())) < 4_000_000


def test_every_golden_patient_has_another_pair_of_pictures(pairs: tuple[GoldenPair, ...]) -> None:
    assert len({(pair.left_file, pair.right_file) for pair in pairs}) == len(pairs) == 32
    assert [pair.left_file for pair in golden_pairs(4)] == [p.left_file for p in pairs[:4]]


def test_golden_files_decode_to_the_pictures_that_they_were_made_of(
    pairs: tuple[GoldenPair, ...],
) -> None:
    files = golden_files(pairs)
    for pair in pairs:
        for eye in EYES:
            name = pair.file(eye)
            assert np.array_equal(decode_photograph(files[name], name=name), pair.frame(eye))


def test_every_golden_picture_is_gradable_and_shows_the_eye_that_it_says(
    pairs: tuple[GoldenPair, ...],
) -> None:
    for pair in pairs:
        for eye in EYES:
            frame = pair.frame(eye)
            assert preprocess(frame, SPEC).field_of_view.radius_x_px > frame.shape[1] // 3
            assert _disc_side(frame) == eye, pair.file(eye)
