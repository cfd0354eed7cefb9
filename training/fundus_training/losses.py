"""The training loss: class-weighted binary cross entropy for the patient and for each labelled eye.

Reading 1 of the paper: eight sigmoids, or one softmax over the classes. Logits and targets are
B x K; an eye counts only where its labels are known and it is present.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fundus_training.data.records import PatientRecord
from fundus_training.models import DMSNetOutput
from fundus_training.presets import RunConfig

__all__ = ["PairLoss", "positive_weights"]


def positive_weights(records: Sequence[PatientRecord], *, power: float, limit: float) -> Tensor:
    """(negatives / positives) ** power a class, between 1 / limit and limit; K numbers.

    A class without a positive, or without a negative, gets the limit that its side approaches.
    """
    labels = torch.tensor([record.labels for record in records], dtype=torch.float64)
    positives = labels.sum(dim=0)
    odds = (len(records) - positives) / positives.clamp(min=1e-9)
    return odds.pow(power).clamp(1.0 / limit, limit).float()


class PairLoss(nn.Module):
    """Patient loss plus the eyes' loss, each a mean over its decisions.

    Args:
        config: gives task, smoothing and the eyes' weight.
        positive_weight: K class weights.
    """

    def __init__(self, config: RunConfig, positive_weight: Tensor) -> None:
        super().__init__()
        self.task = config.model.task
        self.smoothing = config.train.label_smoothing
        self.eye_weight = config.train.eye_loss_weight
        self.register_buffer("positive_weight", positive_weight)

    def forward(self, output: DMSNetOutput, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch of `PairDataset` samples, a scalar in FP32."""
        loss = self._per_row(output.logits, batch["labels"]).mean()
        if self.eye_weight == 0 or output.left_logits is None or output.right_logits is None:
            return loss
        rows = torch.cat(
            [
                self._per_row(output.left_logits, batch["left_labels"]),
                self._per_row(output.right_logits, batch["right_labels"]),
            ]
        )
        known = torch.cat([batch["left_labelled"], batch["right_labelled"]])
        return loss + self.eye_weight * (rows * known).sum() / known.sum().clamp(min=1.0)

    def _per_row(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = cast(Tensor, self.positive_weight)
        if self.task == "softmax":
            # a patient with several findings spreads the target over them
            target = labels / labels.sum(dim=1, keepdim=True).clamp(min=1.0)
            return -(target * weight * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
        target = labels * (1.0 - self.smoothing) + 0.5 * self.smoothing
        losses = F.binary_cross_entropy_with_logits(
            logits.float(), target, pos_weight=weight, reduction="none"
        )
        return losses.mean(dim=1)
