"""A model in training: weights, optimiser, averaging, precision, and one epoch over a data set.

An epoch depends on seed, epoch number and the state at its start alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from fundus_training.cores import usable_cores
from fundus_training.data.pairs import PairDataset, start_worker
from fundus_training.errors import TrainingError
from fundus_training.initial_weights import InitialWeights
from fundus_training.losses import PairLoss
from fundus_training.models import DMSNet
from fundus_training.optimise import averaged_model, build_optimizer, choose_precision, rate_at
from fundus_training.presets import RunConfig
from fundus_training.weights import State, state_of

__all__ = ["Trainer"]


class Trainer:
    """What changes from step to step.

    Args:
        config: model and recipe.
        device: where to train.
        init_weights: where to start from; None for random numbers.
        progress: show progress bars on stderr.

    Attributes:
        init_sha256: SHA-256 of the initial weights' file, or None.
        optimizer: AdamW.
        scaler: of the gradients in FP16; does nothing in other precisions.

    Raises:
        CheckpointError: the initial weights do not fit.
        ConfigError: the device does not have the precision that was asked for.
    """

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        *,
        init_weights: InitialWeights | None = None,
        progress: bool = True,
    ) -> None:
        self.config = config.train
        self.device = device
        self.dtype = choose_precision(config.train.precision, device)
        self.progress_bars = progress
        torch.manual_seed(config.train.seed)
        model = DMSNet(config.model)
        self.init_sha256: str | None = None
        if init_weights is not None:
            init_weights.load_into(model)
            self.init_sha256 = init_weights.sha256
        # channels last is what CPUs and tensor cores convolve fastest
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        decay = config.train.ema_decay
        self.averaged = averaged_model(self.model, decay) if decay else None
        self.optimizer = build_optimizer(self.model, config.train)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    @property
    def learning_rate(self) -> float:
        """The head's rate in the last step."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def weights(self) -> State:
        """A copy of the weights to validate: the averaged ones where there are any."""
        return state_of(self.model if self.averaged is None else self.averaged.module)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """State dicts by name, without the optimiser's."""
        averaged = {} if self.averaged is None else {"averaged": self.averaged.state_dict()}
        return {"model": self.model.state_dict(), **averaged}

    def restore(self, state: Mapping[str, dict[str, Tensor]], scaler: dict[str, Any]) -> None:
        """Take back what `state` and the scaler's state dict held."""
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        if scaler:
            self.scaler.load_state_dict(scaler)

    def train_epoch(self, dataset: PairDataset, loss: PairLoss, epoch: int) -> float:
        """One pass over the pairs; the mean loss of a pair.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        # dropout is the only other randomness: an epoch must not depend on the ones before it
        seed = self.config.seed * 100_003 + epoch
        torch.manual_seed(seed)
        dataset.set_epoch(epoch)
        self.model.train()
        loader = self._loader(dataset, torch.Generator().manual_seed(seed))
        name = f"epoch {epoch + 1}/{self.config.epochs}"
        batches = tqdm(loader, desc=name, unit="batch", disable=not self.progress_bars)
        steps = math.ceil(len(loader) / self.config.accumulate)
        total, seen = 0.0, 0
        for index, batch in enumerate(batches):
            step, part = divmod(index, self.config.accumulate)
            self._set_rate(epoch * steps + step, steps_per_epoch=steps)
            pairs = len(batch["index"])
            value = self._backward(batch, loss, share=pairs / self._pairs_of_step(dataset, step))
            if part == self.config.accumulate - 1 or index == len(loader) - 1:
                self._step()
            total += value * pairs
            seen += pairs
            batches.set_postfix(loss=f"{total / seen:.3f}")
        return total / seen

    def _backward(self, batch: dict[str, Tensor], loss: PairLoss, *, share: float) -> float:
        """Add a batch's gradients, weighed by its share of the step's pairs; the batch's loss."""
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
        result = loss(output, batch)
        value = float(result.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value}: the training diverged; lower train.learning_rate or, on a "
                "GPU, set train.precision to fp32 or bf16. The last state is kept"
            )
        self.scaler.scale(result * share).backward()
        return value

    def _step(self) -> None:
        if self.config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def _set_rate(self, step: int, *, steps_per_epoch: int) -> None:
        rate = rate_at(step, steps_per_epoch=steps_per_epoch, config=self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]

    def _pairs_of_step(self, dataset: PairDataset, step: int) -> int:
        """Pairs whose gradients this step sums; the last step may have fewer."""
        whole = self.config.batch_size * self.config.accumulate
        return min(whole, len(dataset) - step * whole)

    def _loader(
        self, dataset: PairDataset, order: torch.Generator
    ) -> DataLoader[dict[str, Tensor]]:
        workers = self.config.workers
        if workers < 0:
            workers = min(8, usable_cores()) if self.device.type == "cuda" else 0
        return DataLoader(
            dataset,
            batch_size=self.config.batch_size,
            shuffle=True,
            generator=order,
            num_workers=workers,
            worker_init_fn=start_worker if workers else None,
            pin_memory=self.device.type == "cuda",
        )
