"""Logits of every patient and eye of a data set, computed the same way every time.

Evaluation mode, full precision (no TF32, no autocast), no augmentation, patients in the order of
the records. An eye that is missing or ungradable has NaN logits, and the model's absent-eye token
takes its place; a patient with no gradable eye is left out and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from fundus_runtime.labels import EYES, Eye
from fundus_runtime.preprocess import PreprocessSpec
from fundus_training.data.augment import AugmentConfig
from fundus_training.data.crops import CropStore
from fundus_training.data.pairs import PairDataset
from fundus_training.data.records import PatientRecord
from fundus_training.errors import TrainingError
from fundus_training.models import DMSNet

__all__ = ["EyePredictions", "Predictions", "predict"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EyePredictions:
    """One side's eyes, a row a patient.

    Attributes:
        logits: N×K; NaN rows where the eye is not present, or the model has no per-eye head.
        present: N; a gradable photograph was there.
        labels: N×K zeros and ones.
        labelled: N; the labels are known and the eye is present.
    """

    logits: Floats
    present: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    labelled: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Predictions:
    """What a model says of N patients, and what is true.

    Attributes:
        ids: N patients.
        logits: N×K, both eyes together.
        labels: N×K zeros and ones.
        left: the left eyes.
        right: the right eyes.
        left_out: ids of patients without any gradable eye.
    """

    ids: tuple[str, ...]
    logits: Floats
    labels: npt.NDArray[np.int64]
    left: EyePredictions
    right: EyePredictions
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def eye(self, eye: Eye) -> EyePredictions:
        """One side's eyes."""
        return self.left if eye == "left" else self.right

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """N; both eyes were there and gradable."""
        both: npt.NDArray[np.bool_] = self.left.present & self.right.present
        return both

    def labelled_eyes(
        self,
    ) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Logits M×K and labels M×K of all labelled eyes, and the patient that each belongs to."""
        chosen = {
            eye: self.eye(eye).labelled & np.isfinite(self.eye(eye).logits).all(axis=1)
            for eye in EYES
        }
        return (
            np.concatenate([self.eye(eye).logits[chosen[eye]] for eye in EYES]),
            np.concatenate([self.eye(eye).labels[chosen[eye]] for eye in EYES]),
            np.concatenate([np.flatnonzero(chosen[eye]) for eye in EYES]),
        )


def predict(
    model: DMSNet,
    records: Sequence[PatientRecord],
    spec: PreprocessSpec,
    *,
    store: CropStore | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Predictions:
    """Run a model over patients.

    Args:
        model: left in the mode and on the device that it came with.
        records: the patients, in the order that the answer has.
        spec: the preprocessing that the model was trained with.
        store: crops of these patients, if they are at hand; otherwise they are opened or made.
        cache_dir: where to open them.
        batch_size: pairs at once.
        device: where to run.
        progress: show progress bars on stderr.

    Raises:
        DataError: photographs cannot be read, or no patient has a gradable eye.
        TrainingError: the model answers NaN or infinity.
    """
    if store is None:
        store = CropStore.open(records, spec, cache_dir=cache_dir, progress=progress)
    dataset = PairDataset(records, store, augment=AugmentConfig.none())
    batches = DataLoader(dataset, batch_size=batch_size, shuffle=False)
    shown = tqdm(batches, desc="predicting", unit="batch", disable=not progress)
    with _evaluating(model, torch.device(device)):
        parts = [_predict_batch(model, batch, torch.device(device)) for batch in shown]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _predictions_from(joined, dataset.records, records)


@contextmanager
def _evaluating(model: DMSNet, device: torch.device) -> Iterator[None]:
    """Evaluation mode on the device, without gradients or TF32; afterwards as before."""
    was_training, home = model.training, next(model.parameters()).device
    precision = torch.get_float32_matmul_precision()
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    model.eval().to(device)
    torch.set_float32_matmul_precision("highest")
    try:
        with exact, torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        model.train(was_training).to(home)


def _require_finite(logits: Floats, what: str) -> None:
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise TrainingError(
            f"the model answers NaN or infinity for {broken} of {len(logits)} {what}; its weights "
            "are damaged or its training diverged: use another checkpoint"
        )


def _predict_batch(
    model: DMSNet, batch: dict[str, torch.Tensor], device: torch.device
) -> dict[str, npt.NDArray[Any]]:
    inputs = ("left", "right", "left_present", "right_present")
    output = model(*(batch[name].to(device) for name in inputs))
    answer = {
        "logits": output.logits,
        "left_logits": output.left_logits,
        "right_logits": output.right_logits,
    }
    arrays = {
        name: logits.float().cpu().numpy() for name, logits in answer.items() if logits is not None
    }
    kept = [name for name in batch if name not in EYES and name != "index"]
    return arrays | {name: batch[name].numpy() for name in kept}


def _predictions_from(
    joined: dict[str, npt.NDArray[Any]],
    predicted: Sequence[PatientRecord],
    asked: Sequence[PatientRecord],
) -> Predictions:
    ids = tuple(record.id for record in predicted)
    known = set(ids)
    left_out = tuple(record.id for record in asked if record.id not in known)
    _require_finite(joined["logits"], "patients")
    return Predictions(
        ids=ids,
        logits=joined["logits"],
        labels=joined["labels"].astype(np.int64),
        left=_eye_from(joined, "left"),
        right=_eye_from(joined, "right"),
        left_out=left_out,
    )


def _eye_from(joined: dict[str, npt.NDArray[Any]], eye: Eye) -> EyePredictions:
    present = joined[f"{eye}_present"] > 0.5
    # The model answers for the blank image of an absent eye too; nobody may read that.
    logits = np.full_like(joined["logits"], np.nan)
    if f"{eye}_logits" in joined:
        logits[present] = joined[f"{eye}_logits"][present]
        _require_finite(logits[present], f"{eye} eyes")
    return EyePredictions(
        logits=logits,
        present=present,
        labels=joined[f"{eye}_labels"].astype(np.int64),
        labelled=joined[f"{eye}_labelled"] > 0.5,
    )
