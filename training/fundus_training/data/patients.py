"""What is known of one patient, and a data set as a list of patients."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_runtime.labels import ClassList, Eye
from fundus_training.data.tables import few
from fundus_training.errors import DataError

__all__ = ["PatientRecord", "RecordSet"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PatientRecord:
    """One patient.

    Attributes:
        id: unique in its data set.
        left: photograph of the left eye, or None where there is none.
        right: photograph of the right eye, or None where there is none.
        labels: 0/1 a class, of both eyes together.
        left_labels: 0/1 a class of the left eye, or None where not known.
        right_labels: 0/1 a class of the right eye, or None where not known.
        age: in years, or None where not given or a placeholder.
        sex: as annotated, in lower case, or None.
        subset: the release's own part (`training set`, ...), or None.
    """

    id: str
    left: Path | None
    right: Path | None
    labels: tuple[int, ...]
    left_labels: tuple[int, ...] | None = None
    right_labels: tuple[int, ...] | None = None
    age: int | None = None
    sex: str | None = None
    subset: str | None = None

    def photograph(self, eye: Eye) -> Path | None:
        """The photograph of one eye."""
        return self.left if eye == "left" else self.right

    def eye_labels(self, eye: Eye) -> tuple[int, ...] | None:
        """The labels of one eye."""
        return self.left_labels if eye == "left" else self.right_labels


@dataclass(frozen=True)
class RecordSet:
    """A data set's patients.

    Attributes:
        records: at least one patient, ids all different.
        classes: what the labels mean, in their order.
        layout: `odir-challenge`, `oia-odir`, `odir-csv` or `plain-csv`.
        root: the folder that holds everything.
    """

    records: tuple[PatientRecord, ...]
    classes: ClassList
    layout: str
    root: Path

    def __post_init__(self) -> None:
        counts = Counter(record.id for record in self.records)
        repeated = [patient for patient, count in counts.items() if count > 1]
        if repeated:
            raise DataError(
                f"{self.root}: {len(repeated)} ids occur more than once ({few(repeated)}); "
                "one row a patient is expected, since a patient in two rows could end up in two "
                "parts of the split"
            )
        _warn_of_shared_photographs(self.records)

    def __len__(self) -> int:
        return len(self.records)


def _warn_of_shared_photographs(records: Sequence[PatientRecord]) -> None:
    paths = Counter(p for record in records for p in (record.left, record.right) if p is not None)
    shared = [path.name for path, count in paths.items() if count > 1]
    if shared:
        _LOG.warning(
            "%d photographs are used more than once (%s); if they belong to different patients, "
            "training and validation are not independent",
            len(shared),
            few(shared),
        )
