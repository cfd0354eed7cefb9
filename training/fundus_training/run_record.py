"""What a run writes down of itself: validation figures, and checkpoints with their origin."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch

from fundus_runtime.version import __version__
from fundus_training import metrics
from fundus_training.calibrate import plain_probabilities
from fundus_training.checkpoint import Checkpoint
from fundus_training.data.crops import CropStore
from fundus_training.data.records import RecordSet
from fundus_training.data.splits import PARTS, Split, select_part
from fundus_training.predict import Predictions
from fundus_training.presets import RunConfig
from fundus_training.weights import State

__all__ = ["checkpoint_of_run", "provenance_of_run", "validation_figures"]

_TERMS = {
    "weights": "research use only; the terms of the training data apply",
    "medical_device": "not a medical device",
}


def validation_figures(predictions: Predictions, task: str) -> dict[str, float]:
    """The score that chooses the best epoch, and what it is made of, without undefined figures.

    The score is the mean of flattened and macro AUC, neither of which depends on calibration.
    """
    labels, scores = predictions.labels, plain_probabilities(predictions.logits, task)
    auc, (macro, _) = metrics.flattened_auc(labels, scores), metrics.macro_auc(labels, scores)
    figures = {
        "val_score": None if auc is None or macro is None else (auc + macro) / 2,
        "val_macro_auc": macro,
        **{
            f"val_challenge_{name}": value
            for name, value in metrics.challenge_score(labels, scores).items()
        },
    }
    return {name: value for name, value in figures.items() if value is not None}


def checkpoint_of_run(
    config: RunConfig,
    data: RecordSet,
    split: Split,
    store: CropStore,
    *,
    state: State,
    row: Mapping[str, float],
    provenance: Mapping[str, Any],
) -> Checkpoint:
    """The checkpoint of an epoch.

    Args:
        config: of the run.
        data: the data set.
        split: of its patients.
        store: their crops.
        state: the weights that were validated.
        row: the epoch's figures.
        provenance: `provenance_of_run`.
    """
    train = select_part(data.records, split, "train")
    positives = (sum(column) for column in zip(*(r.labels for r in train), strict=True))
    return Checkpoint(
        model_config=config.model,
        classes=data.classes,
        spec=config.preprocess,
        state=state,
        split=split,
        training={
            "config": config.to_dict(),
            "epochs_done": int(row["epoch"]),
            "data_layout": data.layout,
            "patients": {part: len(split.ids(part)) for part in PARTS},
            "positives_in_train": dict(zip(data.classes.letters, positives, strict=True)),
            "ungradable_photographs": store.ungradable(),
        },
        metrics={"validation_uncalibrated": {k: v for k, v in row.items() if k != "seconds"}},
        provenance=provenance,
    )


def provenance_of_run(
    device: torch.device, *, seed: int, init_weights_sha256: str | None
) -> dict[str, Any]:
    """Versions, device, seed, initial weights and the terms of what comes out."""
    return {
        "fundus_edge": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "init_weights_sha256": init_weights_sha256,
        "seed": seed,
        "terms": _TERMS,
    }
