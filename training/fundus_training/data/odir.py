"""ODIR-5K annotations in the challenge's layout, OIA-ODIR's, and as a CSV copy.

File and folder names follow the two public releases (ODIR-5K 2019, odir2019.grand-challenge.org,
and github.com/nkicsl/OIA-ODIR, "training annotation (English).xlsx" and its kin), but are found by
pattern, because copies rename them. All share the columns ID, Patient Age, Patient Sex,
Left-Fundus, Right-Fundus, Left-/Right-Diagnostic Keywords and N D G C A H M O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fundus_runtime.labels import EYES, ODIR_CLASSES, Eye
from fundus_training.data.keywords import labels_from_keywords
from fundus_training.data.patients import PatientRecord, RecordSet
from fundus_training.data.tables import TABLE_SUFFIXES, Row, Table, few, read_columns, read_table
from fundus_training.data.tables import column_key as key_of
from fundus_training.errors import DataError

__all__ = ["AnnotatedFolder", "Release", "find_release", "label_of_cell", "read_release"]

PHOTOGRAPH_SUFFIXES = (".jpg", ".jpeg", ".png")

_FILES: dict[Eye, str] = {"left": "Left-Fundus", "right": "Right-Fundus"}
_KEYWORDS: dict[Eye, str] = {
    "left": "Left-Diagnostic Keywords",
    "right": "Right-Diagnostic Keywords",
}
_COLUMNS = ("ID", *_FILES.values(), *_KEYWORDS.values(), *ODIR_CLASSES.letters)
# Enough to say "this is meant to be ODIR"; what else is missing is then an error with a name.
_SIGNATURE = frozenset({key_of("ID"), *(key_of(name) for name in _FILES.values())})
# A copy in circulation carries a second table with one row an eye beside the real one.
_ONE_ROW_AN_EYE = key_of("filename")


@dataclass(frozen=True)
class AnnotatedFolder:
    """One annotation file and the folder under which its photographs lie."""

    annotations: Path
    images_root: Path
    subset: str | None = None


@dataclass(frozen=True)
class Release:
    """An ODIR release that was found on disk."""

    layout: str
    root: Path
    folders: tuple[AnnotatedFolder, ...]


def find_release(path: Path) -> Release | None:
    """Recognise an ODIR layout.

    Args:
        path: a folder, or an annotation file with ODIR's columns.

    Returns:
        What was found, or None where nothing looks like ODIR.
    """
    if path.is_file():
        return _release_of_file(path) if _has_signature(path) else None
    sets = _oia_sets(path)
    if sets:
        return Release("oia-odir", path, sets)
    candidates = [file for file in _tables_near(path) if _has_signature(file)]
    if not candidates:
        return None
    return _release_of_file(_the_one(candidates), root=path)


def read_release(release: Release) -> RecordSet:
    """Read every patient of a release.

    Raises:
        DataError: columns or photographs are missing, labels are not 0 or 1, ids repeat.
    """
    records = tuple(record for folder in release.folders for record in _read_folder(folder))
    return RecordSet(records, ODIR_CLASSES, release.layout, release.root)


def label_of_cell(table: Table, row: Row, column: str) -> int:
    """A cell as a 0/1 label.

    Raises:
        DataError: it is anything else.
    """
    cell = row.cells[column]
    if cell in ("0", "1", "0.0", "1.0"):
        return int(cell[0])
    raise DataError(
        f"{table.path}, line {row.line}: label {column} is {cell!r}, expected 0 or 1; correct it"
    )


def _release_of_file(file: Path, root: Path | None = None) -> Release:
    layout = "odir-csv" if file.suffix.lower() == ".csv" else "odir-challenge"
    base = root or file.parent
    return Release(layout, base, (AnnotatedFolder(file, base),))


def _oia_sets(root: Path) -> tuple[AnnotatedFolder, ...]:
    """The set folders below a root, or the root itself where it is one of them."""
    found = []
    for folder in [root, *_subfolders(root)]:
        children = {child.name.casefold(): child for child in _subfolders(folder)}
        annotation = children.get("annotation") or children.get("annotations")
        images = children.get("images")
        tables = _tables_in(annotation) if annotation is not None else []
        if tables and images is not None:
            subset = re.sub(r"[\s_]+", " ", folder.name).strip().casefold()
            found.append(AnnotatedFolder(_the_one(tables), images, subset))
    return tuple(found)


def _the_one(tables: list[Path]) -> Path:
    """The annotation file to use: English before Chinese, "annotation" in its name before not."""

    def preference(file: Path) -> tuple[bool, bool, int, str]:
        name = file.name.casefold()
        return "english" not in name, "annotation" not in name, len(file.parts), name

    return min(tables, key=preference)


def _tables_near(root: Path) -> list[Path]:
    return [file for folder in _folders_below(root, depth=2) for file in _tables_in(folder)]


def _tables_in(folder: Path) -> list[Path]:
    # "~$..." is the lock file that a spreadsheet program leaves beside an open workbook.
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in TABLE_SUFFIXES
        and file.is_file()
        and not file.name.startswith(("~$", "."))
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")
    )


def _has_signature(file: Path) -> bool:
    if file.suffix.lower() not in TABLE_SUFFIXES:
        return False
    keys = {key_of(column) for column in read_columns(file)}
    return keys >= _SIGNATURE and _ONE_ROW_AN_EYE not in keys


def _read_folder(folder: AnnotatedFolder) -> list[PatientRecord]:
    table = read_table(folder.annotations)
    columns = table.need(_COLUMNS)
    photographs = _Photographs.of(folder.images_root, table, columns)
    records = [_record_of(table, row, columns, photographs, folder.subset) for row in table.rows]
    photographs.refuse_missing(table)
    return records


def _record_of(
    table: Table,
    row: Row,
    columns: dict[str, str],
    photographs: _Photographs,
    subset: str | None,
) -> PatientRecord:
    patient = row.cells[columns["ID"]]
    if not patient:
        raise DataError(f"{table.path}, line {row.line} has no ID; give every patient one")
    paths = {
        eye: photographs.find(row, patient, eye, row.cells[columns[_FILES[eye]]]) for eye in EYES
    }
    keywords = {eye: labels_from_keywords(row.cells[columns[_KEYWORDS[eye]]]) for eye in EYES}
    return PatientRecord(
        id=patient,
        left=paths["left"],
        right=paths["right"],
        labels=tuple(label_of_cell(table, row, columns[name]) for name in ODIR_CLASSES.letters),
        left_labels=keywords["left"],
        right_labels=keywords["right"],
        age=_age_of(row.cells.get(table.find("Patient Age") or "", "")),
        sex=row.cells.get(table.find("Patient Sex") or "", "").casefold() or None,
        subset=subset,
    )


def _age_of(cell: str) -> int | None:
    """Years; the release fills unknown ages with 0 and 1, and no newborn was screened."""
    try:
        years = int(float(cell))
    except ValueError:
        return None
    return years if 1 < years < 130 else None


class _Photographs:
    """The folder that holds the photographs a table names, and which of them are not there."""

    def __init__(self, folder: Path, names: dict[str, Path]) -> None:
        self.folder = folder
        self._names = names
        self._missing: list[str] = []

    @classmethod
    def of(cls, root: Path, table: Table, columns: dict[str, str]) -> _Photographs:
        """The folder at most three levels below root that holds most of the named photographs.

        Copies carry resized or test photographs in folders beside the real ones; one folder is
        chosen for all rows, so that two kinds are never mixed.
        """
        wanted = {_stem(row.cells[columns[name]]) for row in table.rows for name in _FILES.values()}
        folders = [(folder, _photographs_in(folder)) for folder in _folders_below(root, depth=3)]

        def rank(entry: tuple[Path, dict[str, Path]]) -> tuple[int, bool, int, str]:
            folder, names = entry
            name = folder.name.casefold()
            return -len(wanted & names.keys()), "train" not in name, len(folder.parts), name

        return cls(*min(folders, key=rank))

    def find(self, row: Row, patient: str, eye: Eye, name: str) -> Path:
        """The photograph of that name; one that is missing is noted and refused at the end."""
        path = self._names.get(_stem(name)) if name else None
        if path is None:
            self._missing.append(f"line {row.line} (patient {patient}, {eye}): {name or 'no name'}")
            return self.folder / (name or "missing")
        return path

    def refuse_missing(self, table: Table) -> None:
        """Raise if any photograph was not there, with their count and the first few."""
        if self._missing:
            raise DataError(
                f"{table.path} names {len(self._missing)} photographs that are not in "
                f"{self.folder}: {few(self._missing)}. Add these files, or remove the rows"
            )


def _stem(name: str) -> str:
    """The name without folder, capitals and a photograph's suffix: copies re-encode."""
    base = re.split(r"[\\/]", name)[-1].casefold()
    stem, dot, suffix = base.rpartition(".")
    return stem if dot + suffix in PHOTOGRAPH_SUFFIXES else base


def _photographs_in(folder: Path) -> dict[str, Path]:
    files = (f for f in folder.iterdir() if f.suffix.lower() in PHOTOGRAPH_SUFFIXES)
    return {_stem(file.name): file for file in sorted(files)}


def _folders_below(root: Path, depth: int) -> list[Path]:
    found = [root]
    if depth:
        for child in _subfolders(root):
            found.extend(_folders_below(child, depth - 1))
    return found
