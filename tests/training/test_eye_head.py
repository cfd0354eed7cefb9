"""A per-eye output that shows where: fitted on a trained model, which otherwise stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fundus_training.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from fundus_training.commands.train import main
from fundus_training.data.crops import CropStore
from fundus_training.data.records import load_records
from fundus_training.data.splits import Split
from fundus_training.errors import DataError
from fundus_training.eye_head import fit_linear, with_local_eye_head
from fundus_training.models import DMSNet, ModelConfig, folded_copy
from fundus_training.models.trunks import TRUNKS, build_trunk
from fundus_training.presets import preset
from fundus_training.weights import state_of


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
@torch.no_grad()
def test_the_early_map_lies_on_the_last_grid_and_leads_to_the_output(name: str) -> None:
    trunk = build_trunk(name).eval()
    image = torch.randn(1, 3, 80, 80)
    early, out = trunk.parts(image)
    assert early.shape == (1, TRUNKS[name].early_channels, 3, 3)
    assert torch.equal(out, trunk(image))


@torch.no_grad()
def test_the_early_map_sees_less_of_the_image_than_the_output() -> None:
    torch.manual_seed(0)
    trunk = build_trunk("mobilenet_v2").eval()
    image = torch.randn(1, 3, 448, 448)
    changed = image.clone()
    changed[..., 216:232, 216:232] += 3
    plain, other = trunk.parts(image), trunk.parts(changed)
    reached = [
        int(((a - b).abs().amax(dim=1) > 0).sum()) for a, b in zip(plain, other, strict=True)
    ]
    assert 0 < reached[0] < reached[1]


@pytest.mark.parametrize("reads", ["features", "trunk"])
@torch.no_grad()
def test_maps_have_the_logits_as_their_mean(reads: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(trunk="resnet18", image_size=96, auxiliary_input=reads)  # type: ignore[arg-type]
    model = DMSNet(config).eval()
    images = torch.randn(2, 3, 96, 96)
    for encoded in (model.encode(images), folded_copy(model).encode(images)):
        assert encoded.maps is not None
        assert encoded.maps.shape == (2, 8, 3, 3)
        # FP32 sums in another order
        torch.testing.assert_close(encoded.maps.mean(dim=(2, 3)), encoded.logits)
    pair = model(images, images.flip(0))
    torch.testing.assert_close(pair.left_logits, model.encode(images).logits)
    torch.testing.assert_close(pair.right_logits, model.encode(images.flip(0)).logits)


def test_a_linear_head_finds_what_means_tell() -> None:
    generator = torch.Generator().manual_seed(0)
    means = 5 + 3 * torch.randn(400, 6, generator=generator)
    truth = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, -2.0, 0, 0, 1.0]])
    labels = ((means - 5) @ truth.T > 0).long()
    weight, bias = fit_linear(means, labels, task="multi_label", decay=1e-3)
    assert ((means @ weight.T + bias > 0).long() == labels).float().mean() > 0.95
    stronger, _ = fit_linear(means, labels, task="multi_label", decay=1.0)
    assert stronger.norm() < weight.norm()


def test_a_softmax_head_ranks_its_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(300, 3, generator=generator)
    labels = torch.nn.functional.one_hot(means.argmax(dim=1), 3)
    weight, bias = fit_linear(means, labels, task="softmax", decay=1e-3)
    assert ((means @ weight.T + bias).argmax(dim=1) == means.argmax(dim=1)).float().mean() > 0.95


@pytest.fixture(scope="module")
def data(
    make_odir: Callable[..., Path],
    row_of: Callable[..., list[object]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("odir")
    rows = [
        row_of(i, left="cataract" if i % 2 else "normal fundus", letters="C" if i % 2 else "N")
        for i in range(1, 9)
    ]
    make_odir(folder / "annotations.csv", folder / "images", rows)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path) -> Checkpoint:
    torch.manual_seed(0)
    config, records = preset("tiny"), load_records(data)
    ids = [record.id for record in records.records]
    return Checkpoint(
        model_config=config.model,
        classes=records.classes,
        spec=config.preprocess,
        state=state_of(DMSNet(config.model)),
        split=Split(train=tuple(ids[:6]), val=tuple(ids[6:7]), test=tuple(ids[7:])),
        metrics={"validation": {"auc": 0.5}},
    )


@torch.no_grad()
def test_only_the_eyes_own_output_changes(trained: Checkpoint, data: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    save_checkpoint(source, trained)
    arguments = ["--checkpoint", str(source), "--data", str(data), "--out", str(target)]
    assert main(["eye-head", *arguments, "--cache-dir", str(tmp_path)]) == 0
    fitted = load_checkpoint(target)
    assert fitted.model_config.auxiliary_input == "trunk"
    assert fitted.calibration is None
    assert fitted.metrics == {}
    images = torch.randn(2, 3, 64, 64)
    before = build_model(load_checkpoint(source))(images, images.flip(0))
    after = build_model(fitted)(images, images.flip(0))
    assert torch.equal(before.logits, after.logits)
    assert not torch.equal(before.left_logits, after.left_logits)


def test_the_fit_learns_what_it_is_shown(trained: Checkpoint, data: Path, tmp_path: Path) -> None:
    records = load_records(data).records
    store = CropStore.open(records, trained.spec, cache_dir=tmp_path, progress=False)
    chosen = [record for record in records if record.id in trained.split.train]
    fitted = with_local_eye_head(trained, chosen, store, decay=1e-4, progress=False)
    again = with_local_eye_head(trained, chosen, store, decay=1e-4, batch_size=5, progress=False)
    weight = "auxiliary.linear.weight"
    # means of batches of another size, in FP32
    np.testing.assert_allclose(fitted.state[weight], again.state[weight], rtol=1e-2, atol=1e-3)
    none = with_local_eye_head(trained, chosen, store, decay=1e4, progress=False)
    assert none.state[weight].norm() < 0.05 * fitted.state[weight].norm()


def test_patients_without_labels_of_single_eyes_are_refused(
    trained: Checkpoint, data: Path, tmp_path: Path
) -> None:
    records = [
        replace(record, left_labels=None, right_labels=None)
        for record in load_records(data).records
    ]
    store = CropStore.open(records, trained.spec, cache_dir=tmp_path, progress=False)
    with pytest.raises(DataError, match="labels of its own"):
        with_local_eye_head(trained, records, store, progress=False)
