"""Train DMS-Net on the training patients, validate every epoch, keep the best and the last.

A run's folder holds `config.json`, `metrics.csv`, `tensorboard/`, `state.safetensors` (from which
the run goes on), `best.safetensors` and `last.safetensors` (checkpoints of the averaged weights,
rounded to FP16 before they are validated). An epoch depends on seed, epoch number and the state at
its start alone, so that an interrupted run ends with the same numbers as one that was not.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fundus_runtime.canonical import canonical_json, sha256_hex
from fundus_training.checkpoint import Checkpoint, save_checkpoint
from fundus_training.data.crops import CropStore
from fundus_training.data.pairs import PairDataset
from fundus_training.data.records import PatientRecord, RecordSet
from fundus_training.data.splits import Split, select_part, split_patients
from fundus_training.errors import DataError, TrainingError
from fundus_training.files import write_atomically
from fundus_training.initial_weights import InitialWeights
from fundus_training.losses import PairLoss, positive_weights
from fundus_training.models import DMSNet
from fundus_training.predict import predict
from fundus_training.presets import RunConfig
from fundus_training.run_log import RunLog
from fundus_training.run_record import checkpoint_of_run, provenance_of_run, validation_figures
from fundus_training.run_state import Progress, read_state, write_state
from fundus_training.trainer import Trainer
from fundus_training.weights import round_weights_to_fp16

__all__ = ["RUN_FILES", "Fit", "FitResult"]

_LOG = logging.getLogger(__name__)

RUN_FILES = ("state.safetensors", "best.safetensors", "last.safetensors", "metrics.csv")


@dataclass(frozen=True)
class FitResult:
    """What a run left behind.

    Attributes:
        best: checkpoint of the epoch with the best validation score.
        last: checkpoint of the last epoch.
        history: one row of figures an epoch.
    """

    best: Path
    last: Path
    history: Sequence[dict[str, float]]


class Fit:
    """One training run.

    Args:
        config: what to compute; the model gets as many outputs as the data set has classes.
        data: the data set; it is split by patient here, before anything else, unless
            `init_weights` brings a split.
        out: the run's folder; `run` makes it.
        device: where to train.
        init_weights: a pretrained trunk's state dict under torchvision's names, or a checkpoint
            of the same model to go on from; its split is kept.
        cache_dir: where crops are cached.
        progress: show progress bars on stderr.

    Raises:
        DataError: the data set is too small to split, or its photographs cannot be read.
        CheckpointError: the initial weights do not fit.
    """

    def __init__(
        self,
        config: RunConfig,
        data: RecordSet,
        out: str | Path,
        *,
        device: str | torch.device = "cpu",
        init_weights: str | Path | None = None,
        cache_dir: str | Path | None = None,
        progress: bool = True,
    ) -> None:
        self.config = config.for_classes(len(data.classes))
        self.data = data
        self.out = Path(out)
        self.device = torch.device(device)
        self.progress_bars = progress
        initial = None if init_weights is None else InitialWeights(init_weights)
        self.split = self._split(initial)
        _require_parts(self.split)
        # before the crops, which take minutes: wrong weights are told at once
        self.trainer = Trainer(self.config, self.device, init_weights=initial, progress=progress)
        self.store = CropStore.open(
            data.records, config.preprocess, cache_dir=cache_dir, progress=progress
        )
        train, patients = config.train, self._part("train")
        self.dataset = PairDataset(patients, self.store, augment=config.augment, seed=train.seed)
        weights = positive_weights(
            patients, power=train.class_weight_power, limit=train.class_weight_limit
        )
        self.loss = PairLoss(self.config, weights).to(self.device)

    def _split(self, initial: InitialWeights | None) -> Split:
        if initial is not None:
            initial.require_fit(self.config, self.data.classes)
            if initial.split is not None:
                return initial.split
        return split_patients(self.data.records, self.config.split, seed=self.config.train.seed)

    def run(self, *, resume: bool = False, stop_after: int | None = None) -> FitResult:
        """Train to the last epoch.

        Args:
            resume: go on from the folder's state; otherwise a run that is there is removed.
            stop_after: stop once this many epochs are done, as an interruption would.

        Raises:
            TrainingError: the loss is no longer finite, or the folder cannot be written.
            CheckpointError: there is no state to resume from, or it is another run's.
        """
        progress = self._resume() if resume else Progress()
        try:
            self._prepare_folder(keep=resume)
            self._run_epochs(progress, stop_after or self.config.train.epochs)
        except OSError as error:
            raise TrainingError(
                f"{self.out} cannot be written: {error}; make room or choose another folder. "
                "Finished epochs are kept: go on with --resume"
            ) from error
        return FitResult(
            self.out / "best.safetensors", self.out / "last.safetensors", progress.history
        )

    def _prepare_folder(self, *, keep: bool) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        if not keep:
            # an interrupted new run must not be taken for the old one
            for name in RUN_FILES:
                (self.out / name).unlink(missing_ok=True)
            shutil.rmtree(self.out / "tensorboard", ignore_errors=True)
        # as `fit --config` reads it back; the checkpoints say which weights the run started from
        write_atomically(self.out / "config.json", canonical_json(self.config.to_dict()))

    def _run_epochs(self, progress: Progress, stop_after: int) -> None:
        last = min(self.config.train.epochs, stop_after)
        with RunLog(self.out, first_epoch=progress.epoch + 1) as log:
            while progress.epoch < last:
                progress.history.append(self._epoch(progress))
                progress.epoch += 1
                self._keep(progress)
                log.write(progress.history)

    def _epoch(self, progress: Progress) -> dict[str, float]:
        start = time.perf_counter()
        loss = self.trainer.train_epoch(self.dataset, self.loss, progress.epoch)
        self.rounded = round_weights_to_fp16(self.trainer.weights())
        figures = self._validate()
        row = {
            "epoch": float(progress.epoch + 1),
            "train_loss": loss,
            "learning_rate": self.trainer.learning_rate,
            **figures,
            "seconds": time.perf_counter() - start,
        }
        _LOG.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        return row

    def _validate(self) -> dict[str, float]:
        """Figures of the rounded, averaged weights on the validation patients, uncalibrated."""
        model = DMSNet(self.config.model)
        model.load_state_dict(self.rounded)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        predictions = predict(
            model,
            self._part("val"),
            self.config.preprocess,
            store=self.store,
            device=self.device,
            progress=self.progress_bars,
        )
        return validation_figures(predictions, self.config.model.task)

    def _keep(self, progress: Progress) -> None:
        row = progress.history[-1]
        checkpoint = self._checkpoint(row)
        save_checkpoint(self.out / "last.safetensors", checkpoint)
        score = row.get("val_score")
        if score is None or progress.best_score is None or score > progress.best_score:
            # where the validation patients leave the score undefined, the last epoch is the best
            progress.best_score = score
            save_checkpoint(self.out / "best.safetensors", checkpoint)
        progress.scaler = self.trainer.scaler.state_dict()
        write_state(
            self.out / "state.safetensors",
            self.trainer.state(),
            self.trainer.optimizer,
            progress,
            run_sha256=self._run_sha256(),
        )

    def _checkpoint(self, row: dict[str, float]) -> Checkpoint:
        return checkpoint_of_run(
            self.config,
            self.data,
            self.split,
            self.store,
            state=self.rounded,
            row=row,
            provenance=provenance_of_run(
                self.device,
                seed=self.config.train.seed,
                init_weights_sha256=self.trainer.init_sha256,
            ),
        )

    def _resume(self) -> Progress:
        state, progress = read_state(
            self.out / "state.safetensors", self.trainer.optimizer, run_sha256=self._run_sha256()
        )
        self.trainer.restore(state, progress.scaler)
        _LOG.info("resuming after epoch %d of %d", progress.epoch, self.config.train.epochs)
        return progress

    def _run_sha256(self) -> str:
        content = {
            "config": self.config.to_dict(),
            "split": self.split.to_dict(),
            # the store's name stands for the photographs: their paths, sizes and times
            "photographs": self.store.folder.name,
            "labels": [
                [record.id, record.labels, record.left_labels, record.right_labels]
                for record in sorted(self.data.records, key=lambda one: one.id)
            ],
            "init_weights_sha256": self.trainer.init_sha256,
        }
        return sha256_hex(canonical_json(content))

    def _part(self, part: Any) -> list[PatientRecord]:
        return select_part(self.data.records, self.split, part)


def _require_parts(split: Split) -> None:
    for part in ("train", "val"):
        if not split.ids(part):
            raise DataError(
                f"the split leaves no patient for {part}; use more patients, or another split"
            )
