"""A plain CSV with the user's own labels, graded pairs, and smaller data sets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from fundus_runtime.labels import ODIR_CLASSES, ClassList
from fundus_training.data.grades import load_dr_grades
from fundus_training.data.records import PatientRecord, RecordSet, limit_records, load_records
from fundus_training.errors import ConfigError, DataError

Make = Callable[..., Path]


@pytest.fixture
def photographs(tmp_path: Path, make_fundus: Make) -> Path:
    for patient in "abc":
        for eye in ("left", "right"):
            make_fundus(tmp_path / "eyes" / f"{patient}_{eye}.png")
    return tmp_path


def eyes(patient: str) -> list[str]:
    return [f"eyes/{patient}_left.png", f"eyes/{patient}_right.png"]


def test_label_columns_and_paths_are_found(photographs: Path, make_table: Make) -> None:
    header = ["id", "left", "right", "normal", "drusen", "camera", "age", "sex"]
    rows = [["x", *eyes("a"), 1, 0, "K", 55, "F"], ["y", *eyes("b"), 0, 1, "K", 0, ""]]
    make_table(photographs / "mine.csv", [header, *rows])
    records = load_records(photographs)
    assert records.layout == "plain-csv"
    assert records.classes == ClassList(("normal", "drusen"), ("normal", "drusen"), "normal")
    first, second = records.records
    assert (first.id, first.labels, first.age, first.sex) == ("x", (1, 0), 55, "f")
    assert first.left == photographs / "eyes" / "a_left.png"
    assert (second.age, second.sex, second.left_labels) == (None, None, None)


def test_a_class_list_chooses_columns_and_their_order(photographs: Path, make_table: Make) -> None:
    table = [["left", "right", "p", "q", "r"], [*eyes("a"), 0, 1, 1]]
    file = make_table(photographs / "mine.csv", table)
    records = load_records(file, classes=["r", "p"])
    assert records.classes.letters == ("r", "p")
    assert records.records[0].labels == (1, 0)
    named = ClassList(("q",), ("quite rare",))
    assert load_records(file, classes=named).classes is named
    assert load_records(file, classes=["r", " p"]).classes.letters == ("r", "p")
    with pytest.raises(DataError, match=r"lacks the columns \['z'\]"):
        load_records(file, classes=["z"])
    with pytest.raises(ConfigError, match="must differ"):
        load_records(file, classes=["p", "p"])


def test_odirs_letters_keep_their_meaning(photographs: Path, make_table: Make) -> None:
    table = [["left", "right", *"NDGCAHMO"], [*eyes("a"), 1, 0, 0, 0, 0, 0, 0, 0]]
    assert load_records(make_table(photographs / "m.csv", table)).classes == ODIR_CLASSES


def test_a_class_that_counts_as_normal_is_pointed_out(
    photographs: Path, make_table: Make, caplog: pytest.LogCaptureFixture
) -> None:
    table = [["left", "right", "N", "k"], [*eyes("a"), 1, 0]]
    assert load_records(make_table(photographs / "m.csv", table)).classes.normal == "N"
    assert "column 'N' is taken to mean that nothing was found" in caplog.text


def test_a_patient_may_have_one_eye(photographs: Path, make_table: Make) -> None:
    rows = [["left", "right", "k"], ["", eyes("a")[1], 1], [eyes("b")[0], "", 0]]
    first, second = load_records(make_table(photographs / "m.csv", rows)).records
    assert first.left is None
    assert first.right is not None
    assert second.right is None


def test_a_patient_without_any_eye_is_refused(photographs: Path, make_table: Make) -> None:
    rows = [["left", "right", "k"], [*eyes("a"), 1], ["", "", 1]]
    with pytest.raises(DataError, match="line 3 has no photograph"):
        load_records(make_table(photographs / "m.csv", rows))


def test_without_ids_the_file_names_are_used(photographs: Path, make_table: Make) -> None:
    rows = [["left", "right", "k"], [*eyes("a"), 1], ["", eyes("c")[1], 1]]
    found = [r.id for r in load_records(make_table(photographs / "m.csv", rows)).records]
    assert found == ["a", "c"]


def test_missing_photographs_are_counted_and_named(photographs: Path, make_table: Make) -> None:
    rows = [["left", "right", "k"], [*eyes("a"), 1], [*eyes("z"), 1]]
    with pytest.raises(DataError, match=r"2 photographs.*line 3 \(left\): eyes/z_left.png"):
        load_records(make_table(photographs / "m.csv", rows))


def test_repeated_and_empty_ids_are_refused(photographs: Path, make_table: Make) -> None:
    rows = [["id", "left", "right", "k"], ["1", *eyes("a"), 1], ["1", *eyes("b"), 1]]
    with pytest.raises(DataError, match="more than once"):
        load_records(make_table(photographs / "m.csv", rows))
    rows[2][0] = ""
    with pytest.raises(DataError, match="line 3 has no id"):
        load_records(make_table(photographs / "m.csv", rows))


def test_a_wrong_cell_does_not_lose_a_label_column(photographs: Path, make_table: Make) -> None:
    rows = [["left", "right", "k"], [*eyes("a"), 1], [*eyes("b"), 2]]
    with pytest.raises(DataError, match="line 3: label k is '2'"):
        load_records(make_table(photographs / "m.csv", rows))


def test_a_table_without_labels_is_refused(photographs: Path, make_table: Make) -> None:
    rows = [["left", "right", "note"], [*eyes("a"), "fine"]]
    with pytest.raises(DataError, match=r"no label column.*\['note'\]"):
        load_records(make_table(photographs / "m.csv", rows))


def test_semicolons_separate_where_there_are_no_commas(photographs: Path) -> None:
    text = "left;right;k\n" + ";".join([*eyes("a"), "1"])
    (photographs / "m.csv").write_text(text, "utf-8")
    assert load_records(photographs).records[0].labels == (1,)


def test_several_tables_in_a_folder_are_refused(photographs: Path, make_table: Make) -> None:
    for name in ("m.csv", "n.csv"):
        make_table(photographs / name, [["left", "right", "k"], [*eyes("a"), 1]])
    with pytest.raises(DataError, match="several CSV files"):
        load_records(photographs)


def test_a_photograph_of_two_patients_is_warned_of(
    photographs: Path, make_table: Make, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [["id", "left", "right", "k"], ["1", *eyes("a"), 1], ["2", *eyes("a"), 1]]
    with caplog.at_level(logging.WARNING):
        load_records(make_table(photographs / "m.csv", rows))
    assert "2 photographs are used more than once" in caplog.text


def cohort(count: int) -> RecordSet:
    records = tuple(
        PatientRecord(str(i), Path(f"{i}l"), Path(f"{i}r"), (int(i % 4 == 0), int(i % 10 == 0)))
        for i in range(count)
    )
    return RecordSet(records, ClassList(("p", "q"), ("p", "q")), "plain-csv", Path())


def test_a_limit_keeps_the_mix_of_labels() -> None:
    kept = limit_records(cohort(200), 40).records
    assert len(kept) == 40
    assert abs(sum(r.labels[0] for r in kept) - 10) <= 2
    assert abs(sum(r.labels[1] for r in kept) - 4) <= 2


def test_a_limit_takes_the_same_patients_whatever_the_order() -> None:
    records = cohort(100)
    backwards = RecordSet(records.records[::-1], records.classes, records.layout, records.root)
    kept = [r.id for r in limit_records(records, 16).records]
    assert sorted(kept) == sorted(r.id for r in limit_records(backwards, 16).records)
    assert kept == sorted(kept, key=int)


def test_a_limit_beyond_the_data_keeps_all_and_none_is_refused() -> None:
    assert limit_records(cohort(5), 9) == cohort(5)
    with pytest.raises(ConfigError, match="limit of 0"):
        limit_records(cohort(5), 0)


GRADES = ["patient", "left_dr_grade", "right_dr_grade", "left_quality_eyeq", "right_quality_eyeq"]


def test_graded_pairs_are_read(photographs: Path, make_table: Make) -> None:
    folder = photographs / "eyes"
    make_table(folder / "labels.csv", [GRADES, ["a", 0, 3, "good", ""], ["b", 1, 0, "", "reject"]])
    first, second = load_dr_grades(folder)
    assert (first.left_grade, first.right_grade, first.grade) == (0, 3, 3)
    assert (first.left_quality, first.right_quality) == ("good", None)
    assert second.right == folder / "b_right.png"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["a", 5, 0, "", ""], "left_dr_grade is '5'"),
        (["a", 0, "", "", ""], "right_dr_grade is ''"),
        (["a", 0, 0, "bad", ""], "left_quality_eyeq is 'bad'"),
        (["z", 0, 0, "", ""], "2 photographs that lack: z_left; z_right"),
    ],
)
def test_wrong_grades_are_named(
    photographs: Path, make_table: Make, row: list[object], message: str
) -> None:
    make_table(photographs / "eyes" / "labels.csv", [GRADES, row])
    with pytest.raises(DataError, match=message):
        load_dr_grades(photographs / "eyes")


def test_a_folder_without_grades_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no labels\.csv"):
        load_dr_grades(tmp_path)


def test_the_real_grades_load(fundus_data: Path) -> None:
    pairs = load_dr_grades(fundus_data / "eyepacs")
    assert len(pairs) > 500
    assert {pair.grade for pair in pairs} == {0, 1, 2, 3, 4}
