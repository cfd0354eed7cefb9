"""The bundle that ships: known by its hash, small, and answering here as it was validated."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from fundus_runtime.bundle import Bundle
from fundus_runtime.commands.screen import main
from fundus_runtime.errors import BundleError
from fundus_runtime.golden import check_golden
from fundus_runtime.labels import ODIR_CLASSES
from fundus_runtime.shipped import default_bundle, shipped_places

LARGEST_MB = 32
# every sixth patient of the collection: about four hundred
STRIDE = 6


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    places = [place for place in shipped_places() if place.is_dir()]
    return Bundle.open(places[0])


def test_it_is_the_default_and_trusted(shipped: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUNDUS_BUNDLE", raising=False)
    assert default_bundle() == shipped.path
    assert shipped.trust == "shipped"
    assert shipped.manifest.classes == ODIR_CLASSES


def test_a_flipped_bit_in_any_of_its_files_is_refused(shipped: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped.path, tmp_path / "edge"))
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert Bundle.open(copy).trust == "shipped"
    for file in files:
        data = file.read_bytes()
        altered = bytearray(data)
        altered[len(data) // 3] ^= 0x10
        file.write_bytes(altered)
        with pytest.raises(BundleError, match=re.escape(file.relative_to(copy).as_posix())):
            Bundle.open(copy)
        file.write_bytes(data)
    assert Bundle.open(copy).trust == "shipped"


def test_it_fits_on_a_robot(shipped: Bundle) -> None:
    files = [path for path in shipped.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_MB * 1e6
    assert "checkpoint.safetensors" in shipped.manifest.files


def test_it_answers_its_golden_pairs(shipped: Bundle) -> None:
    report = check_golden(shipped)
    assert report is not None
    assert report.passed, report


def test_it_says_what_it_is_not(shipped: Bundle) -> None:
    card = shipped.file("MODEL_CARD.md").read_text("utf-8")
    for words in ("Not a medical device", "research", "ODIR-5K", "95 %"):
        assert words in card


def test_it_was_validated_on_enough_patients(shipped: Bundle) -> None:
    reports = shipped.manifest.reported["metrics"]["evaluations"]
    validation = next(r for r in reports if r["data"].get("split") == "val")
    assert validation["data"]["patients"] >= 400
    assert validation["patient"]["challenge_score"]["value"] >= 0.76


def test_nearly_every_real_pair_can_be_screened(
    shipped: Bundle, fundus_data: Path, tmp_path: Path
) -> None:
    images = fundus_data / "odir" / "images"
    ids = sorted({path.name.rsplit("_", 1)[0] for path in images.glob("*_left.*")})[::STRIDE]
    folder = tmp_path / "pairs"
    folder.mkdir()
    for patient in ids:
        for eye in ("left", "right"):
            (folder / f"{patient}_{eye}.jpg").symlink_to(images / f"{patient}_{eye}.jpg")
    out = tmp_path / "out.csv"
    assert main(["--pairs", str(folder), "--csv", str(out), "--bundle", str(shipped.path)]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["pair"] for row in rows] == sorted(ids, key=int)
    assert sum(row["status"] == "ok" for row in rows) >= 0.97 * len(ids)
    for row in rows:
        screened = row["status"] == "ok"
        assert all(bool(row[letter]) == screened for letter in ODIR_CLASSES.letters)
        assert row["refer"] == json.dumps(row["outcome"] != "normal")
