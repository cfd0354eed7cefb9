"""The model's config refuses what it does not know and survives JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fundus_training.errors import ConfigError
from fundus_training.models import ModelConfig


def test_a_config_survives_json() -> None:
    config = ModelConfig(trunk="resnet18", num_classes=3, mixing="symmetric", dropout=0.0)

    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_absent_keys_take_their_defaults() -> None:
    assert ModelConfig.from_dict({"trunk": "resnet50"}) == ModelConfig(trunk="resnet50")


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown keys osim_scale;.*osim_scale_reading"):
        ModelConfig.from_dict({"osim_scale": "grid"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trunk", "resnet20"),
        ("task", "regression"),
        ("osim_scale_reading", "both"),
        ("osim_attention", "3x3"),
        ("osim_weights", ["shared"]),
        ("casfm", 1),
        ("ccam", "yes"),
        ("num_classes", 0),
        ("num_classes", True),
        ("image_size", 63),
        ("image_size", 224.0),
        ("attention_heads", 0),
        ("attention_width", -64),
        ("dense_depth", 0),
        ("dropout", 1.0),
        ("dropout", float("nan")),
        ("dropout", "0.2"),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is .*expected"):
        ModelConfig.from_dict({name: value})


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"casfm": False, "ccam": False, "ciam": False}, "at least one"),
        ({"attention_width": 100}, "no multiple"),
        ({"mixing": "symmetric", "osim_weights": "per_eye"}, "same encoder"),
        ({"mixing": "symmetric", "osim_left": False}, "same encoder"),
        ({"task": "softmax", "num_classes": 1}, "at least 2"),
    ],
)
def test_choices_that_exclude_each_other_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(choices)


@pytest.mark.parametrize(
    ("trunk", "channels", "width", "growth"),
    [("resnet152", 2048, 512, 80), ("resnet18", 512, 128, 64), ("mobilenet_v2", 320, 64, 64)],
)
def test_widths_follow_the_trunk(trunk: str, channels: int, width: int, growth: int) -> None:
    config = ModelConfig(trunk=trunk)

    assert config.trunk_channels == channels
    assert config.feature_channels == channels // 2
    assert (config.width, config.growth) == (width, growth)


@pytest.mark.parametrize(("image_size", "grid"), [(64, 2), (96, 3), (224, 7), (225, 8), (448, 14)])
def test_the_grid_follows_the_image_size(image_size: int, grid: int) -> None:
    assert ModelConfig(image_size=image_size).grid == grid


def test_eyes_share_an_encoder_unless_their_osims_differ() -> None:
    assert ModelConfig().eyes_share_encoder
    assert ModelConfig(osim_left=False, osim_right=False).eyes_share_encoder
    assert not ModelConfig(osim_left=False).eyes_share_encoder
    assert not ModelConfig(osim_weights="per_eye").eyes_share_encoder
