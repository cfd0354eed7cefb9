"""Going on from a checkpoint: all of its weights and its split, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fundus_training.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from fundus_training.data.records import RecordSet, load_records
from fundus_training.errors import CheckpointError, DataError
from fundus_training.fit import Fit
from fundus_training.presets import RunConfig, preset

CONFIG = replace(
    preset("tiny"), model=replace(preset("tiny").model, trunk="mobilenet_v2")
).with_train(epochs=1, batch_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("initial")


@pytest.fixture(scope="module")
def data(folder: Path, make_odir: Callable[..., Path], row_of: Callable[..., Any]) -> RecordSet:
    rows = [row_of(patient) for patient in range(12)]
    make_odir(folder / "odir" / "full.csv", folder / "odir" / "images", rows)
    return load_records(folder / "odir")


@pytest.fixture(scope="module")
def fit(folder: Path, data: RecordSet) -> Callable[..., Fit]:
    def make(out: str, config: RunConfig = CONFIG, records: RecordSet = data, **more: Any) -> Fit:
        cache = folder / "cache"
        return Fit(config, records, folder / out, cache_dir=cache, progress=False, **more)

    return make


@pytest.fixture(scope="module")
def trained(fit: Callable[..., Fit]) -> Path:
    return fit("trained").run().last


def test_every_weight_and_the_split_are_taken_over(fit: Callable[..., Fit], trained: Path) -> None:
    before = load_checkpoint(trained)
    # another seed would split otherwise, and its validation patients would have been trained on
    second = fit("second", CONFIG.with_train(seed=5), init_weights=trained)
    assert second.split == before.split
    assert fit("fresh", CONFIG.with_train(seed=5)).split != before.split
    state = second.trainer.model.state_dict()
    assert [name for name in state if not torch.equal(state[name], before.state[name])] == []


def test_the_new_checkpoint_names_what_it_went_on_from(
    fit: Callable[..., Fit], trained: Path
) -> None:
    second = fit("named", init_weights=trained)
    after = load_checkpoint(second.run().last)
    assert after.provenance["init_weights_sha256"] == second.trainer.init_sha256
    assert after.split == load_checkpoint(trained).split


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": {"ccam": False}}, "ccam"),
        ({"preprocess": {"illumination": "none"}}, CONFIG.preprocess.sha256[:12]),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    fit: Callable[..., Fit], trained: Path, change: dict[str, Any], named: str
) -> None:
    other = RunConfig.from_dict(change, base=CONFIG)
    with pytest.raises(CheckpointError, match=named):
        fit("other", other, init_weights=trained)


def test_dropout_may_differ(fit: Callable[..., Fit], trained: Path) -> None:
    other = RunConfig.from_dict({"model": {"dropout": 0.5}}, base=CONFIG)
    fit("dropout", other, init_weights=trained)


def test_another_data_set_is_refused(
    fit: Callable[..., Fit],
    trained: Path,
    tmp_path: Path,
    make_odir: Callable[..., Path],
    row_of: Callable[..., Any],
) -> None:
    rows = [row_of(patient) for patient in range(100, 112)]
    make_odir(tmp_path / "odir" / "full.csv", tmp_path / "odir" / "images", rows)
    with pytest.raises(DataError, match="not in this data set"):
        fit("foreign", records=load_records(tmp_path / "odir"), init_weights=trained)


def test_a_damaged_checkpoint_is_refused(
    fit: Callable[..., Fit], trained: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(trained)
    name = next(iter(checkpoint.state))
    state = dict(checkpoint.state)
    del state[name]
    broken = tmp_path / "broken.safetensors"
    save_checkpoint(broken, replace(checkpoint, state=state))
    with pytest.raises(CheckpointError, match="tensors"):
        fit("broken", init_weights=broken)


def test_a_trunk_is_no_checkpoint(trained: Path, tmp_path: Path) -> None:
    assert is_checkpoint(trained)
    assert not is_checkpoint(tmp_path / "none.safetensors")
    (tmp_path / "trunk.pth").write_bytes(b"PK\x03\x04")
    assert not is_checkpoint(tmp_path / "trunk.pth")
