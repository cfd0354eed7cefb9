"""The files of a crop store: how they are laid out, made, checked and given their name.

A store is a folder of flat uint8 files, `<eye>_images.u8` (N x S x S x 3) and `<eye>_masks.u8`
(N x ceil(S * S / 8), bits packed along rows), with `index.json`. It is made in a folder of its own
that is moved to its name when everything is on the disk, so that a half-made one is never seen.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fundus_runtime.errors import ImageError, UngradableError
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import PreprocessSpec, crop_eye
from fundus_training.data.patients import PatientRecord
from fundus_training.data.tables import few
from fundus_training.errors import DataError

__all__ = ["ABSENT", "OK", "Status", "build_store", "mask_bytes", "whole_status"]

_LOG = logging.getLogger(__name__)
_INDEX = "index.json"
_STALE_SECONDS = 24 * 3600

OK, ABSENT = "ok", "absent"
Status = dict[Eye, tuple[str, ...]]


def mask_bytes(size: int) -> int:
    """Bytes of a packed mask of size x size."""
    return (size * size + 7) // 8


def whole_status(folder: Path, size: int, count: int) -> Status | None:
    """The states of a store that is whole, or None."""
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        lengths = {name: (folder / f"{name}.u8").stat().st_size for name in index["bytes"]}
        status: Status = {eye: tuple(index["status"][eye]) for eye in EYES}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if lengths != _file_bytes(count, size) or any(len(s) != count for s in status.values()):
        return None
    return status


def _file_bytes(count: int, size: int) -> dict[str, int]:
    images = {f"{eye}_images": count * size * size * 3 for eye in EYES}
    return {**images, **{f"{eye}_masks": count * mask_bytes(size) for eye in EYES}}


def build_store(
    folder: Path,
    records: Sequence[PatientRecord],
    spec: PreprocessSpec,
    threads: int,
    progress: bool,
) -> Status:
    """Make a store in a folder of its own, and move it to its name when it is whole."""
    sizes = _file_bytes(len(records), spec.size)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as name:
            part = Path(name) / "store"
            part.mkdir()
            _reserve(part, sizes)
            status = _fill(part, records, spec, threads, progress)
            _finish(part, {"status": status, "bytes": sizes})
            _move(part, folder, len(records), spec.size)
    except OSError as error:
        raise DataError(
            f"the crops need {sum(sizes.values()) / 1e6:.0f} MB in {folder.parent}, which failed: "
            f"{error.strerror or error}; free some space or choose another cache folder"
        ) from error
    _LOG.info("cropped %d patients into %s", len(records), folder)
    return status


def _remove_stale(parent: Path) -> None:
    """Remove what a killed run left behind a day ago or longer."""
    for part in parent.glob(".part-*"):
        if time.time() - part.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(part, ignore_errors=True)


def _reserve(part: Path, sizes: dict[str, int]) -> None:
    """Create the files at their full length, so that a full disk is an error here.

    Written to through a map, a full disk would kill the process instead.
    """
    for name, length in sizes.items():
        with (part / f"{name}.u8").open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, length)
            else:
                file.truncate(length)


def _fill(
    part: Path,
    records: Sequence[PatientRecord],
    spec: PreprocessSpec,
    threads: int,
    progress: bool,
) -> Status:
    """Crop every photograph into the files; memory holds one photograph a thread."""
    count, size = len(records), spec.size
    writer = _Writer(
        spec,
        {eye: _writable(part, f"{eye}_images", (count, size, size, 3)) for eye in EYES},
        {eye: _writable(part, f"{eye}_masks", (count, mask_bytes(size))) for eye in EYES},
    )
    jobs = [(row, eye, r.photograph(eye)) for row, r in enumerate(records) for eye in EYES]
    with ThreadPoolExecutor(threads) as pool:
        states = tqdm(
            pool.map(writer.write, jobs),
            total=len(jobs),
            desc="cropping photographs",
            unit="eye",
            disable=not progress,
        )
        found = list(states)
    writer.refuse_unreadable()
    by_eye: dict[Eye, list[str]] = {eye: [] for eye in EYES}
    for (_, eye, _), state in zip(jobs, found, strict=True):
        by_eye[eye].append(state)
    return {eye: tuple(states) for eye, states in by_eye.items()}


def _writable(part: Path, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.memmap(part / f"{name}.u8", dtype=np.uint8, mode="r+", shape=shape)


class _Writer:
    """Crops photographs into arrays, each call into rows of its own."""

    def __init__(
        self,
        spec: PreprocessSpec,
        images: dict[Eye, npt.NDArray[np.uint8]],
        masks: dict[Eye, npt.NDArray[np.uint8]],
    ) -> None:
        self._spec = spec
        self._images = images
        self._masks = masks
        self._unreadable: list[str] = []

    def write(self, job: tuple[int, Eye, Path | None]) -> str:
        """Crop one photograph and say how it went."""
        row, eye, path = job
        if path is None:
            return ABSENT
        try:
            crop = crop_eye(read_photograph(path), self._spec)
        except UngradableError as error:
            return error.reason
        except ImageError as error:
            self._unreadable.append(str(error) if path.name in str(error) else f"{path}: {error}")
            return ABSENT
        self._images[eye][row] = crop.image
        self._masks[eye][row] = np.packbits(crop.mask)
        return OK

    def refuse_unreadable(self) -> None:
        """Raise if any photograph could not be read, with their count and the first few."""
        if self._unreadable:
            raise DataError(
                f"{len(self._unreadable)} photographs cannot be read: "
                f"{few(sorted(self._unreadable))}. Replace these files, or remove their rows"
            )


def _finish(part: Path, index: dict[str, Any]) -> None:
    """Bring everything to the disk; the index is written last."""
    (part / _INDEX).write_text(json.dumps(index), encoding="utf-8")
    for file in part.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def _move(part: Path, folder: Path, count: int, size: int) -> None:
    """Give a whole store its name; a broken one makes way, one made meanwhile is kept."""
    if whole_status(folder, size, count) is None:
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
