"""A model of an ablation becomes a bundle like any other, and the runtime screens with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fundus_export.bundle_writer import BundlePlan, write_bundle
from fundus_export.errors import ExportError
from fundus_export.rendered import render_fundus
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.calibration import Calibration, OperatingPoint, OperatingPoints
from fundus_runtime.golden import check_golden
from fundus_runtime.labels import ODIR_CLASSES
from fundus_runtime.screener import Screener
from fundus_runtime.table import format_result
from fundus_training.calibrate import FittedCalibration
from fundus_training.checkpoint import Checkpoint, save_checkpoint
from fundus_training.data.splits import Split
from fundus_training.models import DMSNet
from fundus_training.presets import preset

LETTERS = ODIR_CLASSES.letters
POINTS = OperatingPoints("even", (OperatingPoint("even", LETTERS, (0.5,) * 8, ("by hand",) * 8),))
FITTED = FittedCalibration(
    patient=Calibration.identity(LETTERS),
    eye=Calibration.identity(LETTERS),
    points=POINTS,
    eye_points=POINTS,
    fitted_on="nothing",
    patients=4,
    eyes=0,
)


def plan_of(folder: Path, **changes: Any) -> BundlePlan:
    """A bundle of random weights."""
    torch.manual_seed(0)
    run = preset("tiny")
    config = replace(run.model, ccam=False, ciam=False, **changes)
    checkpoint = Checkpoint(
        model_config=config,
        classes=ODIR_CLASSES,
        spec=run.preprocess,
        state=DMSNet(config).state_dict(),
        split=Split(("a",), ("b",), ()),
        calibration=FITTED,
    )
    save_checkpoint(folder / "checkpoint.safetensors", checkpoint)
    data = (folder / "checkpoint.safetensors").read_bytes()
    return BundlePlan("ablation", "0.1.0", checkpoint, data)


@pytest.fixture(scope="module")
def bundle(sign_bundle: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("ablation")
    plan = plan_of(folder, osim_weights="per_eye", auxiliary_head=False)
    write_bundle(plan, folder / "bundle")
    return Bundle.open(sign_bundle(folder / "bundle"))


def test_its_manifest_has_no_calibration_of_an_eye_alone(bundle: Bundle) -> None:
    assert bundle.manifest.eye_calibration is None
    report = check_golden(bundle)
    assert report is not None
    assert report.passed


def test_screening_tells_the_eyes_apart_and_says_nothing_of_each_alone(bundle: Bundle) -> None:
    frames = [render_fundus("left", side=128, seed=seed) for seed in (1, 2)]
    with Screener.open(bundle, threads=1) as screener:
        result = screener.screen(*frames, color="rgb")
        prepared = [screener.prepare("left", frame, color="rgb").tensor for frame in frames]
    assert result.left.probabilities == result.right.probabilities == {}
    assert len(result.probabilities) == len(LETTERS)
    assert format_result(result)
    left, right = prepared
    assert left is not None
    assert right is not None
    backend = OnnxRuntimeBackend(
        *bundle.graph_bytes(bundle.manifest.graphs_for("cpu")), size=64, class_count=8, threads=1
    )
    features = backend.encode(np.stack([left, right]), ["left", "right"]).features
    turned = backend.encode(right[None], ["left"]).features
    flag = np.ones(1, np.float32)
    logits = backend.fuse(features[:1], features[1:], flag, flag)
    backend.close()
    expected = bundle.manifest.calibration.apply(logits)[0]
    assert not np.allclose(features[1:], turned)
    assert list(result.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_model_with_one_answer_a_patient_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="trained with task 'softmax', but a bundle's"):
        write_bundle(plan_of(tmp_path, task="softmax"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
