"""The crop cache: made once, whole or not at all, and never stale."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fundus_runtime.errors import UngradableError
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import PreprocessSpec, crop_eye
from fundus_training.data import crop_files
from fundus_training.data.crops import CropStore, default_cache_dir
from fundus_training.data.patients import PatientRecord
from fundus_training.errors import DataError

Make = Callable[..., Path]
SPEC = PreprocessSpec(size=48)


@pytest.fixture
def records(tmp_path: Path, make_fundus: Make) -> list[PatientRecord]:
    """Two eyes, one eye, and one photograph that shows no fundus."""

    def photograph(name: str, **options: object) -> Path:
        return make_fundus(tmp_path / "eyes" / name, **options)

    return [
        PatientRecord("a", photograph("a_left.png"), photograph("a_right.png", seed=1), (1,)),
        PatientRecord("b", None, photograph("b_right.png", seed=2), (0,)),
        PatientRecord("c", photograph("c_left.png", disc=False), photograph("c_right.png"), (0,)),
    ]


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[..., CropStore]:
    def opened(records: list[PatientRecord], spec: PreprocessSpec = SPEC) -> CropStore:
        return CropStore.open(records, spec, cache_dir=tmp_path / "cache", progress=False)

    return opened


Open = Callable[..., CropStore]


def reason_for(path: Path | None) -> str:
    """Why the preprocessing itself refuses a photograph."""
    assert path is not None
    with pytest.raises(UngradableError) as caught:
        crop_eye(read_photograph(path), SPEC)
    return caught.value.reason


def test_crops_are_those_of_the_preprocessing(
    records: list[PatientRecord], open_store: Open
) -> None:
    store = open_store(records)
    assert records[0].left is not None
    expected = crop_eye(read_photograph(records[0].left), SPEC)
    crop = store.crop(store.row_of("a"), "left")
    assert crop is not None
    np.testing.assert_array_equal(crop.image, expected.image)
    np.testing.assert_array_equal(crop.mask, expected.mask)


def test_absent_and_ungradable_eyes_have_no_crop(
    records: list[PatientRecord], open_store: Open
) -> None:
    store = open_store(records)
    assert store.status["left"] == ("ok", "absent", reason_for(records[2].left))
    assert store.status["right"] == ("ok", "ok", "ok")
    assert store.crop(1, "left") is None
    assert store.crop(2, "left") is None
    assert store.ungradable() == {reason_for(records[2].left): 1}


def test_ungradable_photographs_are_logged_with_their_reason(
    records: list[PatientRecord], open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(records)
    expected = f"1 photographs are ungradable and count as absent: {reason_for(records[2].left)} 1"
    assert expected in caplog.text


def test_a_second_opening_reads_no_photograph(
    records: list[PatientRecord], open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_store(records)
    monkeypatch.setattr(crop_files, "read_photograph", None)
    assert open_store(records) == first


def test_a_changed_photograph_or_spec_makes_another_store(
    records: list[PatientRecord], open_store: Open, make_fundus: Make
) -> None:
    first = open_store(records)
    other_spec = open_store(records, replace(SPEC, crop_permille=900))
    assert records[0].left is not None
    make_fundus(records[0].left, seed=9)
    os.utime(records[0].left, ns=(1, 1))
    changed = open_store(records)
    assert len({first.folder, other_spec.folder, changed.folder}) == 3
    before, after = first.crop(0, "left"), changed.crop(0, "left")
    assert before is not None
    assert after is not None
    assert not np.array_equal(before.image, after.image)


def test_another_opencv_makes_another_store(
    records: list[PatientRecord], open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_store(records).folder
    monkeypatch.setattr(cv2, "__version__", "0.0")
    assert open_store(records).folder != first


def test_a_data_set_that_was_moved_finds_its_store(
    records: list[PatientRecord], open_store: Open, tmp_path: Path
) -> None:
    first = open_store(records)
    shutil.copytree(tmp_path / "eyes", tmp_path / "elsewhere")
    moved = [
        replace(
            record,
            left=record.left and tmp_path / "elsewhere" / record.left.name,
            right=record.right and tmp_path / "elsewhere" / record.right.name,
        )
        for record in records
    ]
    assert open_store(moved).folder == first.folder


@pytest.mark.parametrize("damage", ["short", "no_index", "bad_index", "missing"])
def test_a_damaged_store_is_made_again(
    records: list[PatientRecord], open_store: Open, damage: str
) -> None:
    store = open_store(records)
    images = store.folder / "left_images.u8"
    if damage == "short":
        images.write_bytes(b"\0")
    elif damage == "missing":
        images.unlink()
    elif damage == "no_index":
        (store.folder / "index.json").unlink()
    else:
        (store.folder / "index.json").write_text('{"bytes": ', "utf-8")
    again = open_store(records)
    crop = again.crop(0, "left")
    assert crop is not None
    assert crop.image.any()


def test_unreadable_photographs_are_counted_and_leave_no_store(
    records: list[PatientRecord], open_store: Open, tmp_path: Path
) -> None:
    assert records[0].left is not None
    assert records[0].right is not None
    records[0].left.write_bytes(records[0].left.read_bytes()[:200])
    records[0].right.write_bytes(b"not a photograph")
    with pytest.raises(DataError, match=r"2 photographs cannot be read: .*a_left\.png"):
        open_store(records)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_photograph_that_vanished_is_named(
    records: list[PatientRecord], open_store: Open
) -> None:
    assert records[1].right is not None
    records[1].right.unlink()
    with pytest.raises(DataError, match=r"b_right\.png cannot be read"):
        open_store(records)


def test_an_interrupted_build_leaves_nothing(
    records: list[PatientRecord],
    open_store: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(crop_files, "read_photograph", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_store(records)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_folder_that_cannot_be_written_is_named(
    records: list[PatientRecord], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="choose another cache folder"):
        CropStore.open(records, SPEC, cache_dir=tmp_path / "file", progress=False)


def test_what_a_killed_run_left_is_removed_after_a_day(
    records: list[PatientRecord], open_store: Open, tmp_path: Path
) -> None:
    for name, age_s in (("old", 2 * 86400.0), ("young", 0.0)):
        part = tmp_path / "cache" / f".part-{name}"
        part.mkdir(parents=True)
        since = part.stat().st_mtime - age_s
        os.utime(part, (since, since))
    open_store(records)
    left = {path.name for path in (tmp_path / "cache").glob(".part-*")}
    assert left == {".part-young"}


def test_a_store_travels_to_a_worker_without_its_pixels(
    records: list[PatientRecord], open_store: Open
) -> None:
    store = open_store(records)
    store.crop(0, "left")
    sent = pickle.dumps(store)
    assert len(sent) < SPEC.size**2
    there, here = pickle.loads(sent).crop(0, "left"), store.crop(0, "left")
    np.testing.assert_array_equal(there.image, here.image if here else None)


def test_an_unknown_patient_is_named(records: list[PatientRecord], open_store: Open) -> None:
    with pytest.raises(DataError, match="patient z is not among the 3"):
        open_store(records).row_of("z")


def test_the_cache_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/fundus-edge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "fundus-edge"
