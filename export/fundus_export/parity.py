"""Proof that the exported graphs answer as the PyTorch model does.

Probabilities are compared after calibration, at batch 1 and 2, with both eyes and with either one
absent, on preprocessed eyes N x 3 x S x S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fundus_export.errors import ExportError
from fundus_runtime.backends.protocol import Backend
from fundus_runtime.calibration import Calibration
from fundus_runtime.labels import EYES
from fundus_training.models import DMSNet

__all__ = [
    "PROBABILITY_LIMIT",
    "Answers",
    "Parity",
    "answers_of_graphs",
    "answers_of_model",
    "compare",
]

PROBABILITY_LIMIT = 1e-4

Tensor = npt.NDArray[np.float32]
_PRESENCE = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True)
class Answers:
    """Logits of N pairs, N x K each.

    Attributes:
        left: the left eyes alone; None where the model says nothing of an eye alone.
        right: the right eyes alone, likewise.
        both: the patients, both eyes present.
        left_only: the patients without their right eye.
        right_only: the patients without their left eye.
    """

    left: Tensor | None
    right: Tensor | None
    both: Tensor
    left_only: Tensor
    right_only: Tensor


@dataclass(frozen=True)
class Parity:
    """How far the graphs are from the model.

    Attributes:
        pairs: pairs that were compared.
        source: where they come from.
        largest_probability_difference: over patients, eyes and absent eyes.
        limit: what was allowed.
        reference: the model's form that was compared with.
    """

    pairs: int
    source: str
    largest_probability_difference: float
    limit: float = PROBABILITY_LIMIT
    reference: str = "PyTorch FP32, batch norms not folded"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def answers_of_model(model: DMSNet, left: Tensor, right: Tensor) -> Answers:
    """What PyTorch answers, pair by pair in evaluation mode."""
    model.eval()
    rows = []
    with torch.inference_mode():
        for one_left, one_right in zip(left, right, strict=True):
            of_left = model.encode(torch.from_numpy(one_left[None]), "left")
            of_right = model.encode(torch.from_numpy(one_right[None]), "right")
            fused = [
                model.fuse(of_left.features, of_right.features, _flag(a), _flag(b)).numpy()
                for a, b in _PRESENCE
            ]
            eyes = [eye.logits.numpy() for eye in (of_left, of_right) if eye.logits is not None]
            rows.append([*eyes, *fused])
    return _joined(rows)


def answers_of_graphs(backend: Backend, left: Tensor, right: Tensor) -> Answers:
    """What the graphs answer: eyes at batch 2 and, for every second pair, one by one."""
    rows = []
    for index, (one_left, one_right) in enumerate(zip(left, right, strict=True)):
        if index % 2:
            parts = [backend.encode(np.stack([one_left, one_right]), EYES)]
        else:
            eyes = zip(EYES, (one_left, one_right), strict=True)
            parts = [backend.encode(one[None], [eye]) for eye, one in eyes]
        features = np.concatenate([part.features for part in parts])
        logits = [row[None] for part in parts if part.logits is not None for row in part.logits]
        fused = [
            backend.fuse(features[:1], features[1:], *np.array([[a], [b]], dtype=np.float32))
            for a, b in _PRESENCE
        ]
        rows.append([*logits, *fused])
    return _joined(rows)


def compare(
    expected: Answers, came: Answers, patient: Calibration, eye: Calibration, *, source: str
) -> Parity:
    """The largest difference of any calibrated probability.

    Raises:
        ExportError: it is above `PROBABILITY_LIMIT`.
    """
    differences = []
    for name, calibration in (
        ("left", eye),
        ("right", eye),
        ("both", patient),
        ("left_only", patient),
        ("right_only", patient),
    ):
        ours, theirs = getattr(expected, name), getattr(came, name)
        if (ours is None) != (theirs is None):
            raise ExportError(
                "the graphs and the PyTorch model do not both say something of each eye alone; "
                "compare them with the model that they were exported from"
            )
        if ours is not None:
            difference = calibration.apply(ours) - calibration.apply(theirs)
            differences.append(np.abs(difference).max())
    # NumPy's maximum, which a NaN wins; Python's would lose it
    largest = float(np.max(differences))
    if not largest <= PROBABILITY_LIMIT:
        raise ExportError(
            f"the graphs differ from the PyTorch model by {largest:.2e} in a probability over "
            f"{len(expected.both)} pairs, {PROBABILITY_LIMIT:.0e} is allowed; this is a fault of "
            "the export, please report it with the checkpoint's config"
        )
    return Parity(len(expected.both), source, largest)


def _joined(rows: Sequence[Sequence[Tensor]]) -> Answers:
    """Answers from rows of one pair each: left and right eye, where there are any, and patients."""
    *eyes, both, left_only, right_only = (
        np.concatenate(column) for column in zip(*rows, strict=True)
    )
    left, right = eyes or (None, None)
    return Answers(left, right, both, left_only, right_only)


def _flag(value: float) -> torch.Tensor:
    return torch.tensor([value])
