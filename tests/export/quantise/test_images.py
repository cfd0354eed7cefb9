"""Calibration photographs: read as the runtime reads, in a fixed order, refused with reasons."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fundus_export.errors import ExportError
from fundus_export.quantise.images import (
    CalibrationImages,
    ImageFile,
    Minimum,
    open_calibration_images,
)
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import PreprocessSpec, preprocess

FEW = Minimum(2, 1)
Draw = Callable[..., Path]


def opened(
    folder: Path, spec: PreprocessSpec, *, minimum: Minimum = FEW, limit: int | None = None
) -> CalibrationImages:
    return open_calibration_images(folder, spec, minimum=minimum, limit=limit, progress=False)


def names(images: CalibrationImages) -> list[str]:
    return [file.name for file in images.files]


@pytest.fixture
def copied(drawn_folder: Path, tmp_path: Path) -> Path:
    """The drawn folder, to be spoilt."""
    folder = tmp_path / "photographs"
    shutil.copytree(drawn_folder, folder)
    return folder


def test_pairs_and_single_eyes_are_found_in_natural_order(images: CalibrationImages) -> None:
    expected = [f"{pair}_{eye}.png" for pair in range(10) for eye in ("left", "right")]
    assert names(images) == [*expected, "macula.PNG"]
    assert [left.pair_id for left, _ in images.pair_files] == [str(pair) for pair in range(10)]
    assert {(left.eye, right.eye) for left, right in images.pair_files} == {("left", "right")}
    assert (images.files[-1].eye, images.files[-1].pair_id) == (None, None)


def test_every_file_has_its_hash(images: CalibrationImages) -> None:
    for file in images.files:
        assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()


def test_eyes_are_what_the_runtime_would_feed(
    images: CalibrationImages, spec: PreprocessSpec
) -> None:
    eyes = list(images.eyes())
    assert len(eyes) == 21
    for file, eye in zip(images.files, eyes, strict=True):
        np.testing.assert_array_equal(eye, preprocess(read_photograph(file.path), spec).tensor)
    pairs = list(images.pairs())
    np.testing.assert_array_equal(pairs[3][0], eyes[6])
    np.testing.assert_array_equal(pairs[3][1], eyes[7])


def test_a_photograph_is_decoded_only_when_its_turn_comes(
    images: CalibrationImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def noted(path: Path) -> object:
        read.append(path)
        return read_photograph(path)

    monkeypatch.setattr("fundus_export.quantise.images.read_photograph", noted)
    eyes = images.eyes()
    assert read == []
    next(eyes)
    next(eyes)
    assert read == [file.path for file in images.files[:2]]


def test_the_hash_names_content_and_pairing_and_nothing_else(
    images: CalibrationImages, copied: Path, draw: Draw
) -> None:
    for name in ("left", "right"):
        (copied / f"0_{name}.png").rename(copied / f"zero_{name}.png")
    renamed = opened(copied, images.spec)
    assert names(renamed) != names(images)
    assert renamed.sha256 == images.sha256
    (copied / "3_left.png").rename(copied / "three.png")
    assert opened(copied, images.spec).sha256 != images.sha256
    (copied / "three.png").rename(copied / "3_left.png")
    assert opened(copied, images.spec).sha256 == images.sha256
    draw(copied / "3_left.png", seed=77)
    assert opened(copied, images.spec).sha256 != images.sha256


def test_a_limit_takes_whole_pairs_and_the_same_ones_every_time(
    drawn_folder: Path, copied: Path, spec: PreprocessSpec, draw: Draw
) -> None:
    chosen = opened(drawn_folder, spec, limit=9)
    assert len(chosen.files) in (8, 9)
    assert len(chosen.pair_files) == 4
    assert names(chosen) == names(opened(copied, spec, limit=9))
    assert [id_ for id_ in names(chosen) if id_.endswith("left.png")] != [
        f"{pair}_left.png" for pair in range(4)
    ], "spread over the folder, not its first files"
    draw(copied / "10_left.png", seed=500)
    draw(copied / "10_right.png", seed=501)
    kept = set(names(chosen)) & set(names(opened(copied, spec, limit=9)))
    assert len(kept) >= 6, "one more pair in the folder displaces at most one"
    assert names(opened(drawn_folder, spec, limit=100)) == names(opened(drawn_folder, spec))


def test_an_ungradable_photograph_is_left_out_counted_and_reported(
    copied: Path, spec: PreprocessSpec, draw: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    draw(copied / "4_right.png", black=True)
    with caplog.at_level(logging.WARNING):
        images = opened(copied, spec)
    assert sum(images.ungradable.values()) == 1
    (reason,) = images.ungradable
    assert f"1 of 21 photographs are ungradable, left out: {reason} 1" in caplog.text
    assert "4_left.png" in names(images), "its partner is still an eye"
    assert "4" not in [left.pair_id for left, _ in images.pair_files]
    assert "4_right" not in caplog.text, "logs name no patient"


def test_a_folder_that_is_mostly_ungradable_is_refused(
    copied: Path, spec: PreprocessSpec, draw: Draw
) -> None:
    for pair in range(6):
        for eye in ("left", "right"):
            draw(copied / f"{pair}_{eye}.png", black=True)
    with pytest.raises(ExportError, match=r"12 of 21 photographs .* cannot be graded \(\w+ 12\)"):
        opened(copied, spec)


def test_all_unreadable_photographs_are_named_at_once(copied: Path, spec: PreprocessSpec) -> None:
    whole = (copied / "1_left.png").read_bytes()
    (copied / "1_left.png").write_bytes(whole[: len(whole) // 2])
    (copied / "2_right.png").write_bytes(b"no picture at all")
    (copied / "3_left.png").write_bytes(b"")
    (copied / "macula.PNG").unlink()
    (copied / "macula.PNG").mkdir()
    with pytest.raises(ExportError) as refused:
        opened(copied, spec)
    message = str(refused.value)
    assert "4 of 21 photographs" in message
    for name in ("1_left.png", "2_right.png", "3_left.png", "macula.PNG"):
        assert name in message
    assert "Replace them" in message


def test_of_many_unreadable_photographs_a_few_are_named(copied: Path, spec: PreprocessSpec) -> None:
    for path in copied.glob("*_left.png"):
        path.write_bytes(b"GIF89a")
    with pytest.raises(ExportError, match=r"10 of 21 .*; and 5 more\. Replace"):
        opened(copied, spec)


def test_a_picture_of_another_kind_that_is_named_as_an_eye_is_refused(
    copied: Path, spec: PreprocessSpec
) -> None:
    (copied / "1_left.png").rename(copied / "1_left.tif")
    (copied / "1_left.tif").write_bytes(b"II*\0")
    with pytest.raises(ExportError, match=r"1_left\.tif"):
        opened(copied, spec)


def test_two_files_for_one_eye_are_refused(copied: Path, spec: PreprocessSpec) -> None:
    shutil.copy(copied / "5_left.png", copied / "5_left.jpeg")
    with pytest.raises(ExportError, match=r"5_left\.jpeg and 5_left\.png; keep one"):
        opened(copied, spec)


def test_a_folder_that_is_missing_or_a_file_is_refused(copied: Path, spec: PreprocessSpec) -> None:
    for folder in (copied / "nowhere", copied / "list.csv"):
        with pytest.raises(ExportError, match=rf"{folder.name} is no folder .*; give a folder of"):
            opened(folder, spec)


def test_a_folder_without_photographs_is_refused(tmp_path: Path, spec: PreprocessSpec) -> None:
    with pytest.raises(ExportError, match="holds no JPEG or PNG photograph"):
        opened(tmp_path, spec)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "odir").mkdir()
    (tmp_path / ".1_left.png").write_bytes(b"half copied")
    with pytest.raises(ExportError, match=r"3 other files and folders; folders are not searched"):
        opened(tmp_path, spec)


def test_too_few_photographs_are_refused_with_what_is_there(
    drawn_folder: Path, spec: PreprocessSpec
) -> None:
    for minimum in (Minimum(22, 1, "min-max"), Minimum(2, 11, "min-max")):
        with pytest.raises(ExportError, match="21 different gradable photographs, 10 pairs") as got:
            opened(drawn_folder, spec, minimum=minimum)
        expected = f"min-max needs at least {minimum.eyes} eyes, {minimum.pairs} pairs"
        assert expected in str(got.value)


def test_copies_of_a_photograph_count_once(
    tmp_path: Path, spec: PreprocessSpec, draw: Draw
) -> None:
    for pair in range(4):
        draw(tmp_path / f"{pair}_left.png", seed=1)
        shutil.copy(tmp_path / f"{pair}_left.png", tmp_path / f"{pair}_right.png")
    with pytest.raises(ExportError, match="1 different gradable photographs, 0 pairs"):
        opened(tmp_path, spec)


def test_a_limit_below_the_minimum_is_refused_before_anything_is_read(
    copied: Path, spec: PreprocessSpec
) -> None:
    (copied / "1_left.png").write_bytes(b"unreadable")
    with pytest.raises(ExportError, match=r"the limit is 4 photographs, but .* 8 eyes"):
        opened(copied, spec, minimum=Minimum(8, 2), limit=4)


@pytest.mark.parametrize("how", ["another", "gone"])
def test_a_photograph_that_changes_meanwhile_is_noticed(
    copied: Path, spec: PreprocessSpec, draw: Draw, how: str
) -> None:
    images = opened(copied, spec)
    if how == "gone":
        (copied / "0_right.png").unlink()
    else:
        draw(copied / "0_right.png", seed=99)
    eyes = images.eyes()
    next(eyes)
    with pytest.raises(ExportError, match=r"0_right\.png changed while it was calibrated with"):
        next(eyes)


def test_the_bundles_own_spec_decides_what_the_network_sees(
    drawn_folder: Path, spec: PreprocessSpec
) -> None:
    other = replace(spec, illumination_gain=3.0)
    images, changed = opened(drawn_folder, spec), opened(drawn_folder, other)
    assert images.sha256 == changed.sha256
    assert not np.array_equal(next(images.eyes()), next(changed.eyes()))


def test_progress_is_shown_unless_it_is_not_wanted(
    drawn_folder: Path, spec: PreprocessSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(drawn_folder, spec)
    assert capsys.readouterr().err == ""
    open_calibration_images(drawn_folder, spec, minimum=FEW)
    shown = capsys.readouterr()
    assert re.search(r"reading photographs.*21/21", shown.err, re.DOTALL)
    assert shown.out == ""


def test_a_file_is_named_in_the_record_as_in_the_folder(images: CalibrationImages) -> None:
    assert all(isinstance(file, ImageFile) and file.path.name == file.name for file in images.files)
