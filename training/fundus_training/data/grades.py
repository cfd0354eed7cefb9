"""Pairs graded for diabetic retinopathy, for evaluation on another camera alone.

The layout is that of a `labels.csv` with the columns patient, left_dr_grade, right_dr_grade and
optionally left_quality_eyeq, right_quality_eyeq, beside `<patient>_left.*` and `<patient>_right.*`
(the Kaggle EyePACS set with EyeQ's quality labels). Grades are 0 to 4; 2 and above is referable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from fundus_runtime.labels import EYES, Eye
from fundus_training.data.tables import Row, Table, few, read_table
from fundus_training.errors import DataError

__all__ = ["GradedPair", "Quality", "load_dr_grades"]

Quality = Literal["good", "usable", "reject"]

_QUALITIES = ("good", "usable", "reject")
_GRADES = ("0", "1", "2", "3", "4")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


@dataclass(frozen=True)
class GradedPair:
    """A patient with a DR grade for each eye.

    Attributes:
        id: the patient.
        left: photograph of the left eye.
        right: photograph of the right eye.
        left_grade: DR grade 0 to 4.
        right_grade: DR grade 0 to 4.
        left_quality: EyeQ's judgement, or None where there is none.
        right_quality: EyeQ's judgement, or None where there is none.
    """

    id: str
    left: Path
    right: Path
    left_grade: int
    right_grade: int
    left_quality: Quality | None = None
    right_quality: Quality | None = None

    @property
    def grade(self) -> int:
        """The worse eye's grade, which decides on referral."""
        return max(self.left_grade, self.right_grade)


def load_dr_grades(folder: str | Path) -> tuple[GradedPair, ...]:
    """Read all graded pairs of a folder.

    Raises:
        DataError: no `labels.csv`, columns or photographs are missing, ids repeat, or a grade or
            quality is not one of those above.
    """
    path = Path(folder) / "labels.csv"
    if not path.is_file():
        raise DataError(
            f"{folder} has no labels.csv; expected one with patient, left_dr_grade, right_dr_grade"
        )
    table = read_table(path)
    table.need(["patient", "left_dr_grade", "right_dr_grade"])
    missing: list[str] = []
    pairs = tuple(_pair_of(table, row, missing) for row in table.rows)
    if missing:
        raise DataError(f"{path} names {len(missing)} photographs that lack: {few(missing)}")
    if len({pair.id for pair in pairs}) != len(pairs):
        raise DataError(f"{path} has patients more than once; one row a patient is expected")
    return pairs


def _pair_of(table: Table, row: Row, missing: list[str]) -> GradedPair:
    patient = _cell(table, row, "patient")
    paths = {eye: _photograph(table.path.parent, patient, eye) for eye in EYES}
    missing.extend(f"{patient}_{eye}" for eye, path in paths.items() if path is None)
    return GradedPair(
        patient,
        paths["left"] or Path(),
        paths["right"] or Path(),
        _grade_of(table, row, "left_dr_grade"),
        _grade_of(table, row, "right_dr_grade"),
        _quality_of(table, row, "left_quality_eyeq"),
        _quality_of(table, row, "right_quality_eyeq"),
    )


def _cell(table: Table, row: Row, name: str) -> str:
    return row.cells.get(table.find(name) or "", "")


def _photograph(folder: Path, patient: str, eye: Eye) -> Path | None:
    names = (folder / f"{patient}_{eye}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in names if path.is_file()), None)


def _grade_of(table: Table, row: Row, name: str) -> int:
    cell = _cell(table, row, name)
    if cell not in _GRADES:
        raise DataError(f"{table.path}, line {row.line}: {name} is {cell!r}, expected 0 to 4")
    return int(cell)


def _quality_of(table: Table, row: Row, name: str) -> Quality | None:
    cell = _cell(table, row, name).casefold()
    if cell and cell not in _QUALITIES:
        raise DataError(
            f"{table.path}, line {row.line}: {name} is {cell!r}, expected one of {_QUALITIES}"
        )
    return cast(Quality, cell) if cell else None
