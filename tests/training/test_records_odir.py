"""ODIR's layouts are recognised and read, and what is wrong with them is named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fundus_runtime.labels import ODIR_CLASSES
from fundus_training.data.records import load_records
from fundus_training.errors import ConfigError, DataError

Make = Callable[..., Path]
Row = Callable[..., list[object]]

CHALLENGE = "ODIR-5K_Training_Annotations(Updated)_V2.xlsx"


def test_the_csv_copy_is_read(tmp_path: Path, make_odir: Make, row_of: Row) -> None:
    rows = [row_of(7, "cataract", "normal fundus", "C"), row_of(8)]
    make_odir(tmp_path / "annotations.csv", tmp_path / "images", rows)
    records = load_records(tmp_path)
    first = records.records[0]
    assert (records.layout, records.classes, len(records)) == ("odir-csv", ODIR_CLASSES, 2)
    assert (first.id, first.age, first.sex) == ("7", 60, "female")
    assert first.left == tmp_path / "images" / "7_left.jpg"
    assert first.labels == (0, 0, 0, 1, 0, 0, 0, 0)
    assert first.left_labels == (0, 0, 0, 1, 0, 0, 0, 0)
    assert first.right_labels == (1, 0, 0, 0, 0, 0, 0, 0)


def test_the_challenge_release_is_read(tmp_path: Path, make_odir: Make, row_of: Row) -> None:
    images = tmp_path / "ODIR-5K_Training_Images" / "ODIR-5K_Training_Dataset"
    rows = [row_of(3, "glaucoma，drusen", "drusen", "GO"), row_of(4)]
    make_odir(tmp_path / CHALLENGE, images, rows)
    records = load_records(tmp_path)
    assert records.layout == "odir-challenge"
    assert records.records[0].labels == (0, 0, 1, 0, 0, 0, 0, 1)
    assert records.records[0].left_labels == (0, 0, 1, 0, 0, 0, 0, 1)
    assert records.records[1].left == images / "4_left.jpg"


def test_all_three_sets_of_oia_odir_are_read(
    tmp_path: Path, make_odir: Make, make_table: Make, row_of: Row
) -> None:
    sets = {"Training Set": 1, "Off-site Test Set": 2, "On-site Test Set": 3}
    for name, patient in sets.items():
        annotation = tmp_path / name / "Annotation"
        file = f"{name.lower().removesuffix(' set')} annotation (English).xlsx"
        make_odir(annotation / file, tmp_path / name / "Images", [row_of(patient)])
        make_table(annotation / "annotation (Chinese).xlsx", [["编号"], [patient]])
    records = load_records(tmp_path)
    assert records.layout == "oia-odir"
    found = {record.id: record.subset for record in records.records}
    assert found == {"1": "training set", "2": "off-site test set", "3": "on-site test set"}


def test_one_set_of_oia_odir_can_be_given_alone(
    tmp_path: Path, make_odir: Make, row_of: Row
) -> None:
    folder = tmp_path / "On-site_Test_Set"
    make_odir(folder / "annotation" / "labels.xlsx", folder / "IMAGES", [row_of(5)])
    assert load_records(folder).records[0].subset == "on-site test set"


def test_an_annotation_file_can_be_given_itself(
    tmp_path: Path, make_odir: Make, row_of: Row
) -> None:
    make_odir(tmp_path / "mine.csv", tmp_path / "photos", [row_of(5)])
    assert load_records(tmp_path / "mine.csv").layout == "odir-csv"


def test_a_byte_order_mark_and_other_capitals_do_not_matter(
    tmp_path: Path, make_odir: Make, row_of: Row
) -> None:
    table = make_odir(tmp_path / "Labels.CSV", tmp_path / "Images", [row_of(5, "cataract")])
    text = table.read_text("utf-8")
    table.write_text(text.replace("Left-Fundus", "left fundus").replace("ID,", "id,"), "utf-8-sig")
    assert load_records(tmp_path).records[0].left_labels == (0, 0, 0, 1, 0, 0, 0, 0)


def test_photographs_of_another_kind_are_found_by_their_stem(
    tmp_path: Path, make_odir: Make, make_fundus: Make, row_of: Row
) -> None:
    table = make_odir(tmp_path / "a.csv", tmp_path / "images", [row_of(5)])
    (tmp_path / "images" / "5_left.jpg").unlink()
    make_fundus(tmp_path / "images" / "5_Left.PNG")
    assert load_records(table).records[0].left == tmp_path / "images" / "5_Left.PNG"


def test_the_folder_that_holds_the_named_photographs_is_chosen(
    tmp_path: Path, make_odir: Make, make_fundus: Make, row_of: Row
) -> None:
    make_odir(tmp_path / CHALLENGE, tmp_path / "Training Images", [row_of(5), row_of(6)])
    make_fundus(tmp_path / "Testing Images" / "937_left.jpg")
    make_fundus(tmp_path / "A preview" / "5_left.jpg")
    parents = {r.left.parent.name for r in load_records(tmp_path).records if r.left}
    assert parents == {"Training Images"}


def test_a_second_table_with_one_row_an_eye_is_not_mistaken_for_the_annotations(
    tmp_path: Path, make_odir: Make, make_table: Make, row_of: Row
) -> None:
    nested = tmp_path / "ODIR-5K" / "ODIR-5K"
    make_odir(nested / "data.xlsx", nested / "Training Images", [row_of(5)])
    header = ["ID", "Left-Fundus", "Right-Fundus", "filename"]
    rows = [[5, "5_left.jpg", "5_right.jpg", f"5_{eye}.jpg"] for eye in ("left", "right")]
    make_table(tmp_path / "full_df.csv", [header, *rows])
    assert load_records(tmp_path).layout == "odir-challenge"


@pytest.mark.parametrize(("cell", "age"), [(0, None), (1, None), ("", None), (2, 2), (67.0, 67)])
def test_placeholder_ages_are_not_ages(
    tmp_path: Path, make_odir: Make, row_of: Row, cell: object, age: int | None
) -> None:
    row = row_of(5)
    row[1] = cell
    table = make_odir(tmp_path / "a.csv", tmp_path / "images", [row])
    assert load_records(table).records[0].age == age


def test_missing_photographs_are_counted_and_the_first_named(
    tmp_path: Path, make_odir: Make, row_of: Row
) -> None:
    table = make_odir(tmp_path / "a.csv", tmp_path / "images", [row_of(i) for i in range(4)])
    for name in ("1_left.jpg", "3_right.jpg"):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(DataError, match=r"2 photographs.*line 3 \(patient 1, left\): 1_left.jpg"):
        load_records(table)


def test_an_id_in_two_sets_is_refused(tmp_path: Path, make_odir: Make, row_of: Row) -> None:
    for name in ("Training Set", "On-site Test Set"):
        folder = tmp_path / name
        make_odir(folder / "Annotation" / "a (English).xlsx", folder / "Images", [row_of(9)])
    with pytest.raises(DataError, match=r"1 ids occur more than once \(9\)"):
        load_records(tmp_path)


@pytest.mark.parametrize("cell", ["2", "", "yes", "-1", "0.5"])
def test_labels_other_than_0_and_1_are_refused(
    tmp_path: Path, make_odir: Make, row_of: Row, cell: str
) -> None:
    row = row_of(5)
    row[8] = cell
    table = make_odir(tmp_path / "a.csv", tmp_path / "images", [row])
    with pytest.raises(DataError, match=r"line 2: label D is .*expected 0 or 1"):
        load_records(table)


def test_a_missing_column_is_named(tmp_path: Path, make_odir: Make, row_of: Row) -> None:
    table = make_odir(tmp_path / "a.csv", tmp_path / "images", [row_of(5)])
    table.write_text(table.read_text("utf-8").replace(",H,M,O", ",X,M,O"), "utf-8")
    with pytest.raises(DataError, match=r"lacks the columns \['H'\]"):
        load_records(table)


def test_a_row_without_id_is_refused(tmp_path: Path, make_odir: Make, row_of: Row) -> None:
    row = row_of(5)
    table = make_odir(tmp_path / "a.csv", tmp_path / "images", [row])
    table.write_text(table.read_text("utf-8").replace("\n5,", "\n,"), "utf-8")
    with pytest.raises(DataError, match="line 2 has no ID"):
        load_records(table)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"<html>not found</html>"])
def test_an_unreadable_workbook_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHALLENGE).write_bytes(content)
    with pytest.raises(DataError, match="not a readable XLSX workbook"):
        load_records(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        ("ID,Left-Fundus,Right-Fundus\n1,眼,眼".encode("gbk"), "not UTF-8"),
        ("ID,Left-Fundus,Right-Fundus\n".encode("utf-16"), "not UTF-8"),
        (b"ID,Left-Fundus,Right-Fundus\n", "no row"),
        (b"ID,Left-Fundus,Right-Fundus,id\n1,a,b,2\n", "more than once"),
        (b'ID,Left-Fundus,Right-Fundus\n1,"a,b\n', "no valid CSV"),
        (b"ID,Left-Fundus,Right-Fundus\n1,a,b,c\n", "line 2 has 4 cells"),
    ],
)
def test_a_broken_csv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "annotations.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_records(tmp_path / "annotations.csv")


def test_without_openpyxl_the_error_names_the_extra(
    tmp_path: Path, make_odir: Make, row_of: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_odir(tmp_path / CHALLENGE, tmp_path / "images", [row_of(5)])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"fundus-edge\[train\]"):
        load_records(tmp_path)


def test_a_folder_without_annotations_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)odir-challenge.*oia-odir.*odir-csv.*plain-csv"):
        load_records(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_records(tmp_path / "nowhere")


def test_odir_has_its_own_classes(tmp_path: Path, make_odir: Make, row_of: Row) -> None:
    table = make_odir(tmp_path / "a.csv", tmp_path / "images", [row_of(5)])
    assert load_records(table, classes="NDGCAHMO").classes == ODIR_CLASSES
    with pytest.raises(ConfigError, match="odir-csv"):
        load_records(table, classes=["D", "N"])


def test_the_real_collection_loads(fundus_data: Path) -> None:
    records = load_records(fundus_data / "odir")
    assert records.layout == "odir-csv"
    assert all(r.left and r.right and r.left_labels and r.right_labels for r in records.records)
    assert sum(record.age is None for record in records.records) < 0.01 * len(records)
