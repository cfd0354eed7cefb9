from __future__ import annotations

import numpy as np
import pytest

from fundus_export.certificate.halves import cross_fitted, split_in_halves
from fundus_export.errors import ExportError

LABELS = np.array([[1, 0, 0]] * 40 + [[0, 1, 0]] * 20 + [[0, 1, 1]] * 10, np.int64)
IDS = tuple(f"p{row}" for row in range(len(LABELS)))


def test_halves_hold_every_label_set_alike() -> None:
    second = split_in_halves(IDS, LABELS, seed=0).second

    for labels in ([1, 0, 0], [0, 1, 0], [0, 1, 1]):
        these = (labels == LABELS).all(axis=1)
        assert second[these].sum() == these.sum() / 2


def test_the_same_seed_gives_the_same_halves_in_any_order() -> None:
    order = np.random.default_rng(1).permutation(len(IDS))
    plain = split_in_halves(IDS, LABELS, seed=3)
    shuffled = split_in_halves([IDS[row] for row in order], LABELS[order], seed=3)

    assert (plain.second[order] == shuffled.second).all()
    assert plain.first_sha256 == shuffled.first_sha256


def test_another_seed_gives_other_halves() -> None:
    first, other = (split_in_halves(IDS, LABELS, seed=seed) for seed in (0, 1))

    assert (first.second != other.second).any()
    assert first.first_sha256 != other.first_sha256


def test_nobody_is_answered_by_their_own_fit() -> None:
    halves = split_in_halves(IDS, LABELS, seed=0)
    owner = np.tile(np.arange(len(IDS)), 2)  # two eyes each
    answered = []

    def fit_and_apply(fit: np.ndarray, rows: np.ndarray) -> np.ndarray:
        assert not set(owner[fit]) & set(owner[rows])
        answered.extend(rows.tolist())
        return rows[:, None].astype(np.float32)

    answers = cross_fitted(halves, owner, fit_and_apply)

    assert sorted(answered) == list(range(len(owner)))
    assert answers[:, 0].tolist() == list(range(len(owner)))


def test_one_patient_cannot_be_halved() -> None:
    with pytest.raises(ExportError, match="more validation patients"):
        split_in_halves(IDS[:1], LABELS[:1], seed=0)
