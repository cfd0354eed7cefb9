"""A run: resumable to the same numbers, whole files only, and able to learn what it is shown."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import fundus_training.run_state
from fundus_training.checkpoint import build_model, load_checkpoint
from fundus_training.data.crops import CropStore
from fundus_training.data.records import RecordSet, limit_records, load_records
from fundus_training.errors import CheckpointError, ConfigError, DataError, TrainingError
from fundus_training.fit import Fit, FitResult
from fundus_training.predict import predict
from fundus_training.presets import RunConfig, preset
from fundus_training.run_record import validation_figures
from fundus_training.trainer import Trainer

PATIENTS = 14
EPOCHS = 3
KINDS = (("N", "normal fundus"), ("D", "mild nonproliferative retinopathy"), ("C", "cataract"))

# The smallest trunk: what a run does with its files and numbers does not depend on the model.
CONFIG = replace(
    preset("tiny"), model=replace(preset("tiny").model, trunk="mobilenet_v2", dropout=0.3)
).with_train(epochs=EPOCHS, batch_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit")


@pytest.fixture(scope="module")
def data(folder: Path, make_odir: Callable[..., Path], row_of: Callable[..., Any]) -> RecordSet:
    """Fourteen rendered patients of three kinds in the layout of the ODIR CSV."""
    rows = []
    for patient in range(PATIENTS):
        letter, keywords = KINDS[patient % len(KINDS)]
        rows.append(row_of(patient, keywords, keywords, letter))
    make_odir(folder / "odir" / "full.csv", folder / "odir" / "images", rows)
    return load_records(folder / "odir")


@pytest.fixture(scope="module")
def fit(folder: Path, data: RecordSet) -> Callable[..., Fit]:
    def make(out: Path, config: RunConfig = CONFIG, records: RecordSet = data, **more: Any) -> Fit:
        return Fit(config, records, out, cache_dir=folder / "cache", progress=False, **more)

    return make


@pytest.fixture(scope="module")
def whole(folder: Path, fit: Callable[..., Fit]) -> FitResult:
    """The run that was not interrupted; no test may change it."""
    return fit(folder / "whole").run()


def _without_times(history: Any) -> list[dict[str, float]]:
    return [{name: v for name, v in row.items() if name != "seconds"} for row in history]


def _assert_same_tensors(one: Path, other: Path) -> None:
    mine, theirs = load_file(one), load_file(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def test_a_resumed_run_ends_with_the_same_numbers(
    whole: FitResult, fit: Callable[..., Fit], tmp_path: Path
) -> None:
    assert CONFIG.augment.cutmix > 0
    assert CONFIG.model.dropout > 0
    assert CONFIG.train.ema_decay > 0
    out = tmp_path / "run"
    stopped = fit(out).run(stop_after=1)
    assert len(stopped.history) == 1
    np.random.default_rng().random(7)
    torch.rand(7)  # a resumed run starts in another process, whose generators are elsewhere
    resumed = fit(out).run(resume=True)
    assert _without_times(resumed.history) == _without_times(whole.history)
    for name in ("last.safetensors", "best.safetensors", "state.safetensors"):
        _assert_same_tensors(out / name, whole.last.with_name(name))


def test_a_finished_run_can_be_resumed_and_does_nothing(
    whole: FitResult, fit: Callable[..., Fit]
) -> None:
    before = whole.last.read_bytes()
    again = fit(whole.last.parent).run(resume=True)
    assert len(again.history) == EPOCHS
    assert whole.last.read_bytes() == before


def test_the_seed_decides_the_numbers(
    whole: FitResult, fit: Callable[..., Fit], tmp_path: Path
) -> None:
    other = fit(tmp_path / "run", CONFIG.with_train(seed=1)).run(stop_after=1)
    assert other.history[0]["train_loss"] != whole.history[0]["train_loss"]


def test_weights_change_and_every_parameter_is_trained(
    whole: FitResult, fit: Callable[..., Fit], tmp_path: Path
) -> None:
    started = dict(fit(tmp_path / "run").trainer.model.named_parameters())
    ended = load_file(whole.last.with_name("state.safetensors"))
    still = [name for name, value in started.items() if torch.equal(value, ended[f"model/{name}"])]
    assert still == []


def test_the_checkpoint_says_where_it_is_from(whole: FitResult, data: RecordSet) -> None:
    checkpoint = load_checkpoint(whole.best)
    assert checkpoint.classes == data.classes
    assert checkpoint.spec.sha256 == CONFIG.preprocess.sha256
    assert sorted(checkpoint.split.ids("all")) == sorted(record.id for record in data.records)
    assert checkpoint.calibration is None
    training = checkpoint.training
    assert RunConfig.from_dict(training["config"]) == CONFIG
    assert training["data_layout"] == "odir-csv"
    assert training["patients"]["train"] == len(checkpoint.split.train)
    assert sum(training["positives_in_train"].values()) == len(checkpoint.split.train)
    best = max(whole.history, key=lambda row: row["val_score"])
    kept = checkpoint.metrics["validation_uncalibrated"]
    assert [kept] == _without_times([best])
    assert training["epochs_done"] == best["epoch"]
    assert checkpoint.provenance["seed"] == 0
    assert checkpoint.provenance["init_weights_sha256"] is None
    assert "not a medical device" in checkpoint.provenance["terms"]["medical_device"]


def test_the_figures_are_those_of_the_weights_that_were_saved(
    whole: FitResult, data: RecordSet, folder: Path
) -> None:
    checkpoint = load_checkpoint(whole.last)
    # the layout of the run's own validation: a model this raw tells patients apart by rounding
    model = build_model(checkpoint).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    store = CropStore.open(data.records, checkpoint.spec, cache_dir=folder / "cache")
    kept = [record for record in data.records if record.id in checkpoint.split.val]
    predictions = predict(model, kept, checkpoint.spec, store=store, progress=False)
    figures = validation_figures(predictions, "multi_label")
    assert {name: whole.history[-1][name] for name in figures} == figures


def test_logs_hold_a_row_an_epoch(whole: FitResult) -> None:
    with whole.last.with_name("metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1.0, 2.0, 3.0]
    assert [{k: float(v) for k, v in row.items()} for row in rows] == list(whole.history)
    assert _tensorboard(whole.last.parent) == [
        (int(row["epoch"]), pytest.approx(row["train_loss"], rel=1e-6)) for row in whole.history
    ]


def _tensorboard(run: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("train_loss")]


def test_the_config_is_kept_beside_the_run(whole: FitResult) -> None:
    kept = json.loads(whole.last.with_name("config.json").read_text(encoding="utf-8"))
    # nothing of it comes from the base: it is what `fit --config` needs to run the same again
    assert RunConfig.from_dict(kept, base=preset("paper")) == CONFIG


def test_a_new_run_removes_the_old_one_before_it_starts(
    whole: FitResult, fit: Callable[..., Fit], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in ("state.safetensors", "best.safetensors", "last.safetensors"):
        (out / name).write_bytes(b"old")
    run = fit(out, CONFIG.with_train(learning_rate=1e-4))
    _poison(run.trainer.model)
    with pytest.raises(TrainingError):
        run.run()
    assert sorted(path.name for path in out.glob("*.safetensors")) == []


def test_nothing_to_resume_is_said(fit: Callable[..., Fit], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there, so nothing can be resumed"):
        fit(tmp_path / "run").run(resume=True)
    assert not (tmp_path / "run").exists()


def test_the_state_of_another_run_is_refused(whole: FitResult, fit: Callable[..., Fit]) -> None:
    before = whole.last.with_name("state.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="run with another config"):
        fit(whole.last.parent, CONFIG.with_train(epochs=EPOCHS + 1)).run(resume=True)
    assert whole.last.with_name("state.safetensors").read_bytes() == before


def test_the_state_of_other_labels_is_refused(
    whole: FitResult, fit: Callable[..., Fit], data: RecordSet
) -> None:
    first, *others = data.records
    flipped = tuple(1 - label for label in first.left_labels or ())
    changed = replace(data, records=(replace(first, left_labels=flipped), *others))
    with pytest.raises(CheckpointError, match="run with another config, data set"):
        fit(whole.last.parent, records=changed).run(resume=True)


def test_the_state_of_other_patients_is_refused(
    whole: FitResult, fit: Callable[..., Fit], data: RecordSet
) -> None:
    with pytest.raises(CheckpointError, match="run with another config, data set"):
        fit(whole.last.parent, CONFIG, limit_records(data, PATIENTS - 2)).run(resume=True)


@pytest.mark.parametrize("kept_bytes", [0, 7, 1000])
def test_a_damaged_state_is_refused(
    whole: FitResult, fit: Callable[..., Fit], tmp_path: Path, kept_bytes: int
) -> None:
    state = whole.last.with_name("state.safetensors").read_bytes()
    (tmp_path / "state.safetensors").write_bytes(state[:kept_bytes])
    with pytest.raises(CheckpointError, match="is no state of a run, or is damaged"):
        fit(tmp_path).run(resume=True)


def test_a_checkpoint_is_no_state(
    whole: FitResult, fit: Callable[..., Fit], tmp_path: Path
) -> None:
    (tmp_path / "state.safetensors").write_bytes(whole.last.read_bytes())
    with pytest.raises(CheckpointError, match="is no state of a run"):
        fit(tmp_path).run(resume=True)


def _poison(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))


def test_a_diverged_run_stops_and_keeps_the_last_state(
    fit: Callable[..., Fit], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    fit(out).run(stop_after=1)
    kept = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    run = fit(out)
    restore = run.trainer.restore
    run.trainer.restore = lambda *given: (restore(*given), _poison(run.trainer.model))  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(TrainingError, match=r"the loss is nan: the training diverged; lower"):
        run.run(resume=True)
    assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == kept


def test_a_state_that_cannot_be_written_leaves_the_old_one(
    fit: Callable[..., Fit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    fit(out).run(stop_after=1)
    before = (out / "state.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fundus_training.files.os.fsync", full)
        with pytest.raises(TrainingError, match="No space left on device"):
            fit(out).run(resume=True)
    assert (out / "state.safetensors").read_bytes() == before
    assert [path.name for path in out.iterdir() if path.name.endswith(".part")] == []
    # what was kept is good to go on from
    assert len(fit(out).run(resume=True, stop_after=2).history) == 2


def test_an_interrupted_state_is_never_half_written(
    whole: FitResult, fit: Callable[..., Fit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    run = fit(tmp_path / "run")
    monkeypatch.setattr(Path, "replace", interrupted)
    (tmp_path / "run").mkdir()
    target = tmp_path / "run" / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fundus_training.run_state.write_state(
            target,
            run.trainer.state(),
            run.trainer.optimizer,
            fundus_training.run_state.Progress(),
            run_sha256="",
        )
    assert list((tmp_path / "run").iterdir()) == []


def test_an_out_that_is_a_file_is_refused(fit: Callable[..., Fit], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    with pytest.raises(TrainingError, match="cannot be written"):
        fit(tmp_path / "run").run()
    assert (tmp_path / "run").read_text(encoding="utf-8") == "mine"


def test_initial_weights_that_are_not_there_are_refused_before_any_work(
    fit: Callable[..., Fit], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="do not exist"):
        fit(tmp_path / "run", init_weights=tmp_path / "none.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_too_few_patients_to_split_are_refused(
    fit: Callable[..., Fit], data: RecordSet, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="leaves no patient for val"):
        fit(tmp_path / "run", CONFIG, limit_records(data, 1))


def test_fp16_on_the_cpu_is_refused(fit: Callable[..., Fit], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        fit(tmp_path / "run", CONFIG.with_train(precision="fp16"))


def test_the_model_has_an_output_for_each_of_the_users_own_classes(
    folder: Path, data: RecordSet, fit: Callable[..., Fit], tmp_path: Path
) -> None:
    table = tmp_path / "mine.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = [
            (r.id, r.left, r.right, int(k % 3 == 0), int(k % 3 == 1), int(k % 3 == 2))
            for k, r in enumerate(data.records)
        ]
        csv.writer(file).writerows([("id", "left", "right", "calm", "ill", "worse"), *rows])
    result = fit(tmp_path / "run", CONFIG, load_records(table)).run(stop_after=1)
    checkpoint = load_checkpoint(result.last)
    assert checkpoint.classes.letters == ("calm", "ill", "worse")
    assert checkpoint.model_config.num_classes == 3


@pytest.mark.parametrize("batch_size", [3, 9])
def test_a_last_batch_of_a_single_pair_can_be_trained_on(
    fit: Callable[..., Fit], tmp_path: Path, batch_size: int
) -> None:
    run = fit(tmp_path / "run", CONFIG.with_train(batch_size=batch_size))
    assert len(run.dataset) % batch_size == 1
    assert run.run(stop_after=1).history[0]["train_loss"] > 0


def _freeze_norms(model: nn.Module) -> None:
    """Batch norms that do not look at the batch, so that only the arithmetic of the sum is seen."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda _=True, module=module: module  # type: ignore[method-assign,misc]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (3, 3)])
def test_accumulated_batches_step_as_one_large_batch_does(
    fit: Callable[..., Fit], tmp_path: Path, batch_size: int, accumulate: int
) -> None:
    def gradients(size: int, parts: int) -> list[torch.Tensor]:
        config = CONFIG.unregularised().with_train(
            batch_size=size, accumulate=parts, eye_loss_weight=0.0, epochs=1
        )
        run = fit(tmp_path / "run", config)
        _freeze_norms(run.trainer.model)
        steps: list[list[torch.Tensor]] = []
        run.trainer.optimizer.register_step_pre_hook(
            lambda *_: steps.append(
                # the eyes' own head has no gradient without the eyes' loss
                [p.grad.clone() for p in run.trainer.model.parameters() if p.grad is not None]
            )
        )
        run.trainer.train_epoch(run.dataset, run.loss, 0)
        assert len(steps) == -(-len(run.dataset) // (size * parts))
        return steps[0]

    large = gradients(batch_size * accumulate, 1)
    summed = gradients(batch_size, accumulate)
    for one, other in zip(large, summed, strict=True):
        torch.testing.assert_close(other, one, rtol=2e-3, atol=2e-6)


def test_a_short_last_step_weighs_its_pairs_alike(fit: Callable[..., Fit], tmp_path: Path) -> None:
    config = CONFIG.unregularised().with_train(batch_size=4, accumulate=2)
    trainer = Trainer(config, torch.device("cpu"), progress=False)
    dataset = fit(tmp_path / "run").dataset
    assert len(dataset) == 10
    assert [trainer._pairs_of_step(dataset, step) for step in (0, 1)] == [8, 2]


def _loss_by_heart(data: RecordSet, cache: Path, out: Path) -> list[float]:
    config = preset("tiny").with_train(epochs=40).unregularised()
    run = Fit(config, data, out, cache_dir=cache, progress=False)
    return [run.trainer.train_epoch(run.dataset, run.loss, epoch) for epoch in range(40)]


@pytest.mark.slow
def test_sixteen_rendered_pairs_are_learned_by_heart(
    folder: Path, make_odir: Callable[..., Path], row_of: Callable[..., Any], tmp_path: Path
) -> None:
    rows = [row_of(k, KINDS[k % 3][1], KINDS[k % 3][1], KINDS[k % 3][0]) for k in range(16)]
    make_odir(tmp_path / "odir" / "full.csv", tmp_path / "odir" / "images", rows)
    losses = _loss_by_heart(load_records(tmp_path / "odir"), tmp_path / "cache", tmp_path / "run")
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.slow
def test_sixteen_real_pairs_are_learned_by_heart(fundus_data: Path, tmp_path: Path) -> None:
    data = limit_records(load_records(fundus_data / "odir"), 16)
    losses = _loss_by_heart(data, tmp_path / "cache", tmp_path / "run")
    assert losses[-1] < 0.05 * losses[0]
