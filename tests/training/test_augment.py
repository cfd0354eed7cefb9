"""Augmentation of pairs: anatomy is kept, labels follow their eye, everything is reproducible."""

from __future__ import annotations

from dataclasses import fields

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus_training.data.augment import (
    AugmentConfig,
    Pair,
    augment_pair,
    cut_mix,
    drop_eye,
    generator_for,
)
from fundus_training.data.crops import Crop
from fundus_training.errors import ConfigError

SIZE = 64
ALL = AugmentConfig(blur=1.0, noise=1.0, jpeg=1.0)


def only(**values: float) -> AugmentConfig:
    return AugmentConfig(**{**AugmentConfig.none().to_dict(), **values})


def disc_mask() -> np.ndarray:
    offset = 2 * np.arange(SIZE) + 1 - SIZE
    return offset[:, None] ** 2 + offset[None, :] ** 2 <= (SIZE - 4) ** 2


def crop_of(level: int, spot: tuple[int, int] | None = None) -> Crop:
    """A grey disc, with a bright spot (column, row) where one is asked for."""
    mask = disc_mask()
    image = np.full((SIZE, SIZE, 3), level, np.uint8) * mask[:, :, None]
    if spot is not None:
        cv2.circle(image, spot, 4, (255, 255, 255), -1)
    image.flags.writeable = False
    return Crop(image, mask)


def pair_of(**changes: object) -> Pair:
    values = {
        "left": crop_of(90, (14, 30)),
        "right": crop_of(120, (SIZE - 15, 34)),
        "labels": (0, 1, 1),
        "left_labels": (0, 1, 0),
        "right_labels": (0, 0, 1),
    }
    return Pair(**{**values, **changes})  # type: ignore[arg-type]


def spot_column(crop: Crop | None) -> float:
    assert crop is not None
    weight = crop.image.max(axis=2).astype(float)
    weight[weight < 0.8 * weight.max()] = 0
    return float((weight.sum(axis=0) * np.arange(SIZE)).sum() / weight.sum())


def both(pair: Pair) -> tuple[Crop, Crop]:
    assert pair.left is not None
    assert pair.right is not None
    return pair.left, pair.right


def rng(seed: int = 0) -> np.random.Generator:
    return generator_for(seed, 0, 0)


def test_no_augmentation_changes_nothing() -> None:
    pair = pair_of()
    assert augment_pair(pair, AugmentConfig.none(), rng()) == pair
    assert drop_eye(pair, AugmentConfig.none(), rng()) is pair


def test_a_flip_mirrors_both_eyes_and_swaps_them_with_their_labels() -> None:
    pair = pair_of()
    flipped = augment_pair(pair, only(flip_and_swap=1.0), rng())
    (left, right), (new_left, new_right) = both(pair), both(flipped)
    np.testing.assert_array_equal(new_left.image, right.image[:, ::-1])
    np.testing.assert_array_equal(new_right.image, left.image[:, ::-1])
    np.testing.assert_array_equal(new_right.mask, left.mask[:, ::-1])
    assert flipped.labels == pair.labels
    assert (flipped.left_labels, flipped.right_labels) == (pair.right_labels, pair.left_labels)


def test_a_flip_moves_an_absent_eye_to_the_other_side() -> None:
    flipped = augment_pair(pair_of(left=None), only(flip_and_swap=1.0), rng())
    assert flipped.left is not None
    assert flipped.right is None


@given(st.integers(0, 2**31))
def test_the_nasal_side_stays_nasal_under_any_augmentation(seed: int) -> None:
    varied = augment_pair(pair_of(), AugmentConfig(), rng(seed))
    assert spot_column(varied.left) < SIZE / 2 < spot_column(varied.right)


@given(st.integers(0, 2**31))
def test_the_mask_moves_with_the_image(seed: int) -> None:
    """Inside the warped mask there is fundus, outside of it black."""
    config = only(flip_and_swap=0.5, rotation_degrees=15, scale=0.1, aspect=0.05, translation=0.04)
    varied = augment_pair(pair_of(left=crop_of(100), right=crop_of(100)), config, rng(seed)).left
    assert varied is not None
    bright = varied.image[:, :, 0] > 50
    # Within two pixels of the rim the two interpolations may disagree, also beyond the image.
    framed = np.pad(varied.mask.astype(np.uint8), 2)
    rim = cv2.morphologyEx(framed, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
    edge = rim[2:-2, 2:-2].astype(bool)
    np.testing.assert_array_equal(bright[~edge], varied.mask[~edge])


def test_both_eyes_get_one_colour_and_geometries_of_their_own() -> None:
    same = crop_of(100, (20, 20))
    pair = pair_of(left=same, right=same)
    left, right = both(augment_pair(pair, only(brightness=0.3, gamma=0.3), rng()))
    np.testing.assert_array_equal(left.image, right.image)
    assert not np.array_equal(left.image, same.image)
    left, right = both(augment_pair(pair, only(rotation_degrees=15.0), rng()))
    assert not np.array_equal(left.image, right.image)


@pytest.mark.parametrize(
    "name",
    [
        *("rotation_degrees", "scale", "aspect", "translation", "brightness", "contrast"),
        *("gamma", "channel_gain", "blur", "noise", "jpeg"),
    ],
)
def test_each_step_alone_changes_the_image(name: str) -> None:
    pair = pair_of()
    varied, _ = both(augment_pair(pair, only(**{name: 0.9}), rng(1)))
    assert not np.array_equal(varied.image, both(pair)[0].image)


def test_saturation_keeps_grey_and_moves_colours() -> None:
    colour = np.array([200, 60, 30], np.uint8)
    red = Crop(np.zeros((SIZE, SIZE, 3), np.uint8) + colour, disc_mask())
    pair = pair_of(left=crop_of(90), right=red)
    grey, moved = both(augment_pair(pair, only(saturation=0.5), rng()))
    assert np.abs(grey.image.astype(int) - crop_of(90).image).max() <= 1
    assert np.abs(moved.image.astype(int) - red.image).max() > 5


@given(st.integers(0, 2**31), st.integers(0, 100), st.integers(0, 5000))
def test_a_sample_depends_on_seed_epoch_and_index_alone(seed: int, epoch: int, index: int) -> None:
    first, _ = both(augment_pair(pair_of(), ALL, generator_for(seed, epoch, index)))
    second, _ = both(augment_pair(pair_of(), ALL, generator_for(seed, epoch, index)))
    np.testing.assert_array_equal(first.image, second.image)
    assert (
        generator_for(seed, epoch, index).random() != generator_for(seed, epoch + 1, index).random()
    )


def test_what_one_eye_gets_does_not_depend_on_the_other_being_there() -> None:
    for seed in range(10):
        complete = both(augment_pair(pair_of(), ALL, rng(seed)))
        alone = augment_pair(pair_of(left=None), ALL, rng(seed))
        for with_partner, without in zip(complete, (alone.left, alone.right), strict=True):
            if without is not None:
                np.testing.assert_array_equal(with_partner.image, without.image)


def plain_crop(level: int, *, mask: bool = True) -> Crop:
    return Crop(np.full((SIZE, SIZE, 3), level, np.uint8), np.full((SIZE, SIZE), mask))


@given(st.integers(0, 2**31))
def test_cutmix_pastes_one_box_and_its_mirror_image(seed: int) -> None:
    pair = pair_of(left=plain_crop(90), right=plain_crop(90))
    partner = pair_of(left=plain_crop(200), right=plain_crop(200))
    mixed = cut_mix(pair, partner, rng(seed))
    left, right = both(mixed)
    pasted = left.image[:, :, 0] == 200
    np.testing.assert_array_equal(pasted, (right.image[:, :, 0] == 200)[:, ::-1])
    box = np.outer(pasted.any(axis=1), pasted.any(axis=0))
    np.testing.assert_array_equal(pasted, box)
    np.testing.assert_array_equal(left.image[~box], 90)
    assert (mixed.labels, mixed.left_labels) == (pair.labels, pair.left_labels)


def test_cutmix_boxes_are_of_all_sizes() -> None:
    pair = pair_of(left=plain_crop(0), right=plain_crop(0))
    partner = pair_of(left=plain_crop(1), right=plain_crop(1))
    shares = [both(cut_mix(pair, partner, rng(seed)))[0].image.mean() for seed in range(200)]
    assert min(shares) < 0.05
    assert max(shares) > 0.7


def test_cutmix_takes_the_partners_mask_and_leaves_its_inputs_alone() -> None:
    pair = pair_of(left=plain_crop(90), right=plain_crop(90))
    partner = pair_of(left=plain_crop(7, mask=False), right=plain_crop(7, mask=False))
    left, _ = both(cut_mix(pair, partner, rng(3)))
    assert (left.image[:, :, 0] == 7).any()
    np.testing.assert_array_equal(left.mask, left.image[:, :, 0] == 90)
    assert (both(pair)[0].image == 90).all()
    assert both(pair)[0].mask.all()


def test_cutmix_leaves_an_absent_eye_absent() -> None:
    mixed = cut_mix(pair_of(right=None), pair_of(right=None), rng())
    assert mixed.right is None
    assert mixed.left is not None


def test_a_dropped_eye_takes_its_findings_with_it() -> None:
    outcomes = {
        (dropped.left is None, dropped.labels)
        for dropped in (drop_eye(pair_of(), only(drop_eye=1.0), rng(seed)) for seed in range(40))
    }
    assert outcomes == {(True, (0, 0, 1)), (False, (0, 1, 0))}


def test_without_eye_labels_the_patients_stay() -> None:
    pair = pair_of(left_labels=None, right_labels=None)
    for seed in range(20):
        dropped = drop_eye(pair, only(drop_eye=1.0), rng(seed))
        assert dropped.labels == pair.labels
        assert (dropped.left is None) != (dropped.right is None)


def test_the_only_eye_is_never_dropped() -> None:
    for seed in range(20):
        alone = pair_of(left=None)
        assert drop_eye(alone, only(drop_eye=1.0), rng(seed)) is alone


def test_the_configuration_survives_a_round_trip() -> None:
    config = AugmentConfig(rotation_degrees=7, cutmix=0.0)
    assert AugmentConfig.from_dict(config.to_dict()) == config
    assert set(AugmentConfig.none().to_dict().values()) == {0.0}


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="shear"):
        AugmentConfig.from_dict({"shear": 1})
    for field in fields(AugmentConfig):
        for value in (-0.1, 1000.0, float("nan"), "much", True):
            with pytest.raises(ConfigError, match=field.name):
                AugmentConfig.from_dict({field.name: value})
