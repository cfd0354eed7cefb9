"""Presets are whole configs that survive JSON; every wrong value is named and refused."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from fundus_training.commands import train
from fundus_training.commands.fit import _PRESETS
from fundus_training.errors import ConfigError
from fundus_training.presets import PRESETS, RunConfig, TrainConfig, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_comes_back_from_json_as_it_was(name: str) -> None:
    config = preset(name)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_command_offers_exactly_the_presets() -> None:
    assert tuple(PRESETS) == _PRESETS


def test_an_unknown_preset_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'huge'; there are paper, paper-448, edge, tiny"):
        preset("huge")


def test_what_a_config_leaves_out_stays_as_in_the_preset() -> None:
    config = RunConfig.from_dict({"train": {"epochs": 3}}, base=preset("edge"))
    assert config == preset("edge").with_train(epochs=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trian": {}}, "unknown keys ['trian']"),
        ({"train": {"epoch": 3}}, "section train of the config has unknown keys ['epoch']"),
        ({"model": {"trunck": "resnet18"}}, "unknown keys ['trunck']"),
        ({"preprocess": {"sise": 64}}, "unknown keys ['sise']"),
        ({"train": 3}, "section train of the config is no table"),
        ([], "the config is list"),
        ({"split": {"train": "most"}}, "a value of the config does not fit"),
        ({"split": {"train": 0.9}}, "add up to 1"),
        ({"augment": {"cutmix": 2.0}}, "cutmix is 2.0"),
        ({"preprocess": {"size": "64"}}, "size"),
        ({"model": {"trunk": "vgg"}}, "trunk is 'vgg'"),
        ({"model": {"image_size": 96}}, "takes 96 px images but the preprocessing makes 224 px"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(values)
    assert message in str(caught.value)


BAD_VALUES: dict[str, list[Any]] = {
    "epochs": [0, 1.5, "3", True, None],
    "batch_size": [0, 2.0],
    "accumulate": [0, -1],
    "learning_rate": [0.0, -1e-3, float("nan"), float("inf"), "fast"],
    "trunk_rate_factor": [-0.1, None],
    "weight_decay": [-1.0, True],
    "warmup_epochs": [-1.0],
    "ema_decay": [1.0, -0.1],
    "class_weight_power": [1.1],
    "class_weight_limit": [0.5],
    "eye_loss_weight": [-1.0],
    "label_smoothing": [0.6],
    "clip_norm": [-1.0],
    "precision": ["fp8", None, 16],
    "seed": [-1, 0.5, 2**31],
    "workers": [-2, 1.0],
}


def test_every_value_of_the_recipe_has_a_bad_example() -> None:
    assert set(BAD_VALUES) == {field.name for field in fields(TrainConfig)}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_VALUES.items() for value in values]
)
def test_a_bad_value_of_the_recipe_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*expected"):
        TrainConfig(**{name: value})


def test_unregularised_switches_off_what_would_hinder_fitting_by_heart_and_nothing_else() -> None:
    config = preset("edge")
    bare = config.unregularised()
    assert set(bare.augment.to_dict().values()) == {0.0}
    assert bare.model.dropout == 0.0
    before, after = asdict(config.train), asdict(bare.train)
    changed = {name: after[name] for name in before if before[name] != after[name]}
    assert changed == dict.fromkeys(
        ("weight_decay", "label_smoothing", "ema_decay", "clip_norm"), 0.0
    )
    assert (bare.preprocess, bare.split) == (config.preprocess, config.split)


def test_a_dumped_config_can_be_fed_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["fit", "--preset", "tiny", "--epochs", "7", "--dump-config"]) == 0
    first = capsys.readouterr().out
    file = tmp_path / "config.json"
    file.write_text(first, encoding="utf-8")
    # over another preset, since a whole config leaves nothing of it
    arguments = ["fit", "--preset", "paper", "--config", str(file), "--dump-config"]
    assert train.main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(first)
    assert json.loads(first) == preset("tiny").with_train(epochs=7).to_dict()


@pytest.mark.parametrize("text", ["{", "[1]", '{"train": {"epochs": 0}}', "\udcff"])
def test_a_config_file_that_cannot_be_used_ends_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert train.main(["fit", "--config", str(file), "--dump-config"]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith("fundus-train: ")
