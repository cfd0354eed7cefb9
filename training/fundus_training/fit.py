"""Train DMS-Net on the training patients, validate every epoch, keep the best and the last.

A run's folder holds `config.json`, `metrics.csv`, `tensorboard/`, `state.safetensors` (from which
the run goes on), `best.safetensors` and `last.safetensors` (checkpoints of the averaged weights,
rounded to FP16 before they are validated). An epoch depends on seed, epoch number and the state at
its start alone, so that an interrupted run ends with the same numbers as one that was not.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from fundus_runtime.canonical import canonical_json, sha256_hex, sha256_of_file
from fundus_runtime.version import __version__
from fundus_training import metrics
from fundus_training.checkpoint import Checkpoint, save_checkpoint
from fundus_training.data.crops import CropStore
from fundus_training.data.pairs import PairDataset, start_worker
from fundus_training.data.records import PatientRecord, RecordSet
from fundus_training.data.splits import Split, select_part, split_patients
from fundus_training.errors import DataError, TrainingError
from fundus_training.files import write_atomically
from fundus_training.losses import PairLoss, positive_weights
from fundus_training.models import DMSNet, load_trunk_weights
from fundus_training.optimise import averaged_model, build_optimizer, choose_precision, rate_at
from fundus_training.predict import Predictions, predict
from fundus_training.presets import RunConfig
from fundus_training.run_log import RunLog
from fundus_training.run_state import Progress, read_state, write_state
from fundus_training.weights import round_weights_to_fp16, state_of

__all__ = ["Fit", "FitResult"]

_LOG = logging.getLogger(__name__)

_TERMS = {
    "weights": "research use only; the terms of the training data apply",
    "medical_device": "not a medical device",
}


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
        config: what to compute.
        data: the data set; it is split by patient here, before anything else.
        out: the run's folder; it is made.
        device: where to train.
        init_weights: a pretrained trunk's state dict under torchvision's names.
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
        self.config = config
        self.data = data
        self.out = Path(out)
        self.device = torch.device(device)
        self.progress_bars = progress
        self.dtype = choose_precision(config.train.precision, self.device)
        self.split = split_patients(data.records, config.split, seed=config.train.seed)
        _require_parts(self.split)
        self.out.mkdir(parents=True, exist_ok=True)
        self.store = CropStore.open(
            data.records, config.preprocess, cache_dir=cache_dir, progress=progress
        )
        self.init_sha256 = sha256_of_file(Path(init_weights)) if init_weights else None
        self._prepare(init_weights)

    def _prepare(self, init_weights: str | Path | None) -> None:
        train = self.config.train
        torch.manual_seed(train.seed)
        model = DMSNet(self.config.model)
        if init_weights is not None:
            load_trunk_weights(model, init_weights)
        # channels last is what CPUs and tensor cores convolve fastest
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = averaged_model(self.model, train.ema_decay) if train.ema_decay else None
        self.optimizer = build_optimizer(self.model, train)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        patients = self._part("train")
        weights = positive_weights(
            patients, power=train.class_weight_power, limit=train.class_weight_limit
        )
        self.loss = PairLoss(self.config, weights).to(self.device)
        self.dataset = PairDataset(
            patients, self.store, augment=self.config.augment, seed=train.seed
        )
        self.steps_per_epoch = math.ceil(self._batches() / train.accumulate)

    def run(self, *, resume: bool = False, stop_after: int | None = None) -> FitResult:
        """Train to the last epoch.

        Args:
            resume: go on from the folder's state.
            stop_after: stop once this many epochs are done, as an interruption would.

        Raises:
            TrainingError: the loss is no longer finite.
            CheckpointError: there is no state to resume from, or it is another run's.
        """
        progress = self._resume() if resume else Progress()
        config = {"config": self.config.to_dict(), "init_weights_sha256": self.init_sha256}
        write_atomically(self.out / "config.json", canonical_json(config))
        last = min(self.config.train.epochs, stop_after or self.config.train.epochs)
        with RunLog(self.out, first_epoch=progress.epoch + 1) as log:
            while progress.epoch < last:
                progress.history.append(self._epoch(progress))
                progress.epoch += 1
                self._keep(progress)
                log.write(progress.history)
        return FitResult(
            self.out / "best.safetensors", self.out / "last.safetensors", progress.history
        )

    def _epoch(self, progress: Progress) -> dict[str, float]:
        start = time.perf_counter()
        loss = self._train_epoch(progress.epoch)
        self.rounded = round_weights_to_fp16(self._best_weights())
        figures = self._validate()
        row = {
            "epoch": float(progress.epoch + 1),
            "train_loss": loss,
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            **figures,
            "seconds": time.perf_counter() - start,
        }
        _LOG.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        return row

    def _train_epoch(self, epoch: int) -> float:
        """One pass over the training patients; the mean loss of its pairs."""
        train = self.config.train
        # dropout is the only other randomness: an epoch must not depend on the ones before it
        torch.manual_seed(train.seed * 100_003 + epoch)
        order = torch.Generator().manual_seed(train.seed * 100_003 + epoch)
        self.dataset.set_epoch(epoch)
        self.model.train()
        total, pairs = 0.0, 0
        batches = tqdm(
            self._loader(order),
            desc=f"epoch {epoch + 1}/{train.epochs}",
            unit="batch",
            disable=not self.progress_bars,
        )
        for index, batch in enumerate(batches):
            step, part = divmod(index, train.accumulate)
            self._set_rate(epoch * self.steps_per_epoch + step)
            loss = self._backward(batch, parts=self._parts_of_step(step))
            if part == train.accumulate - 1 or index == self._batches() - 1:
                self._step()
            total += loss * len(batch["index"])
            pairs += len(batch["index"])
            batches.set_postfix(loss=f"{total / pairs:.3f}")
        return total / pairs

    def _backward(self, batch: dict[str, Tensor], *, parts: int) -> float:
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        for eye in ("left", "right"):
            batch[eye] = batch[eye].contiguous(memory_format=torch.channels_last)
        enabled = self.dtype != torch.float32
        with torch.autocast(
            self.device.type, dtype=self.dtype if enabled else None, enabled=enabled
        ):
            output = self.model(
                batch["left"], batch["right"], batch["left_present"], batch["right_present"]
            )
        loss = self.loss(output, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value}: the training diverged; lower train.learning_rate or, on a "
                "GPU, set train.precision to fp32 or bf16. The last state is kept"
            )
        self.scaler.scale(loss / parts).backward()
        return value

    def _step(self) -> None:
        if self.config.train.clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def _set_rate(self, step: int) -> None:
        rate = rate_at(step, steps_per_epoch=self.steps_per_epoch, config=self.config.train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]

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
            progress=False,
        )
        return _validation_figures(predictions, self.config.model.task)

    def _keep(self, progress: Progress) -> None:
        row = progress.history[-1]
        checkpoint = self._checkpoint(progress)
        save_checkpoint(self.out / "last.safetensors", checkpoint)
        score = row["val_score"]
        if progress.best_score is None or score > progress.best_score:
            progress.best_score = score
            save_checkpoint(self.out / "best.safetensors", checkpoint)
        progress.scaler = self.scaler.state_dict()
        tensors = {"model": self.model.state_dict()}
        if self.averaged is not None:
            tensors["averaged"] = self.averaged.state_dict()
        write_state(
            self.out / "state.safetensors",
            tensors,
            self.optimizer,
            progress,
            run_sha256=self._run_sha256(),
        )

    def _resume(self) -> Progress:
        parts, progress = read_state(
            self.out / "state.safetensors", self.optimizer, run_sha256=self._run_sha256()
        )
        self.model.load_state_dict(parts["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(parts["averaged"])
        if progress.scaler:
            self.scaler.load_state_dict(progress.scaler)
        _LOG.info("resuming after epoch %d of %d", progress.epoch, self.config.train.epochs)
        return progress

    def _checkpoint(self, progress: Progress) -> Checkpoint:
        row = progress.history[-1]
        return Checkpoint(
            model_config=self.config.model,
            classes=self.data.classes,
            spec=self.config.preprocess,
            state=self.rounded,
            split=self.split,
            training={
                "config": self.config.to_dict(),
                "epochs_done": progress.epoch,
                "data_layout": self.data.layout,
                "patients": {part: len(self.split.ids(part)) for part in ("train", "val", "test")},
                "positives_in_train": dict(
                    zip(self.data.classes.letters, self._positives(), strict=True)
                ),
                "ungradable_photographs": self.store.ungradable(),
            },
            metrics={"validation_uncalibrated": {k: v for k, v in row.items() if k != "seconds"}},
            provenance=self._provenance(),
        )

    def _provenance(self) -> dict[str, Any]:
        return {
            "fundus_edge": __version__,
            "torch": torch.__version__,
            "numpy": version("numpy"),
            "opencv": version("opencv-python-headless"),
            "python": platform.python_version(),
            "device": self.device.type,
            "init_weights_sha256": self.init_sha256,
            "seed": self.config.train.seed,
            "terms": _TERMS,
        }

    def _positives(self) -> list[int]:
        return [
            sum(column) for column in zip(*(r.labels for r in self._part("train")), strict=True)
        ]

    def _run_sha256(self) -> str:
        content = {
            "config": self.config.to_dict(),
            "split": self.split.to_dict(),
            "init_weights_sha256": self.init_sha256,
        }
        return sha256_hex(canonical_json(content))

    def _best_weights(self) -> dict[str, Tensor]:
        return state_of(self.model if self.averaged is None else self.averaged.module)

    def _part(self, part: Any) -> list[PatientRecord]:
        return select_part(self.data.records, self.split, part)

    def _batches(self) -> int:
        return math.ceil(len(self.dataset) / self.config.train.batch_size)

    def _parts_of_step(self, step: int) -> int:
        """Batches whose gradients this step sums; the last step may have fewer."""
        return min(
            self.config.train.accumulate, self._batches() - step * self.config.train.accumulate
        )

    def _loader(self, order: torch.Generator) -> DataLoader[dict[str, Tensor]]:
        workers = self.config.train.workers
        if workers < 0:
            workers = min(8, os.cpu_count() or 1) if self.device.type == "cuda" else 0
        return DataLoader(
            self.dataset,
            batch_size=self.config.train.batch_size,
            shuffle=True,
            generator=order,
            num_workers=workers,
            worker_init_fn=start_worker if workers else None,
            pin_memory=self.device.type == "cuda",
        )


def _require_parts(split: Split) -> None:
    for part in ("train", "val"):
        if not split.ids(part):
            raise DataError(
                f"the split leaves no patient for {part}; use more patients, or another split"
            )


def _validation_figures(predictions: Predictions, task: str) -> dict[str, float]:
    """The score that chooses the best epoch, and what it is made of; undefined figures are 0."""
    logits = torch.from_numpy(predictions.logits).double()
    scores = (logits.sigmoid() if task == "multi_label" else logits.softmax(dim=1)).numpy()
    labels = predictions.labels
    auc = metrics.flattened_auc(labels, scores) or 0.0
    macro = metrics.macro_auc(labels, scores)[0] or 0.0
    challenge = metrics.challenge_score(labels, scores)
    return {
        "val_score": (auc + macro) / 2,
        "val_macro_auc": macro,
        **{f"val_challenge_{name}": value or 0.0 for name, value in challenge.items()},
    }
