"""Fits a trained model's auxiliary head anew, on the trunk's early map, so that it shows where.

The features F mix places over the whole eye; the early map does not yet. An auxiliary head that
reads it answers from what stands at each place, and its maps (`AuxiliaryHead.described`) say where.
Everything else of the model stays as it is, so that the patients' answers stay the same.

The head is linear in the map's mean. To fit it is a regularised logistic regression on these means,
which has one solution: no seed, no schedule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from fundus_runtime.labels import EYES, Eye
from fundus_runtime.preprocess import normalise_crop
from fundus_training.checkpoint import Checkpoint, build_model
from fundus_training.data.crops import CropStore
from fundus_training.data.patients import PatientRecord
from fundus_training.errors import DataError
from fundus_training.models import DMSNet
from fundus_training.weights import round_weights_to_fp16, state_of

__all__ = ["DECAY", "fit_linear", "with_local_eye_head"]

# Chosen on ODIR's validation patients between 1e-4 and 1e-2: rare classes need it.
DECAY = 1e-2
_STEPS = 500


def with_local_eye_head(
    checkpoint: Checkpoint,
    records: Sequence[PatientRecord],
    store: CropStore,
    *,
    decay: float = DECAY,
    batch_size: int = 32,
    progress: bool = True,
) -> Checkpoint:
    """The model with a fitted `auxiliary_input` "trunk" head, uncalibrated.

    Args:
        checkpoint: any trained model; it stays as it is.
        records: the patients to fit on; eyes without labels of their own are left out.
        store: their crops.
        decay: weight of the squared weights, for standardised means.
        batch_size: eyes at once.
        progress: show a progress bar on stderr.

    Raises:
        DataError: no eye has labels and a gradable photograph.
    """
    model = build_model(checkpoint)
    rows = [
        (record, eye)
        for record in records
        for eye in EYES
        if record.eye_labels(eye) is not None and store.is_gradable(store.row_of(record.id), eye)
    ]
    if not rows:
        raise DataError(
            "no eye of the training patients has labels of its own and a gradable photograph; a "
            "per-eye output needs diagnostic keywords or label columns of each eye"
        )
    labels = torch.tensor([record.eye_labels(eye) for record, eye in rows], dtype=torch.float64)
    shown = tqdm(total=len(rows), desc="reading eyes", unit="eye", disable=not progress)
    with shown, torch.inference_mode():
        means = []
        for images in _batches(rows, store, batch_size):
            means.append(model.trunk.parts(images).early.mean(dim=(2, 3)))
            shown.update(len(images))
    weight, bias = fit_linear(
        torch.cat(means), labels, task=checkpoint.model_config.task, decay=decay
    )
    return _with_head(checkpoint, model, weight, bias)


def fit_linear(means: Tensor, labels: Tensor, *, task: str, decay: float) -> tuple[Tensor, Tensor]:
    """Regularised logistic regression, one for all classes.

    Args:
        means: M x C'.
        labels: M x K zeros and ones.
        task: `multi_label` fits K sigmoids, `softmax` one softmax.
        decay: weight of the squared weights, for standardised means.

    Returns:
        Weights K x C' and biases K, FP32, for means as they came.
    """
    means, labels = means.double().clone(), labels.double()
    centre, spread = means.mean(dim=0), means.std(dim=0, correction=0).clamp(min=1e-6)
    inputs = (means - centre) / spread
    weight = torch.zeros(labels.shape[1], means.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(labels.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(F.linear(inputs, weight, bias), labels, task) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    scaled = weight.detach() / spread
    return scaled.float(), (bias.detach() - scaled @ centre).float()


def _loss(logits: Tensor, labels: Tensor, task: str) -> Tensor:
    if task == "softmax":
        target = labels / labels.sum(dim=1, keepdim=True).clamp(min=1.0)
        return F.cross_entropy(logits, target)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return losses.mean(dim=0).sum()


def _batches(
    rows: Sequence[tuple[PatientRecord, Eye]], store: CropStore, size: int
) -> Iterator[Tensor]:
    for start in range(0, len(rows), size):
        crops = [store.crop(store.row_of(one.id), eye) for one, eye in rows[start : start + size]]
        images = [normalise_crop(c.image, c.mask, store.spec) for c in crops if c is not None]
        yield torch.from_numpy(np.stack(images))


def _with_head(checkpoint: Checkpoint, model: DMSNet, weight: Tensor, bias: Tensor) -> Checkpoint:
    kept = {k: v for k, v in state_of(model).items() if not k.startswith("auxiliary.")}
    config = dataclasses.replace(
        checkpoint.model_config, auxiliary_head=True, auxiliary_input="trunk"
    )
    fitted = {"auxiliary.linear.weight": weight, "auxiliary.linear.bias": bias}
    return dataclasses.replace(
        checkpoint,
        model_config=config,
        state=kept | round_weights_to_fp16(fitted),
        metrics={},
        calibration=None,
    )
