"""Patient-level splits: complete, disjoint, stratified, and the same everywhere."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus_training.data.records import load_records
from fundus_training.data.splits import (
    PARTS,
    Split,
    SplitFractions,
    select_part,
    split_patients,
    stable_order,
)
from fundus_training.errors import ConfigError, DataError


@dataclass(frozen=True)
class Patient:
    id: str
    labels: tuple[int, ...]


label_sets = st.lists(st.sampled_from([0, 1]), min_size=3, max_size=3).map(tuple)
cohorts = st.lists(label_sets, max_size=120).map(
    lambda sets: [Patient(f"p{i}", labels) for i, labels in enumerate(sets)]
)
shares = st.tuples(st.integers(1, 20), st.integers(0, 10), st.integers(0, 10)).map(
    lambda w: SplitFractions(*(part / sum(w) for part in w))
)


@given(cohorts, shares, st.integers(0, 5))
def test_every_patient_is_in_exactly_one_part(
    cohort: list[Patient], fractions: SplitFractions, seed: int
) -> None:
    split = split_patients(cohort, fractions, seed=seed)
    assert sorted(split.ids("all")) == sorted(patient.id for patient in cohort)
    assert all(set(split.ids(a)).isdisjoint(split.ids(b)) for a, b in pairwise([*PARTS, PARTS[0]]))


@given(cohorts, shares)
def test_parts_have_their_share_to_within_one_patient(
    cohort: list[Patient], fractions: SplitFractions
) -> None:
    split = split_patients(cohort, fractions)
    for part in PARTS:
        assert abs(len(split.ids(part)) - getattr(fractions, part) * len(cohort)) <= 1 + 1e-9


@given(cohorts, shares, st.randoms())
def test_the_order_of_rows_changes_nothing(
    cohort: list[Patient], fractions: SplitFractions, shuffler: random.Random
) -> None:
    shuffled = list(cohort)
    shuffler.shuffle(shuffled)
    assert split_patients(shuffled, fractions) == split_patients(cohort, fractions)


@given(cohorts, shares)
def test_every_label_set_is_spread_by_the_shares(
    cohort: list[Patient], fractions: SplitFractions
) -> None:
    split = split_patients(cohort, fractions)
    for labels in {patient.labels for patient in cohort}:
        alike = [patient.id for patient in cohort if patient.labels == labels]
        for part in PARTS:
            there = len(set(alike) & set(split.ids(part)))
            assert abs(there - getattr(fractions, part) * len(alike)) <= 2


def test_another_seed_gives_another_split() -> None:
    cohort = [Patient(str(i), (i % 2, 0)) for i in range(60)]
    assert split_patients(cohort, seed=0).val != split_patients(cohort, seed=1).val


def test_rare_label_sets_stand_with_those_that_share_their_rarest_class() -> None:
    common = [Patient(f"c{i}", (1, 0, 0)) for i in range(20)]
    rare = [Patient("r0", (1, 1, 0)), Patient("r1", (0, 1, 0)), Patient("r2", (1, 1, 1))]
    ids = [patient.id for patient in stable_order([*common, *rare], seed=0)]
    assert {ids.index("r0"), ids.index("r1")} == {20, 21}


def test_a_split_survives_json() -> None:
    split = split_patients([Patient(str(i), (1,)) for i in range(30)], seed=3)
    assert Split.from_dict(json.loads(json.dumps(split.to_dict()))) == split


def test_a_patient_in_two_parts_is_refused() -> None:
    values = split_patients([Patient(str(i), (1,)) for i in range(30)]).to_dict()
    values["val"].append(values["train"][0])
    with pytest.raises(DataError, match="more than once"):
        Split.from_dict(values)


def test_a_repeated_id_is_refused() -> None:
    with pytest.raises(DataError, match="more than once"):
        split_patients([Patient("1", (1,)), Patient("1", (0,))])


def test_unknown_keys_of_a_split_are_refused() -> None:
    values = split_patients([Patient("1", (1,))]).to_dict()
    with pytest.raises(DataError, match="holdout"):
        Split.from_dict({**values, "holdout": []})
    with pytest.raises(DataError, match="fractions"):
        Split.from_dict({**values, "fractions": {"training": 1.0}})


@pytest.mark.parametrize("parts", [(0.5, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.2, 0.0)])
def test_impossible_fractions_are_refused(parts: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="fractions"):
        SplitFractions(*parts)


def test_selecting_a_part_keeps_the_records_order_and_misses_none() -> None:
    cohort = [Patient(str(i), (1,)) for i in range(30)]
    split = split_patients(cohort)
    chosen = select_part(cohort, split, "train")
    assert [p.id for p in chosen] == [p.id for p in cohort if p.id in split.train]
    with pytest.raises(DataError, match="not in this data set"):
        select_part(cohort[:10], split, "train")


def test_the_real_collection_leaves_enough_patients_to_validate_on(fundus_data: Path) -> None:
    records = load_records(fundus_data / "odir").records
    split = split_patients(records)
    assert len(split.val) >= 400
    for k in range(8):
        positives = sum(record.labels[k] for record in records)
        in_val = sum(record.labels[k] for record in select_part(records, split, "val"))
        assert abs(in_val - 0.18 * positives) <= 4
