"""A plain CSV of one's own: columns left, right, the labels, and optionally id, age and sex.

Paths are relative to the CSV. A patient may have one eye alone: the other cell is then empty. The
labels are the patient's; nothing is assumed of a single eye.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from fundus_runtime.errors import FundusError
from fundus_runtime.labels import EYES, ODIR_CLASSES, ClassList, Eye
from fundus_training.data.odir import label_of_cell
from fundus_training.data.patients import PatientRecord, RecordSet
from fundus_training.data.tables import Row, Table, column_key, few, read_columns, read_table
from fundus_training.errors import ConfigError, DataError

__all__ = ["find_plain_csv", "read_plain_csv"]

_LOG = logging.getLogger(__name__)

_OTHER_COLUMNS = frozenset({"id", "left", "right", "age", "sex", "patient", "patientid"})
_ZERO_ONE = frozenset({"0", "1", "0.0", "1.0"})


def find_plain_csv(path: Path) -> Path | None:
    """The CSV with the columns left and right: the file itself, or the only one in a folder.

    Raises:
        DataError: a folder holds several.
    """
    if path.is_file():
        return path if _has_eyes(path) else None
    found = [file for file in sorted(path.iterdir()) if _has_eyes(file)]
    if len(found) > 1:
        raise DataError(
            f"{path} has several CSV files with the columns left and right "
            f"({few(file.name for file in found)}); give the one to use"
        )
    return found[0] if found else None


def read_plain_csv(path: Path, classes: ClassList | Sequence[str] | None = None) -> RecordSet:
    """Read every patient of a plain CSV.

    Args:
        path: the CSV.
        classes: label columns in order; by default all columns of 0 and 1.

    Raises:
        DataError: see `load_records`.
        ConfigError: the class list itself is wrong.
    """
    table = read_table(path)
    eyes = table.need(EYES)
    class_list = classes if isinstance(classes, ClassList) else _class_list(table, classes)
    labels = tuple(table.need(class_list.letters).values())
    missing: list[str] = []
    records = tuple(_record_of(table, row, eyes, labels, missing) for row in table.rows)
    if missing:
        raise DataError(
            f"{path} names {len(missing)} photographs that are not there: {few(missing)}. "
            "Paths are relative to the CSV; leave a cell empty where an eye has no photograph"
        )
    return RecordSet(records, class_list, "plain-csv", path.parent)


def _has_eyes(file: Path) -> bool:
    if file.suffix.lower() != ".csv" or not file.is_file():
        return False
    keys = {column_key(column) for column in read_columns(file)}
    return {"left", "right"} <= keys


def _class_list(table: Table, letters: Sequence[str] | None) -> ClassList:
    chosen = _label_columns(table) if letters is None else tuple(one.strip() for one in letters)
    if set(chosen) == set(ODIR_CLASSES.letters):
        names = tuple(ODIR_CLASSES.name_of(letter) for letter in chosen)
        return ClassList(chosen, names, ODIR_CLASSES.normal)
    normal = next((c for c in chosen if c.casefold() in ("n", "normal")), None)
    if normal is not None:
        _LOG.warning(
            "%s: column %r is taken to mean that nothing was found, so that a patient may end as "
            "normal by it; rename it if it means anything else",
            table.path,
            normal,
        )
    try:
        return ClassList(chosen, chosen, normal)
    except FundusError as error:
        raise ConfigError(f"these classes cannot be used: {error}") from error


def _label_columns(table: Table) -> tuple[str, ...]:
    """All columns of 0 and 1; one that is nearly so is an error rather than a lost class."""
    chosen: list[str] = []
    for column in table.columns:
        if column_key(column) in _OTHER_COLUMNS:
            continue
        good = sum(row.cells[column] in _ZERO_ONE for row in table.rows)
        if 2 * good >= len(table.rows):
            chosen.append(column)
        else:
            _LOG.info("%s: column %r is no label, since it is not 0 or 1", table.path, column)
    if not chosen:
        raise DataError(
            f"{table.path} has no label column: besides left, right and id it has "
            f"{[c for c in table.columns if column_key(c) not in _OTHER_COLUMNS]}; "
            "expected at least one column of 0 and 1"
        )
    return tuple(chosen)


def _record_of(
    table: Table, row: Row, eyes: dict[str, str], labels: Sequence[str], missing: list[str]
) -> PatientRecord:
    paths = {eye: _path_of(table, row, eyes[eye], eye, missing) for eye in EYES}
    if paths["left"] is None and paths["right"] is None:
        raise DataError(f"{table.path}, line {row.line} has no photograph; give at least one eye")
    age = row.cells.get(table.find("age") or "", "")
    return PatientRecord(
        id=_id_of(table, row, paths),
        left=paths["left"],
        right=paths["right"],
        labels=tuple(label_of_cell(table, row, column) for column in labels),
        age=int(age) if age.isdigit() and int(age) > 1 else None,
        sex=row.cells.get(table.find("sex") or "", "").casefold() or None,
    )


def _path_of(table: Table, row: Row, column: str, eye: Eye, missing: list[str]) -> Path | None:
    cell = row.cells[column]
    if not cell:
        return None
    path = table.path.parent / cell
    if not path.is_file():
        missing.append(f"line {row.line} ({eye}): {cell}")
    return path


def _id_of(table: Table, row: Row, paths: dict[Eye, Path | None]) -> str:
    """The id column; without one, the name that both photographs share, else the first one's."""
    column = table.find("id") or table.find("patient_id") or table.find("patient")
    if column is not None:
        if not row.cells[column]:
            raise DataError(f"{table.path}, line {row.line} has no id; give every patient one")
        return row.cells[column]
    eye, path = next((eye, path) for eye, path in paths.items() if path is not None)
    return path.stem.removesuffix(eye).rstrip("_-. ") or path.stem
