"""Predictions, the evaluation report, and both commands on photographs drawn for the test."""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fundus_runtime.errors import UsageError
from fundus_runtime.labels import ODIR_CLASSES, ClassList
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import PreprocessSpec, preprocess
from fundus_training.calibrate import calibrate
from fundus_training.checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from fundus_training.commands import calibrate as calibrate_command
from fundus_training.commands import evaluate as evaluate_command
from fundus_training.data.grades import GradedPair
from fundus_training.data.records import PatientRecord, load_records
from fundus_training.data.splits import Split
from fundus_training.errors import DataError, TrainingError
from fundus_training.evaluate import evaluate
from fundus_training.evaluate_grades import evaluate_grades, records_from_grades
from fundus_training.figures import Resampling
from fundus_training.models import DMSNet, ModelConfig
from fundus_training.predict import EyePredictions, Predictions, predict
from fundus_training.report_text import text_of_evaluation
from fundus_training.weights import state_of

CLASSES = ClassList(("N", "D"), ("N", "D"), normal="N")
CONFIG = ModelConfig(trunk="mobilenet_v2", image_size=64, num_classes=2)
SPEC = PreprocessSpec(size=64)
PATIENTS = 12
BLACK, ABSENT = "10", "11"  # a left eye without a fundus, and a right eye that is not there
FEW = Resampling(resamples=50)


def _draw_fundus(path: Path, seed: int) -> None:
    """A reddish disc with a bright spot on black: enough of a fundus for the field of view."""
    random = np.random.default_rng(seed)
    image = np.zeros((160, 180, 3), dtype=np.uint8)
    cv2.circle(image, (90, 80), 74, (40, 70, 160), -1, cv2.LINE_AA)
    spot = tuple(int(v) for v in random.integers(60, 120, 2))
    cv2.circle(image, spot, 10, (120, 190, 240), -1, cv2.LINE_AA)
    noise = random.integers(0, 12, image.shape, dtype=np.uint8)
    assert cv2.imwrite(str(path), np.where(image.any(axis=2, keepdims=True), image + noise, 0))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads over tiny tensors wait for each other and do little else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain CSV of twelve patients, one with a black photograph and one with an eye missing."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for k in range(PATIENTS):
        for eye in ("left", "right"):
            _draw_fundus(folder / f"{k}_{eye}.png", seed=2 * k + (eye == "right"))
        ill = k % 2
        right = "" if str(k) == ABSENT else f"{k}_right.png"
        rows.append((str(k), f"{k}_left.png", right, 1 - ill, ill))
    black = np.zeros((160, 180, 3), dtype=np.uint8)
    assert cv2.imwrite(str(folder / f"{BLACK}_left.png"), black)
    with (folder / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "left", "right", "N", "D"), *rows])
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model() -> DMSNet:
    torch.manual_seed(0)
    return DMSNet(CONFIG)


@pytest.fixture
def checkpoint_file(model: DMSNet, tmp_path: Path) -> Path:
    """A checkpoint that was trained on patients 0 to 3 and validated on the others."""
    ids = tuple(str(k) for k in range(PATIENTS))
    split = Split(train=ids[:4], val=ids[4:], test=())
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(CONFIG, CLASSES, SPEC, state_of(model), split))
    return path


def _records(data: Path) -> tuple[PatientRecord, ...]:
    return load_records(data, CLASSES).records


def _run(command: Any, *arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    name = command.__name__.rpartition(".")[2]
    args = parser.parse_args([name, *map(str, arguments)])
    code: int = args.run(args)
    return code


def _made_up(patients: int = 200, seed: int = 0, classes: ClassList = ODIR_CLASSES) -> Predictions:
    """Predictions that know something, on ODIR's classes; the last patient lacks an eye."""
    random = np.random.default_rng(seed)
    labels = (random.random((patients, len(classes))) < 0.2).astype(np.int64)
    labels[:, 0] = ~labels[:, 1:].any(axis=1)
    labels[: len(classes)] = np.eye(len(classes), dtype=np.int64)

    def logits() -> Any:
        return (3.0 * labels - 1.0 + random.normal(size=labels.shape)).astype(np.float32)

    def eye() -> EyePredictions:
        there = np.ones(patients, dtype=bool)
        return EyePredictions(logits(), there, labels, there)

    right = eye()
    right.present[-1] = right.labelled[-1] = False
    right.logits[-1] = np.nan
    ids = tuple(str(k) for k in range(patients))
    return Predictions(ids, logits(), labels, eye(), right)


def test_predictions_are_the_models_answers_in_the_records_order(
    model: DMSNet, data: Path, cache: Path
) -> None:
    records = _records(data)[::-1]
    found = predict(model, records, SPEC, cache_dir=cache, batch_size=5, progress=False)
    assert found.ids == tuple(record.id for record in records)
    assert found.labels.tolist() == [list(record.labels) for record in records]
    record = records[-1]
    images = [
        torch.from_numpy(preprocess(read_photograph(path), SPEC).tensor)[None]
        for path in (record.left, record.right)
        if path is not None
    ]
    with torch.inference_mode():
        output = model.eval()(*images)
    assert output.left_logits is not None
    assert found.logits[-1] == pytest.approx(output.logits[0].numpy(), abs=1e-4)
    assert found.left.logits[-1] == pytest.approx(output.left_logits[0].numpy(), abs=1e-4)


def test_predictions_do_not_depend_on_the_batch_size(
    model: DMSNet, data: Path, cache: Path
) -> None:
    one, many = (
        predict(model, _records(data), SPEC, cache_dir=cache, batch_size=size, progress=False)
        for size in (1, 12)
    )
    assert np.allclose(one.logits, many.logits, atol=1e-4)


def test_absent_and_ungradable_eyes_have_no_logits_of_their_own(
    model: DMSNet, data: Path, cache: Path
) -> None:
    found = predict(model, _records(data), SPEC, cache_dir=cache, progress=False)
    assert [found.ids[k] for k in np.flatnonzero(~found.left.present)] == [BLACK]
    assert [found.ids[k] for k in np.flatnonzero(~found.right.present)] == [ABSENT]
    for eye in (found.left, found.right):
        assert np.array_equal(np.isfinite(eye.logits).all(axis=1), eye.present)
    assert np.isfinite(found.logits).all()
    assert found.complete.sum() == PATIENTS - 2


def test_a_patient_without_any_gradable_eye_is_left_out_and_named(
    model: DMSNet, data: Path, cache: Path
) -> None:
    black = PatientRecord("dark", data / f"{BLACK}_left.png", None, (1, 0))
    found = predict(model, [*_records(data)[:2], black], SPEC, cache_dir=cache, progress=False)
    assert found.ids == ("0", "1")
    assert found.left_out == ("dark",)


def test_predicting_leaves_the_model_in_its_mode(model: DMSNet, data: Path, cache: Path) -> None:
    model.train()
    before = state_of(model)
    predict(model, _records(data)[:2], SPEC, cache_dir=cache, progress=False)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(model).items())


def test_answers_that_are_not_finite_are_an_error(data: Path, cache: Path) -> None:
    broken = DMSNet(CONFIG)
    with torch.no_grad():
        next(broken.head.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match="NaN or infinity for 2 of 2 patients"):
        predict(broken, _records(data)[:2], SPEC, cache_dir=cache, progress=False)


def test_the_report_is_json_with_an_interval_around_every_figure() -> None:
    predictions = _made_up()
    fitted = calibrate(predictions, ODIR_CLASSES)
    report = evaluate(predictions, ODIR_CLASSES, calibration=fitted, resampling=FEW)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    patient = report["patient"]
    names = ("exact_match", "micro_f1", "kappa", "auc", "challenge_score", "macro_auc")
    for figure in (*(patient[name] for name in names), *patient["auc_per_class"].values()):
        assert figure["low"] <= figure["value"] <= figure["high"]
    parts = (patient[name]["value"] for name in ("kappa", "challenge_f1", "auc"))
    assert patient["challenge_score"]["value"] == pytest.approx(sum(parts) / 3)
    assert patient["ece"]["value"] < report["uncalibrated"]["ece"]
    assert report["eye"]["rows"] == 399
    assert report["eye"]["macro_auc"]["value"] > 0.9
    assert patient["macro_auc_over"] == list(ODIR_CLASSES.letters)
    assert set(report["operating_points"]["points"]) == set(fitted.points.names)


def test_outcomes_and_referral_follow_the_outcome_rule() -> None:
    # Normal and well called; ill and missed; ill and found; normal, but an eye is missing.
    labels = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])
    logits = np.array([[3, -3], [3, -3], [-3, 3], [3, -3]], dtype=np.float32)
    there, unknown = np.array([True] * 3 + [False]), np.zeros(4, dtype=bool)
    eye = EyePredictions(np.full_like(logits, np.nan), there, labels, unknown)
    predictions = Predictions(("a", "b", "c", "d"), logits, labels, eye, eye)
    report = evaluate(predictions, CLASSES, resampling=Resampling(0))
    point = report["operating_points"]["points"]["uncalibrated"]
    assert point["outcomes"] == {"ungradable": 1, "findings": 1, "normal": 2, "uncertain": 0}
    assert point["referral"]["sensitivity"]["value"] == 0.5
    assert point["referral"]["specificity"]["value"] == 0.5
    assert point["referral"]["sensitivity"]["low"] is None  # no resamples, no interval
    assert point["classes"]["D"]["sensitivity"]["value"] == 0.5
    assert point["classes"]["D"]["specificity"]["value"] == 1.0
    assert report["eye"] is None


def test_a_class_without_positives_is_undefined_and_named_in_no_mean() -> None:
    predictions = _made_up()
    predictions.labels[:, 7] = 0
    report = evaluate(predictions, ODIR_CLASSES, resampling=FEW)
    assert report["patient"]["auc_per_class"]["O"] == {"value": None, "low": None, "high": None}
    assert "O" not in report["patient"]["macro_auc_over"]
    assert "undefined" in text_of_evaluation(report, {})


def test_the_text_shows_figures_intervals_and_every_class() -> None:
    report = evaluate(_made_up(), ODIR_CLASSES, resampling=FEW)
    text = text_of_evaluation(report, dict(zip("NDGCAHMO", ODIR_CLASSES.names, strict=True)))
    figure = report["patient"]["challenge_score"]
    assert f"{figure['value']:.3f}  [{figure['low']:.3f}, {figure['high']:.3f}]" in text
    for name in ODIR_CLASSES.names:
        assert name in text


def test_dr_grades_are_judged_per_eye_per_patient_and_by_quality() -> None:
    predictions = _made_up(patients=40, classes=CLASSES)
    pairs = [
        GradedPair(
            patient, Path("l"), Path("r"), 2 * int(ill), 0, "good", "reject" if ill else None
        )
        for patient, (_, ill) in zip(predictions.ids, predictions.labels.tolist(), strict=True)
    ]
    report = evaluate_grades(predictions, pairs, CLASSES, resampling=FEW)
    ill = int(predictions.labels[:, 1].sum())
    assert report["patient"]["positives"] == report["eye"]["positives"] == ill
    assert report["patient"]["auc"]["value"] > 0.9
    assert report["eye"]["cases"] == 79  # one right eye is missing
    assert report["eye"]["by_quality"]["good"]["cases"] == 40
    assert report["data"]["ungradable_eyes"] == 1
    assert set(report["patient"]["by_quality"]) == {"reject", "unknown"}
    assert [record.labels for record in records_from_grades(pairs[:1], CLASSES)] == [(0, 0)]


def test_dr_grades_need_a_diabetic_class() -> None:
    with pytest.raises(DataError, match="class 'D'"):
        evaluate_grades(_made_up(), [], ClassList(("X",), ("x",)))


def test_evaluate_prints_json_of_the_checkpoints_own_split(
    checkpoint_file: Path, data: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", data, "--cache-dir", cache, "--bootstrap", "20", "--json")
    assert _run(evaluate_command, "--checkpoint", checkpoint_file, *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"]["patients"] == 8
    assert report["data"]["split"] == "val"
    assert report["data"]["patients_trained_on"] == 0
    assert report["checkpoint"]["preprocess_sha256"] == SPEC.sha256
    assert report["probabilities"] == "uncalibrated"


def test_evaluate_writes_its_report_once(checkpoint_file: Path, data: Path, cache: Path) -> None:
    out = checkpoint_file.parent / "report.json"
    options = ("--checkpoint", checkpoint_file, "--data", data, "--cache-dir", cache, "--out", out)
    assert _run(evaluate_command, *options, "--bootstrap", "0") == 0
    assert json.loads(out.read_text())["bootstrap"]["resamples"] == 0
    with pytest.raises(UsageError, match="--force"):
        _run(evaluate_command, *options)


def test_evaluating_everything_warns_of_patients_that_were_trained_on(
    checkpoint_file: Path,
    data: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--data", data, "--cache-dir", cache, "--bootstrap", "0", "--split", "all")
    with caplog.at_level(logging.WARNING):
        assert _run(evaluate_command, "--checkpoint", checkpoint_file, *options) == 0
    assert "4 of the 12 patients were trained on" in caplog.text
    assert "trained on 4 of these patients" in capsys.readouterr().out


def test_a_foreign_data_set_is_refused_by_part_and_taken_as_a_whole(
    checkpoint_file: Path, data: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = data / "sub" / "foreign.csv"
    foreign.parent.mkdir()
    rows = [("id", "left", "right", "N", "D")]
    rows += [(f"x{k}", f"../{k}_left.png", f"../{k}_right.png", k % 2, 1 - k % 2) for k in range(4)]
    with foreign.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    options = ("--checkpoint", checkpoint_file, "--data", foreign, "--cache-dir", cache)
    with pytest.raises(DataError, match="8 of them are not"):
        _run(evaluate_command, *options, "--split", "val")
    with caplog.at_level(logging.INFO):
        assert _run(evaluate_command, *options, "--split", "all", "--bootstrap", "0") == 0
    assert "a foreign set" in caplog.text
    assert "trained on" not in caplog.text


def test_an_empty_part_is_refused(checkpoint_file: Path, data: Path) -> None:
    with pytest.raises(DataError, match="no test patients"):
        _run(evaluate_command, "--checkpoint", checkpoint_file, "--data", data, "--split", "test")


def test_a_device_that_is_not_there_is_refused(checkpoint_file: Path, data: Path) -> None:
    options = ("--checkpoint", checkpoint_file, "--data", data, "--device", "warp-drive")
    with pytest.raises(UsageError, match="warp-drive"):
        _run(evaluate_command, *options)


def test_evaluate_recognises_a_folder_of_dr_grades(
    checkpoint_file: Path,
    data: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "graded"
    folder.mkdir()
    rows = [("patient", "left_dr_grade", "right_dr_grade")]
    for k in range(4):
        for eye in ("left", "right"):
            (folder / f"{k}_{eye}.png").symlink_to(data / f"{k}_{eye}.png")
        rows.append((str(k), str(k), "0"))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    options = ("--data", folder, "--cache-dir", cache, "--bootstrap", "20")
    assert _run(evaluate_command, "--checkpoint", checkpoint_file, *options) == 0
    printed = capsys.readouterr().out
    assert "class D for DR grade 2 or more: 4 patients, 0 of 8 eyes ungradable" in printed


def test_calibrate_stores_in_the_checkpoint_what_evaluate_then_uses(
    checkpoint_file: Path, data: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_checkpoint(checkpoint_file)
    options = ("--checkpoint", checkpoint_file, "--data", data, "--cache-dir", cache)
    assert _run(calibrate_command, *options, "--bootstrap", "20") == 0
    assert "fitted on 8 validation patients" in capsys.readouterr().out
    after = load_checkpoint(checkpoint_file)
    assert after.calibration is not None
    assert after.calibration.patients == 8
    assert after.metrics["validation"]["probabilities"] == "calibrated"
    assert all(torch.equal(after.state[name], tensor) for name, tensor in before.state.items())
    assert _run(evaluate_command, *options, "--bootstrap", "20", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    stored = after.metrics["validation"]
    assert report["patient"] == stored["patient"]
    assert report["operating_points"] == stored["operating_points"]


def test_calibrate_can_leave_the_checkpoint_as_it_is(
    checkpoint_file: Path, data: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, out = checkpoint_file.read_bytes(), checkpoint_file.with_name("calibrated.safetensors")
    options = ("--checkpoint", checkpoint_file, "--data", data, "--cache-dir", cache, "--out", out)
    assert _run(calibrate_command, *options, "--bootstrap", "0", "--json") == 0
    assert checkpoint_file.read_bytes() == content
    fitted = load_checkpoint(out).calibration
    assert fitted is not None
    printed = json.loads(capsys.readouterr().out)
    assert printed["points"] == fitted.points.to_dict()
    assert build_model(load_checkpoint(out)).config == CONFIG
    with pytest.raises(UsageError, match="--force"):
        _run(calibrate_command, *options)


def test_calibrate_changes_nothing_when_the_data_does_not_fit(
    checkpoint_file: Path, data: Path, tmp_path: Path
) -> None:
    content = checkpoint_file.read_bytes()
    with pytest.raises(DataError):
        _run(calibrate_command, "--checkpoint", checkpoint_file, "--data", tmp_path / "none")
    assert checkpoint_file.read_bytes() == content
