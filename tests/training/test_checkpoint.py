"""Checkpoints: what goes in comes out, nothing is half-written, and every fault is named."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fundus_runtime.calibration import Calibration
from fundus_runtime.labels import ODIR_CLASSES, ClassList
from fundus_runtime.preprocess import PreprocessSpec
from fundus_training.calibrate import FittedCalibration
from fundus_training.checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    save_checkpoint,
    with_calibration,
)
from fundus_training.data.splits import Split
from fundus_training.errors import CheckpointError
from fundus_training.evaluate import uncalibrated_points
from fundus_training.models import DMSNet, ModelConfig
from fundus_training.weights import round_weights_to_fp16, state_of

CONFIG = ModelConfig(trunk="mobilenet_v2", image_size=64)
SPEC = PreprocessSpec(size=64)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads over tiny tensors wait for each other and do little else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        model_config=CONFIG,
        classes=ODIR_CLASSES,
        spec=SPEC,
        state=state_of(DMSNet(CONFIG)),
        split=Split(train=("1", "2"), val=("3",), test=("4",)),
        training={"epochs": 3, "data": {"name": "odir", "patients": 4}},
        metrics={"challenge_score": 0.76},
        provenance={"seed": 0, "terms": "research only"},
    )


@pytest.fixture(scope="module")
def header_only(checkpoint: Checkpoint) -> Checkpoint:
    """The same header over a single tensor, for tests that end before the model is built."""
    return dataclasses.replace(checkpoint, state={"weight": torch.zeros(2, 2)})


def _fitted(letters: tuple[str, ...] = ODIR_CLASSES.letters) -> FittedCalibration:
    same = Calibration.identity(letters)
    points = uncalibrated_points(ClassList(letters, letters))
    return FittedCalibration(same, same, points, points, "validation patients", 3, 6)


def _alter(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a checkpoint's header, its tensors untouched."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["fundus_edge"])
    change(header)
    save_file(load_file(path), path, metadata={"fundus_edge": json.dumps(header)})


def test_everything_comes_back_as_it_was_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved = with_calibration(checkpoint, _fitted(), {"kappa": 0.5})
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    for field in dataclasses.fields(Checkpoint):
        if field.name != "state":
            assert getattr(loaded, field.name) == getattr(saved, field.name), field.name
    assert loaded.state.keys() == saved.state.keys()
    for name, tensor in saved.state.items():
        assert loaded.state[name].dtype == tensor.dtype, name
        assert torch.equal(loaded.state[name], tensor), name


def test_a_loaded_model_answers_as_the_saved_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = build_model(checkpoint)
    save_checkpoint(tmp_path / "model.safetensors", checkpoint)
    loaded = build_model(load_checkpoint(tmp_path / "model.safetensors"))
    assert not loaded.training
    pair = torch.randn(2, 1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(*pair).logits, loaded(*pair).logits)


def test_rounded_weights_take_half_the_space_and_come_back_exactly(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rounded = dataclasses.replace(checkpoint, state=round_weights_to_fp16(checkpoint.state))
    save_checkpoint(tmp_path / "whole.safetensors", checkpoint)
    save_checkpoint(tmp_path / "rounded.safetensors", rounded)
    loaded = load_checkpoint(tmp_path / "rounded.safetensors").state
    assert all(torch.equal(loaded[name], tensor) for name, tensor in rounded.state.items())
    assert all(loaded[name].dtype == tensor.dtype for name, tensor in checkpoint.state.items())
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("rounded", "whole")]
    assert sizes[0] < 0.55 * sizes[1]


def test_rounding_gives_the_nearest_fp16_number_and_leaves_batch_norms_alone() -> None:
    state = {
        "conv.weight": torch.randn(4, 3, 3, 3),
        "conv.bias": torch.randn(4),
        "bn.running_var": torch.rand(4) * 1e5,
        "bn.num_batches_tracked": torch.tensor(7),
    }
    rounded = round_weights_to_fp16(state)
    nearest = state["conv.weight"].numpy().astype(np.float16).astype(np.float32)
    assert np.array_equal(rounded["conv.weight"].numpy(), nearest)
    assert not torch.equal(rounded["conv.weight"], state["conv.weight"])
    for name in ("conv.bias", "bn.running_var", "bn.num_batches_tracked"):
        assert torch.equal(rounded[name], state[name])


def test_a_weight_too_large_for_fp16_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"head\.weight reaches 7e\+04"):
        round_weights_to_fp16({"head.weight": torch.full((2, 2), 7e4)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(
    checkpoint: Checkpoint, tmp_path: Path, value: float
) -> None:
    name = next(name for name, tensor in checkpoint.state.items() if tensor.ndim == 4)
    broken = checkpoint.state | {name: torch.full_like(checkpoint.state[name], value)}
    with pytest.raises(CheckpointError, match=name):
        save_checkpoint(tmp_path / "m.safetensors", dataclasses.replace(checkpoint, state=broken))
    assert not list(tmp_path.iterdir())


def test_weights_of_lower_precision_are_not_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in checkpoint.state.items()}
    with pytest.raises(CheckpointError, match="bfloat16"):
        save_checkpoint(tmp_path / "m.safetensors", dataclasses.replace(checkpoint, state=halves))


def test_metrics_that_json_cannot_hold_are_not_saved(
    header_only: Checkpoint, tmp_path: Path
) -> None:
    bad = dataclasses.replace(header_only, metrics={"auc": float("nan")})
    with pytest.raises(CheckpointError, match="plain JSON"):
        save_checkpoint(tmp_path / "m.safetensors", bad)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_other(
    header_only: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, header_only)
    before = path.read_bytes()

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"No space left.*unchanged"):
        save_checkpoint(path, with_calibration(header_only, _fitted()))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_an_error(header_only: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "none" / "m.safetensors", header_only)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"x" * 5000])
def test_a_file_of_another_kind_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_checkpoint(tmp_path / "m.safetensors")


def test_a_file_cut_short_is_an_error(header_only: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, header_only)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut short"):
        load_checkpoint(path)


def test_bare_tensors_are_sent_to_the_right_option(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "trunk.safetensors")
    with pytest.raises(CheckpointError, match="--init-weights"):
        load_checkpoint(tmp_path / "trunk.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: header.update(format="a bundle"), "'a bundle'"),
        (lambda header: header.update(schema_version=2), "schema version is 2"),
        (lambda header: header.update(extra=1), "unknown keys \\['extra'\\]"),
        (lambda header: header.pop("split"), "lacks \\['split'\\]"),
        (lambda header: header["model"].update(wings=2), "wings"),
        (lambda header: header["model"].update(num_classes=5), "5 classes but .* names 8"),
        (lambda header: header["model"].update(image_size=96), "96 px images .* 64 px"),
        (lambda header: header["preprocess"].update(mask_permille=900), SPEC.sha256),
        (lambda header: header["preprocess"].update(dust=True), "dust"),
        (lambda header: header["classes"].update(normal="Z"), "'Z'"),
        (lambda header: header["split"].update(val=["1"]), "more than once"),
        (lambda header: header["calibration"].update(more=1), "calibration needs exactly"),
        (lambda header: header["calibration"]["patient"].pop("D"), "same classes"),
        (lambda header: header["calibration"]["eye"]["D"].update(temperature=0), "above 0"),
        (lambda header: header.update(model=None), "damaged"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    header_only: Checkpoint,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    words: str,
) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, with_calibration(header_only, _fitted()))
    _alter(path, change)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


def test_an_altered_spec_is_named_beside_the_one_trained_with(
    header_only: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, header_only)
    other = dataclasses.replace(SPEC, mask_permille=900)
    _alter(path, lambda header: header.update(preprocess=other.to_dict()))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert other.sha256 in str(caught.value)
    assert SPEC.sha256 in str(caught.value)


def test_tensors_of_another_model_are_refused(checkpoint: Checkpoint) -> None:
    short = dict(checkpoint.state)
    short.pop(next(iter(short)))
    with pytest.raises(CheckpointError, match="do not fit its own model config"):
        build_model(dataclasses.replace(checkpoint, state=short))


def test_a_class_list_of_another_length_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="8 classes but the class list names 2"):
        dataclasses.replace(checkpoint, classes=ClassList(("N", "D"), ("normal", "diabetic")))
