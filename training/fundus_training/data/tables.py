"""Annotation tables as text: CSV (UTF-8, with or without a byte-order mark) and XLSX.

A table is its columns and rows of trimmed strings; numbers from a spreadsheet read as they are
shown (`0`, not `0.0`). Rows know their line in the file, so that an error can name it. Reading
XLSX needs openpyxl, which the extra `train` brings.
"""

from __future__ import annotations

import csv
import importlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_training.errors import DataError

__all__ = ["TABLE_SUFFIXES", "Row", "Table", "column_key", "few", "read_columns", "read_table"]

TABLE_SUFFIXES = (".csv", ".xlsx")


@dataclass(frozen=True)
class Row:
    """One row: its line in the file, counted from 1, and its cells by column as written."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Attributes:
        path: the file that it came from.
        columns: names as written, trimmed, all different.
        rows: every row that is not empty.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def find(self, name: str) -> str | None:
        """The column that is called so, whatever its capitals, blanks and hyphens."""
        return next((c for c in self.columns if column_key(c) == column_key(name)), None)

    def need(self, names: Sequence[str]) -> dict[str, str]:
        """The columns for all these names.

        Raises:
            DataError: one is missing.
        """
        found = {name: self.find(name) for name in names}
        missing = [name for name, column in found.items() if column is None]
        if missing:
            raise DataError(
                f"{self.path} lacks the columns {missing}; it has {list(self.columns)}, "
                f"expected at least {list(names)}"
            )
        return {name: column for name, column in found.items() if column is not None}


def column_key(name: str) -> str:
    """A column's name without what copies change: capitals, blanks, hyphens, underscores."""
    return re.sub(r"[\s_\-]+", "", name).casefold()


def few(items: Iterable[str], limit: int = 5) -> str:
    """The first few items for a message."""
    listed = list(items)
    return "; ".join(listed[:limit]) + ("; ..." if len(listed) > limit else "")


def read_table(path: Path) -> Table:
    """Read a whole table.

    Raises:
        DataError: not a readable CSV or XLSX, no header, repeated columns, or no row.
    """
    lines = _lines_of(path)
    columns = _header(path, next(lines, None))
    rows = []
    for line, cells in lines:
        if not any(cells):
            continue
        if len(cells) > len(columns) and any(cells[len(columns) :]):
            raise DataError(
                f"{path}, line {line} has {len(cells)} cells but the header has {len(columns)}; "
                "quote cells that contain the separator"
            )
        padded = [*cells, *[""] * (len(columns) - len(cells))]
        row = {column: cell for column, cell in zip(columns, padded, strict=False) if column}
        rows.append(Row(line, row))
    if not rows:
        raise DataError(f"{path} has a header but no row; at least one patient is needed")
    return Table(path, tuple(column for column in columns if column), tuple(rows))


def read_columns(path: Path) -> tuple[str, ...]:
    """The column names alone, to recognise a layout.

    Raises:
        DataError: the file is not a readable table.
    """
    return tuple(column for column in _header(path, next(_lines_of(path), None)) if column)


def _header(path: Path, first: tuple[int, list[str]] | None) -> list[str]:
    if first is None or not any(first[1]):
        raise DataError(f"{path} is empty; expected a header line with the column names")
    columns = first[1]
    keys = [column_key(column) for column in columns if column]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise DataError(f"{path} has columns more than once: {repeated}; rename or remove them")
    return columns


def _lines_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    if path.suffix.lower() == ".xlsx":
        return _xlsx_lines(path)
    return _csv_lines(path)


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start}); save it as CSV UTF-8 and try again"
        ) from error
    if "\0" in text:
        raise DataError(f"{path} holds zero bytes, so it is no text; save it as CSV UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter_of(text), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num} is no valid CSV: {error}") from error


def _delimiter_of(text: str) -> str:
    """A comma, unless the header has none and uses a semicolon or tabs, as spreadsheets do."""
    header = text.partition("\n")[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _xlsx_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        openpyxl = importlib.import_module("openpyxl")
    except ImportError as error:
        raise DataError(
            f"reading {path.name} needs openpyxl, which is not installed; "
            'pip install "fundus-edge[train]", or save the sheet as CSV UTF-8'
        ) from error
    try:
        # Through memory, so that a damaged file cannot leave an open handle behind.
        data = io.BytesIO(path.read_bytes())
        book = openpyxl.load_workbook(data, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        # Some writers record a used range of one cell; without it openpyxl reads what is there.
        sheet.reset_dimensions()
        lines = [[_text_of(cell) for cell in cells] for cells in sheet.iter_rows(values_only=True)]
        book.close()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # openpyxl raises whatever its parsers raise on a damaged file
        raise DataError(
            f"{path} is not a readable XLSX workbook ({type(error).__name__}: {error}); "
            "download it again, or save the sheet as CSV UTF-8"
        ) from error
    yield from enumerate(lines, start=1)


def _text_of(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
