"""Optimiser, schedule, weight averaging and precision of a training run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from fundus_training.errors import ConfigError
from fundus_training.models import DMSNet
from fundus_training.presets import Precision, TrainConfig

__all__ = ["averaged_model", "build_optimizer", "choose_precision", "rate_at"]


def build_optimizer(model: DMSNet, config: TrainConfig) -> AdamW:
    """AdamW with the trunk at its own rate, and weight decay on matrices and kernels alone."""
    groups = [
        {"params": params, "rate_factor": factor, "weight_decay": decay}
        for in_trunk, factor in ((True, config.trunk_rate_factor), (False, 1.0))
        for is_matrix, decay in ((True, config.weight_decay), (False, 0.0))
        if (params := list(_parameters(model, in_trunk=in_trunk, is_matrix=is_matrix)))
    ]
    return AdamW(groups, lr=config.learning_rate)


def _parameters(model: DMSNet, *, in_trunk: bool, is_matrix: bool) -> Iterator[nn.Parameter]:
    for name, parameter in model.named_parameters():
        if name.startswith("trunk.") == in_trunk and (parameter.ndim >= 2) == is_matrix:
            yield parameter


def rate_at(step: int, *, steps_per_epoch: int, config: TrainConfig) -> float:
    """Learning rate of a step: linear warm-up, then a cosine that is zero after the last step."""
    warmup = config.warmup_epochs * steps_per_epoch
    total = config.epochs * steps_per_epoch
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(total - warmup, 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def averaged_model(model: DMSNet, decay: float) -> AveragedModel:
    """Exponential moving average of weights and batch-norm statistics.

    The first step is copied; after n steps the decay is (1 + n) / (10 + n), up to `decay`, so that
    the random start is forgotten.
    """

    def average(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current
        now = min(decay, (1.0 + int(updates)) / (10.0 + int(updates)))
        return averaged.lerp(current.to(averaged.dtype), 1.0 - now)

    return AveragedModel(model, avg_fn=average, use_buffers=True)


def choose_precision(asked: Precision, device: torch.device) -> torch.dtype:
    """The dtype of autocast; FP32 means that there is none.

    Raises:
        ConfigError: the device does not have the precision that was asked for.
    """
    if asked == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if asked == "fp16" and device.type != "cuda":
        raise ConfigError("precision fp16 needs a CUDA device; use fp32 or bf16 on the CPU")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]
