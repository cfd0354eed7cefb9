"""Crops on disk: every photograph is read and cropped once, then training reads 8-bit arrays.

A store holds for each patient and eye the S x S x 3 RGB crop and its mask, as `crop_eye` makes
them, in flat files that are mapped and not loaded. It lies in a cache folder under a key made of
the preprocessing spec, the preprocessing's own code, and path, size and time of every photograph;
anything else makes another store. A store appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import fundus_runtime.image_header
import fundus_runtime.photograph
import fundus_runtime.preprocess
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.preprocess import PreprocessSpec
from fundus_runtime.version import __version__
from fundus_training.cores import usable_cores
from fundus_training.data.crop_files import (
    ABSENT,
    OK,
    Status,
    build_store,
    mask_bytes,
    whole_status,
)
from fundus_training.data.patients import PatientRecord
from fundus_training.errors import DataError

__all__ = ["Crop", "CropStore", "default_cache_dir"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crop:
    """One eye: image S x S x 3 uint8 RGB and mask S x S bool, both read-only."""

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


@dataclass
class CropStore:
    """Crops of a list of patients; make one with `CropStore.open`.

    Attributes:
        folder: where the files lie.
        spec: how the crops were made.
        ids: the patients, in the order of the records that it was opened with.
        status: for each eye, a patient's `ok`, `absent`, or why the photograph is ungradable.
    """

    folder: Path
    spec: PreprocessSpec
    ids: tuple[str, ...]
    status: Status
    _row: dict[str, int] = field(init=False, repr=False)
    _maps: dict[str, npt.NDArray[np.uint8]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._row = {patient: row for row, patient in enumerate(self.ids)}

    @classmethod
    def open(
        cls,
        records: Sequence[PatientRecord],
        spec: PreprocessSpec,
        *,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        progress: bool = True,
    ) -> CropStore:
        """The store of these patients: the one on disk, or a new one.

        Args:
            records: patients with unique ids.
            spec: what `crop_eye` follows.
            cache_dir: folder for stores; by default `default_cache_dir()`.
            threads: photographs read at once; by default one a core, at most 8.
            progress: show a progress bar on stderr while a new store is made.

        Raises:
            DataError: photographs cannot be read (all are tried, then counted and named), or the
                cache folder cannot take them.
        """
        parent = Path(cache_dir) if cache_dir is not None else default_cache_dir() / "crops"
        key = _key_of(records, spec)
        folder = parent / key
        status = whole_status(folder, spec.size, len(records))
        if status is None:
            status = build_store(folder, records, spec, threads or _default_threads(), progress)
        store = cls(folder, spec, tuple(record.id for record in records), status)
        store._log_ungradable()
        return store

    def __len__(self) -> int:
        return len(self.ids)

    def row_of(self, patient: str) -> int:
        """Where a patient's crops are.

        Raises:
            DataError: the store was made without this patient.
        """
        try:
            return self._row[patient]
        except KeyError:
            raise DataError(
                f"patient {patient} is not among the {len(self)} patients of {self.folder}; "
                "open the store with all records that are used"
            ) from None

    def is_gradable(self, row: int, eye: Eye) -> bool:
        """Whether there is a crop."""
        return self.status[eye][row] == OK

    def crop(self, row: int, eye: Eye) -> Crop | None:
        """One eye's crop, or None where the photograph is absent or ungradable."""
        if not self.is_gradable(row, eye):
            return None
        size = self.spec.size
        # A plain array: the map's own class is slow to slice.
        image = np.asarray(self._mapped(f"{eye}_images", (len(self), size, size, 3))[row])
        bits = self._mapped(f"{eye}_masks", (len(self), mask_bytes(size)))[row]
        mask = np.unpackbits(bits, count=size * size).reshape(size, size).view(np.bool_)
        return Crop(image, mask)

    def ungradable(self) -> dict[str, int]:
        """How many photographs are ungradable, by reason."""
        states = (state for eye in EYES for state in self.status[eye])
        return dict(Counter(state for state in states if state not in (OK, ABSENT)))

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps: a worker process opens its own instead of being sent the pixels."""
        return {**self.__dict__, "_maps": {}}

    def _mapped(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        if name not in self._maps:
            file = self.folder / f"{name}.u8"
            self._maps[name] = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
        return self._maps[name]

    def _log_ungradable(self) -> None:
        reasons = self.ungradable()
        if reasons:
            _LOG.warning(
                "%d photographs are ungradable and count as absent: %s",
                sum(reasons.values()),
                ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())),
            )


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/fundus-edge`, or `~/.cache/fundus-edge`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fundus-edge"


def _default_threads() -> int:
    return min(8, usable_cores())


def _key_of(records: Sequence[PatientRecord], spec: PreprocessSpec) -> str:
    """A name for exactly this content: code, spec, and every photograph's path, size and time."""
    digest = hashlib.sha256(f"{__version__}\n{_code_hash()}\n{spec.sha256}\n".encode())
    paths = [p for record in records for p in (record.left, record.right) if p is not None]
    common = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
    for record in records:
        for eye in EYES:
            path = record.photograph(eye)
            digest.update(f"{record.id}\0{eye}\0{_identity(path, common)}\n".encode())
    return digest.hexdigest()[:32]


def _identity(path: Path | None, common: str) -> str:
    """A file's path below the common folder, its size and its time of change."""
    if path is None:
        return ABSENT
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return f"{os.path.relpath(path.absolute(), common)}\0{status.st_size}\0{status.st_mtime_ns}"


def _code_hash() -> str:
    """Source of all that makes a crop, and OpenCV's version: no change of code meets old crops."""
    package = Path(fundus_runtime.preprocess.__file__).parent
    readers = (fundus_runtime.photograph.__file__, fundus_runtime.image_header.__file__)
    files = [*sorted(package.glob("*.py")), *map(Path, readers)]
    source = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(cv2.__version__.encode() + source).hexdigest()
