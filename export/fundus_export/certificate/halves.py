"""Two halves of the patients: each is judged by what was fitted on the other.

Patients are lined up by label set, and within one by a hash of seed and id, as the split of the
data is made; every second goes to the second half. So both halves hold every label set alike, each
patient is judged once, none by its own fit, and the same patients give the same halves anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fundus_export.errors import ExportError
from fundus_training.data.splits import stable_order

__all__ = ["Halves", "cross_fitted", "ids_sha256", "split_in_halves"]

Probabilities = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class _Labelled(NamedTuple):
    id: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Halves:
    """Which patients are in which half.

    Attributes:
        seed: another seed gives other halves.
        second: N; whether a patient is in the second half.
        first_sha256: hash of the first half's ids.
    """

    seed: int
    second: npt.NDArray[np.bool_]
    first_sha256: str

    def __len__(self) -> int:
        return len(self.second)


def split_in_halves(ids: Sequence[str], labels: npt.NDArray[np.int64], *, seed: int) -> Halves:
    """Halve these patients.

    Args:
        ids: N, all different.
        labels: N×K zeros and ones.
        seed: of the order within one label set.

    Raises:
        ExportError: there are fewer than two patients.
    """
    if len(ids) < 2:
        raise ExportError(
            f"a certificate fits on one half of the patients and counts on the other, but there "
            f"are {len(ids)} patients; give data with more validation patients"
        )
    patients = [
        _Labelled(patient, tuple(row)) for patient, row in zip(ids, labels.tolist(), strict=True)
    ]
    line = [patient.id for patient in stable_order(patients, seed=seed)]
    in_second = set(line[1::2])
    second = np.array([patient in in_second for patient in ids])
    return Halves(seed, second, ids_sha256(line[::2]))


def cross_fitted(
    halves: Halves, owner: Indices, fit_and_apply: Callable[[Indices, Indices], Probabilities]
) -> Probabilities:
    """Probabilities M×K, each half's by what was fitted on the other half.

    Args:
        halves: of N patients.
        owner: M, the patient that each row belongs to, so that both eyes of one stay together.
        fit_and_apply: given the rows to fit on and the rows to answer, the latter's answers.
    """
    in_second = halves.second[owner]
    first, second = np.flatnonzero(~in_second), np.flatnonzero(in_second)
    of_first, of_second = fit_and_apply(second, first), fit_and_apply(first, second)
    answers = np.empty((len(owner), of_first.shape[1]), dtype=np.float32)
    answers[first], answers[second] = of_first, of_second
    return answers


def ids_sha256(ids: Sequence[str]) -> str:
    """A hash that names a set of patients, whatever their order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
