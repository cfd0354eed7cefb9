"""The loss against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fundus_training.data.records import PatientRecord
from fundus_training.losses import PairLoss, positive_weights
from fundus_training.models import DMSNetOutput
from fundus_training.presets import RunConfig, preset


def _config(*, task: str = "multi_label", smoothing: float = 0.0, eyes: float = 0.0) -> RunConfig:
    config = preset("tiny").for_classes(2)
    config = replace(config, model=replace(config.model, task=task))
    return config.with_train(label_smoothing=smoothing, eye_loss_weight=eyes)


def _batch(labels: Tensor, *, known: Tensor | None = None) -> dict[str, Tensor]:
    none = torch.zeros(len(labels))
    return {
        "labels": labels,
        "left_labels": labels,
        "right_labels": labels,
        "left_labelled": none if known is None else known,
        "right_labelled": none,
    }


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_class_weights_multiply_the_positive_part_alone() -> None:
    loss = PairLoss(_config(), torch.tensor([3.0, 1.0]))
    logits = torch.tensor([[0.5, -1.0]])
    found = loss(DMSNetOutput(logits, None, None), _batch(torch.tensor([[1.0, 0.0]])))
    assert float(found) == pytest.approx((3.0 * _softplus(-0.5) + _softplus(-1.0)) / 2, rel=1e-6)


def test_smoothing_moves_its_share_of_the_target_to_a_half() -> None:
    loss = PairLoss(_config(smoothing=0.2), torch.tensor([2.0, 1.0]))
    found = loss(
        DMSNetOutput(torch.tensor([[0.5, -1.0]]), None, None),
        _batch(torch.tensor([[1.0, 0.0]])),
    )
    # targets 0.9 and 0.1
    first = 0.9 * 2.0 * _softplus(-0.5) + 0.1 * _softplus(0.5)
    second = 0.1 * _softplus(1.0) + 0.9 * _softplus(-1.0)
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-6)


def test_softmax_spreads_the_target_over_a_patients_findings() -> None:
    loss = PairLoss(_config(task="softmax"), torch.ones(2))
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found = loss(DMSNetOutput(logits, None, None), _batch(torch.tensor([[1.0, 1.0], [1.0, 0.0]])))
    both = 0.5 * _softplus(-1.0) + 0.5 * _softplus(1.0)
    assert float(found) == pytest.approx((both + _softplus(-1.0)) / 2, rel=1e-6)


def test_a_softmax_patient_without_any_label_adds_nothing_and_no_nan() -> None:
    loss = PairLoss(_config(task="softmax"), torch.ones(2))
    output = DMSNetOutput(torch.tensor([[1.0, 0.0]]), None, None)
    assert float(loss(output, _batch(torch.zeros(1, 2)))) == 0.0


def test_only_labelled_eyes_count_and_their_loss_is_a_mean_over_them() -> None:
    loss = PairLoss(_config(eyes=0.5), torch.ones(2))
    labels = torch.zeros(2, 2)
    left = torch.tensor([[2.0, 2.0], [9.0, 9.0]])
    right = torch.full((2, 2), 9.0)
    output = DMSNetOutput(torch.zeros(2, 2), left, right)
    found = loss(output, _batch(labels, known=torch.tensor([1.0, 0.0])))
    assert float(found) == pytest.approx(math.log(2) + 0.5 * _softplus(2.0), rel=1e-6)


def test_an_unlabelled_eye_gets_no_gradient() -> None:
    loss = PairLoss(_config(eyes=1.0), torch.ones(2))
    left = torch.zeros(2, 2, requires_grad=True)
    output = DMSNetOutput(torch.zeros(2, 2), left, torch.zeros(2, 2))
    loss(output, _batch(torch.ones(2, 2), known=torch.tensor([0.0, 1.0]))).backward()
    assert left.grad is not None
    assert left.grad[0].tolist() == [0.0, 0.0]
    assert (left.grad[1] < 0).all()


def test_without_labelled_eyes_the_patients_loss_is_all() -> None:
    loss = PairLoss(_config(eyes=1.0), torch.ones(2))
    zeros = torch.zeros(1, 2)
    found = loss(DMSNetOutput(zeros, zeros, zeros), _batch(torch.ones(1, 2)))
    assert float(found) == pytest.approx(math.log(2), rel=1e-6)


def test_the_loss_is_computed_in_full_precision() -> None:
    loss = PairLoss(_config(), torch.ones(2))
    output = DMSNetOutput(torch.zeros(1, 2, dtype=torch.bfloat16), None, None)
    assert loss(output, _batch(torch.ones(1, 2))).dtype == torch.float32


def _patients(*labels: tuple[int, ...]) -> list[PatientRecord]:
    return [PatientRecord(str(k), None, None, row) for k, row in enumerate(labels)]


def test_positive_weights_are_powers_of_the_odds() -> None:
    patients = _patients((1, 0), (0, 1), (0, 1), (0, 1), (0, 1))
    found = positive_weights(patients, power=0.5, limit=10.0)
    assert found.tolist() == pytest.approx([2.0, 0.5])


def test_positive_weights_are_one_without_a_power() -> None:
    found = positive_weights(_patients((1, 0), (0, 1), (0, 1)), power=0.0, limit=10.0)
    assert found.tolist() == [1.0, 1.0]


def test_a_class_without_positives_or_without_negatives_gets_a_limit() -> None:
    found = positive_weights(_patients((1, 0), (1, 0)), power=0.3, limit=4.0)
    assert found.tolist() == [0.25, 4.0]
