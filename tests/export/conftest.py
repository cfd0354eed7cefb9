"""A tiny model trained, calibrated and evaluated by the commands, on rendered patients."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
import torch

from fundus_export.commands import export
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.rendered import degrade, render_fundus
from fundus_runtime.labels import EYES
from fundus_training.checkpoint import build_model, load_checkpoint
from fundus_training.commands import train

EDGE = Path(__file__).parents[2] / "bundles" / "edge" / "checkpoint.safetensors"

# small_graphs.py lies beside the tests, which are no package
sys.path.insert(0, str(Path(__file__).parent))

PATIENTS = 16
TINY = {
    "model": {"trunk": "mobilenet_v2"},
    # 80 steps: batch norms need that many to forget the variance that they start with
    "train": {"batch_size": 2, "epochs": 20},
    "split": {"train": 0.5, "val": 0.25, "test": 0.25},
}
HEADER = [
    *("ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus"),
    *("Left-Diagnostic Keywords", "Right-Diagnostic Keywords"),
    *"NDGCAHMO",
]


@dataclass(frozen=True)
class Trained:
    """What the commands of training left: data, caches, checkpoints and reports."""

    data: Path
    cache: Path
    uncalibrated: Path
    checkpoint: Path
    validation: Path
    test: Path


@pytest.fixture(scope="session", autouse=True)
def quiet_tracing() -> None:
    """torch's structured trace logs every step of an export, which pytest would collect slowly."""
    logging.getLogger("torch.__trace").disabled = True


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads over tiny tensors wait for each other and do little else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def edge_graphs() -> GraphBytes:
    """The shipped model's FP32 graphs."""
    return export_graphs(build_model(load_checkpoint(EDGE)))


def _write_patients(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    rows = []
    for patient in range(PATIENTS):
        ill = patient % 2
        names = {eye: f"{patient}_{eye}.jpg" for eye in EYES}
        for eye in EYES:
            frame = render_fundus(eye, side=128, seed=patient)
            frame = degrade(frame, strength=0.9 * ill, seed=patient)
            assert cv2.imwrite(str(folder / "images" / names[eye]), frame[:, :, ::-1])
        keywords = "cataract" if ill else "normal fundus"
        flags = [int(letter == ("C" if ill else "N")) for letter in "NDGCAHMO"]
        rows.append([patient, 60, "Female", *names.values(), keywords, keywords, *flags])
    with (folder / "full_df.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])


def _train(*arguments: object) -> None:
    assert train.main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """fit, calibrate and evaluate, as the README says; no test may change the files."""
    folder = tmp_path_factory.mktemp("trained")
    data, cache, run = folder / "odir", folder / "cache", folder / "run"
    _write_patients(data)
    config = folder / "config.json"
    config.write_text(json.dumps(TINY), encoding="utf-8")
    where = ["--data", data, "--cache-dir", cache]
    # by heart: answers that differ from picture to picture are what makes a comparison worth it
    _train(
        *("fit", *where, "--preset", "tiny", "--config", config, "--out", run),
        "--no-regularisation",
    )
    checkpoint = folder / "calibrated.safetensors"
    few = ["--bootstrap", 20]
    uncalibrated = run / "last.safetensors"
    _train("calibrate", *where, "--checkpoint", uncalibrated, "--out", checkpoint, *few)
    reports = {}
    for split in ("val", "test"):
        reports[split] = folder / f"{split}.json"
        _train(
            *("evaluate", *where, "--checkpoint", checkpoint, "--split", split, *few),
            *("--out", reports[split]),
        )
    return Trained(data, cache, uncalibrated, checkpoint, reports["val"], reports["test"])


@pytest.fixture(scope="session")
def run_export() -> Callable[..., int]:
    """`fundus-export bundle` with these arguments; the exit status."""

    def run(*arguments: object) -> int:
        return export.main(["bundle", *(str(argument) for argument in arguments)])

    return run


@pytest.fixture(scope="session")
def bundle_folder(
    trained: Trained,
    run_export: Callable[..., int],
    signing_key: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The signed bundle of the tiny checkpoint, compared on real pairs; no test may change it."""
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    code = run_export(
        *("--checkpoint", trained.checkpoint, "--out", out, "--data", trained.data),
        *("--cache-dir", trained.cache),
        *("--evaluation", trained.validation, "--evaluation", trained.test),
        *("--note", "Started from random numbers.", "--note", "Drawn fundi alone."),
        *("--sign-with", signing_key),
    )
    assert code == 0
    return out
