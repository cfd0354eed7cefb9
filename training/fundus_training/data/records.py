"""Patients of a data set: two photographs, labels, and what is known of each eye.

`load_records` recognises the layout by itself:

- `odir-challenge`: the ODIR-5K 2019 release, `ODIR-5K_Training_Annotations(Updated)_V2.xlsx` and a
  folder of photographs (`ODIR-5K_Training_Dataset`, in some copies `..._Training_Images`);
- `oia-odir`: the OIA-ODIR release (github.com/nkicsl/OIA-ODIR), the folders `Training Set`,
  `Off-site Test Set` and `On-site Test Set`, each with `Annotation/* (English).xlsx` and `Images/`;
- `odir-csv`: the same columns in a CSV beside a folder of photographs;
- `plain-csv`: the columns left, right and the user's own labels.

Names are matched whatever their capitals. Every photograph that an annotation names must be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fundus_runtime.labels import ODIR_CLASSES, ClassList
from fundus_training.data import odir, plain
from fundus_training.data.patients import PatientRecord, RecordSet
from fundus_training.data.splits import stable_order
from fundus_training.errors import ConfigError, DataError

__all__ = ["PatientRecord", "RecordSet", "limit_records", "load_records"]


def load_records(source: str | Path, classes: ClassList | Sequence[str] | None = None) -> RecordSet:
    """Read a data set.

    Args:
        source: a folder in one of the layouts above, or one annotation file.
        classes: for a plain CSV, its label columns in order; by default all columns of 0 and 1.
            ODIR's layouts have eight classes of their own.

    Raises:
        DataError: no known layout, an unreadable or incomplete annotation file, labels other than
            0 and 1, repeated ids, or photographs that are named but not there.
        ConfigError: `classes` for a layout that has its own.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path} does not exist; give a data set's folder or annotation file")
    release = odir.find_release(path)
    if release is not None:
        _refuse_other_classes(classes, release.layout)
        return odir.read_release(release)
    table = plain.find_plain_csv(path)
    if table is not None:
        return plain.read_plain_csv(table, classes)
    raise DataError(f"{path} has none of the known layouts; looked for:\n{_EXPECTED}")


def limit_records(records: RecordSet, count: int) -> RecordSet:
    """A smaller data set with about the same mix of label sets; the same one every time.

    Args:
        records: what to take from.
        count: how many patients to keep; all where there are no more.

    Raises:
        ConfigError: count is less than 1.
    """
    if count < 1:
        raise ConfigError(f"a limit of {count} patients leaves none; use 1 or more")
    if count >= len(records):
        return records
    line = stable_order(records.records, seed=0)
    kept = {line[(2 * k + 1) * len(line) // (2 * count)].id for k in range(count)}
    return replace(records, records=tuple(r for r in records.records if r.id in kept))


def _refuse_other_classes(classes: ClassList | Sequence[str] | None, layout: str) -> None:
    letters = classes.letters if isinstance(classes, ClassList) else classes
    if letters is not None and tuple(letters) != ODIR_CLASSES.letters:
        raise ConfigError(
            f"the layout {layout} has the classes {' '.join(ODIR_CLASSES.letters)}, but "
            f"{' '.join(letters)} were asked for; leave them out, or write a plain CSV"
        )


_EXPECTED = """\
  odir-challenge  ODIR-5K_Training_Annotations*.xlsx beside or above a folder of photographs
  oia-odir        Training Set/, Off-site Test Set/, On-site Test Set/, each with
                  Annotation/*.xlsx and Images/
  odir-csv        a CSV with the columns ID, Left-Fundus, Right-Fundus,
                  Left-/Right-Diagnostic Keywords, N, D, G, C, A, H, M, O beside images/
  plain-csv       a CSV with the columns left, right and your labels (0 or 1), optionally id"""
