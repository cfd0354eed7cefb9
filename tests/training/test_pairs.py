"""Pairs as tensors: presence, labels, and the same samples whatever worker makes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fundus_runtime.preprocess import PreprocessSpec, preprocess
from fundus_training.data.augment import AugmentConfig
from fundus_training.data.crops import CropStore
from fundus_training.data.pairs import PairDataset, PairSample, start_worker
from fundus_training.data.patients import PatientRecord
from fundus_training.errors import DataError

Make = Callable[..., Path]
SPEC = PreprocessSpec(size=48, illumination_window_px=9)
STRONG = AugmentConfig(cutmix=0.8, drop_eye=0.5, noise=0.5)


@pytest.fixture
def records(tmp_path: Path, make_fundus: Make) -> list[PatientRecord]:
    def eye(name: str, seed: int, *, disc: bool = True) -> Path:
        return make_fundus(tmp_path / "eyes" / name, seed=seed, disc=disc)

    alike = [
        PatientRecord(
            f"p{i}",
            eye(f"p{i}_left.png", i),
            eye(f"p{i}_right.png", 50 + i),
            (1, 0),
            (1, 0),
            (1, 0),
        )
        for i in range(6)
    ]
    return [
        *alike,
        PatientRecord("one", None, eye("one_right.png", 20), (0, 1), None, (0, 1)),
        PatientRecord(
            "half", eye("half_left.png", 21), eye("half_right.png", 22, disc=False), (0, 1), (0, 1)
        ),
        PatientRecord("none", None, eye("none_right.png", 23, disc=False), (0, 1)),
    ]


@pytest.fixture
def store(records: list[PatientRecord], tmp_path: Path) -> CropStore:
    return CropStore.open(records, SPEC, cache_dir=tmp_path / "cache", progress=False)


def stack(dataset: PairDataset, **options: object) -> PairSample:
    loader = DataLoader(dataset, batch_size=len(dataset), **options)  # type: ignore[arg-type]
    return next(iter(loader))


def assert_same(first: PairSample, second: PairSample) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=0, msg=key)


def test_tensors_are_those_of_the_runtimes_preprocessing(
    records: list[PatientRecord], store: CropStore
) -> None:
    from fundus_runtime.photograph import read_photograph

    sample = PairDataset(records, store)[2]
    assert records[2].right is not None
    expected = preprocess(read_photograph(records[2].right), SPEC).tensor
    np.testing.assert_array_equal(sample["right"].numpy(), expected)


def test_absent_and_ungradable_eyes_are_zero_and_not_labelled(
    records: list[PatientRecord], store: CropStore
) -> None:
    dataset = PairDataset(records, store)
    one, half = dataset[6], dataset[7]
    assert (one["left_present"], one["right_present"]) == (0, 1)
    assert (half["left_present"], half["right_present"]) == (1, 0)
    assert not one["left"].any()
    assert one["right"].any()
    assert (one["left_labelled"], one["right_labelled"]) == (0, 1)
    assert one["right_labels"].tolist() == one["labels"].tolist() == [0.0, 1.0]


def test_patients_without_a_gradable_eye_are_left_out(
    records: list[PatientRecord], store: CropStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = PairDataset(records, store)
    assert [record.id for record in dataset.records] == [r.id for r in records[:-1]]
    assert "1 patients without a gradable eye" in caplog.text
    with pytest.raises(DataError, match="none of 1 patients"):
        PairDataset(records[-1:], store)


def test_unknown_eye_labels_are_marked(records: list[PatientRecord], store: CropStore) -> None:
    bare = [PatientRecord(r.id, r.left, r.right, r.labels) for r in records[:2]]
    sample = PairDataset(bare, store)[0]
    assert (sample["left_labelled"], sample["right_labelled"]) == (0, 0)
    assert not sample["left_labels"].any()


def test_shapes_and_types(records: list[PatientRecord], store: CropStore) -> None:
    batch = stack(PairDataset(records, store))
    shapes = {key: tuple(value.shape) for key, value in batch.items()}
    eye = {"": (8, 3, 48, 48), "_present": (8,), "_labels": (8, 2), "_labelled": (8,)}
    expected = {f"{side}{key}": shape for side in ("left", "right") for key, shape in eye.items()}
    assert shapes == {**expected, "labels": (8, 2), "index": (8,)}
    assert {value.dtype for key, value in batch.items() if key != "index"} == {torch.float32}
    assert batch["index"].tolist() == list(range(8))


# Python 3.12 warns of every fork in a process with threads, which torch always is.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
def test_workers_make_the_same_samples(records: list[PatientRecord], store: CropStore) -> None:
    dataset = PairDataset(records, store, augment=STRONG, seed=5)
    dataset.set_epoch(3)
    alone = stack(dataset)
    forked = stack(
        dataset, num_workers=2, multiprocessing_context="fork", worker_init_fn=start_worker
    )
    assert_same(alone, forked)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_live_on_see_the_epoch_change(
    records: list[PatientRecord], store: CropStore
) -> None:
    dataset = PairDataset(records, store, augment=STRONG)
    loader = DataLoader(
        dataset,
        batch_size=len(dataset),
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        assert_same(next(iter(loader)), stack(dataset))


def test_an_epoch_differs_from_the_next_and_can_be_had_again(
    records: list[PatientRecord], store: CropStore
) -> None:
    dataset = PairDataset(records, store, augment=STRONG)
    first = stack(dataset)
    dataset.set_epoch(1)
    assert not torch.equal(stack(dataset)["left"], first["left"])
    dataset.set_epoch(0)
    assert_same(stack(dataset), first)


def test_an_eye_is_dropped_but_never_both(records: list[PatientRecord], store: CropStore) -> None:
    config = AugmentConfig(**{**AugmentConfig.none().to_dict(), "drop_eye": 1.0})
    batch = stack(PairDataset(records, store, augment=config))
    assert (batch["left_present"] + batch["right_present"]).tolist() == [1.0] * 8
    assert batch["left_labelled"].tolist() == batch["left_present"].tolist()


def test_cutmix_partners_show_the_same_and_are_never_the_pair_itself(
    records: list[PatientRecord], store: CropStore
) -> None:
    config = AugmentConfig(**{**AugmentConfig.none().to_dict(), "cutmix": 1.0})
    plain, mixing = PairDataset(records, store), PairDataset(records, store, augment=config)
    changed = torch.zeros(8)
    for epoch in range(4):
        mixing.set_epoch(epoch)
        batch, unmixed = stack(mixing), stack(plain)
        changed += ((batch["right"] != unmixed["right"]).flatten(1).any(1)).float()
        assert torch.equal(batch["labels"], unmixed["labels"])
        assert torch.equal(batch["left_present"], unmixed["left_present"])
    # Six patients are alike; the two others have nobody to be mixed with.
    assert (changed[:6] > 0).all()
    assert changed[6:].tolist() == [0.0, 0.0]
