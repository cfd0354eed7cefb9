"""Photographs to calibrate with: a folder, read and preprocessed as the bundle's own runtime does.

Opening reads each photograph once: what cannot be read is refused, what cannot be graded is counted
and left out. The eyes themselves (float32, 3 x S x S) are decoded again one at a time, so that
memory holds one photograph however many there are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from fundus_export.errors import ExportError
from fundus_export.quantise.photograph_folder import Minimum, Photograph, few, photographs_of
from fundus_runtime.backends.protocol import Float32Array
from fundus_runtime.canonical import canonical_json, sha256_hex, sha256_of_file
from fundus_runtime.errors import FundusError, ImageError, UngradableError
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import PreprocessSpec, crop_eye, preprocess
from fundus_training.cores import usable_cores

__all__ = ["CalibrationImages", "ImageFile", "Minimum", "open_calibration_images"]

_LOG = logging.getLogger(__name__)

# each holds a decoded photograph, up to 200 MB
_MAX_READERS = 4
# more than this share ungradable: the folder does not hold what the model will see
_MAX_UNGRADABLE = 0.5


@dataclass(frozen=True)
class ImageFile:
    """One gradable photograph.

    Attributes:
        name: of the file.
        path: where it lay when it was opened.
        sha256: of the file's bytes then.
        eye: None where the name says none.
        pair_id: None where the name says no eye.
    """

    name: str
    path: Path
    sha256: str
    eye: Eye | None
    pair_id: str | None


@dataclass(frozen=True)
class CalibrationImages:
    """Gradable photographs in a fixed order; made by `open_calibration_images`.

    Attributes:
        folder: where they were found.
        spec: how they are preprocessed.
        files: the photographs, pairs first and in natural order, left before right.
        ungradable: how many were left out, by reason.
    """

    folder: Path
    spec: PreprocessSpec
    files: tuple[ImageFile, ...]
    ungradable: Mapping[str, int] = field(default_factory=dict)

    @property
    def pair_files(self) -> tuple[tuple[ImageFile, ImageFile], ...]:
        """The pairs whose eyes are both gradable, left then right."""
        by_eye: dict[str, dict[str, ImageFile]] = {eye: {} for eye in EYES}
        for file in self.files:
            if file.eye is not None and file.pair_id is not None:
                by_eye[file.eye][file.pair_id] = file
        right = by_eye["right"]
        return tuple((file, right[id_]) for id_, file in by_eye["left"].items() if id_ in right)

    @property
    def sha256(self) -> str:
        """Names the photographs and which of them are pairs: not the spec, no file's name."""
        pairs = [[left.sha256, right.sha256] for left, right in self.pair_files]
        paired = {file for pair in self.pair_files for file in pair}
        single = [file.sha256 for file in self.files if file not in paired]
        return sha256_hex(canonical_json({"pairs": sorted(pairs), "single": sorted(single)}))

    def eyes(self) -> Iterator[Float32Array]:
        """Every photograph, preprocessed: float32 (3, S, S), one at a time.

        Raises:
            ExportError: a file is not what it was when it was opened.
        """
        return map(self._tensor, self.files)

    def pairs(self) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Left and right eye of every pair, in the order of `pair_files`; see `eyes`."""
        return ((self._tensor(left), self._tensor(right)) for left, right in self.pair_files)

    def _tensor(self, file: ImageFile) -> Float32Array:
        reason = "its content is another"
        try:
            if sha256_of_file(file.path) == file.sha256:
                return preprocess(read_photograph(file.path), self.spec).tensor
        except (OSError, FundusError) as error:
            reason = str(error)
        raise ExportError(
            f"{file.path} changed while it was calibrated with: {reason}; "
            "leave the folder alone meanwhile, and start again"
        )


def open_calibration_images(
    folder: str | Path,
    spec: PreprocessSpec,
    *,
    minimum: Minimum,
    limit: int | None = None,
    progress: bool = True,
) -> CalibrationImages:
    """Read a folder of photographs to calibrate with.

    Args:
        folder: real photographs of the kind that the model will see.
        spec: the bundle's preprocessing.
        minimum: what the method needs.
        limit: take at most so many photographs, pairs whole; always the same ones of a folder,
            spread over it by a hash of their names. None takes all.
        progress: show a progress bar on stderr.

    Raises:
        ExportError: the folder is missing or holds no photograph, one of them cannot be read or has
            a twin for the same eye, most of them cannot be graded, or too few are left.
    """
    folder = Path(folder)
    groups = photographs_of(folder, minimum, limit)
    photographs = [photograph for group in groups for photograph in group]
    seen = _read_all(photographs, spec, progress=progress)
    _refuse_unreadable(folder, seen)
    reasons = Counter(one.ungradable for one in seen if one.ungradable is not None)
    images = CalibrationImages(
        folder,
        spec,
        tuple(one.file for one in seen if one.file is not None),
        dict(sorted(reasons.items())),
    )
    _refuse_mostly_ungradable(images)
    _refuse_toofew(images, minimum)
    return images


@dataclass(frozen=True)
class _Seen:
    """What came of reading one photograph; exactly one is set."""

    file: ImageFile | None = None
    ungradable: str | None = None
    unreadable: str | None = None


def _read_all(
    photographs: Sequence[Photograph], spec: PreprocessSpec, *, progress: bool
) -> list[_Seen]:
    def read(photograph: Photograph) -> _Seen:
        return _read(photograph, spec)

    with ThreadPoolExecutor(min(_MAX_READERS, usable_cores())) as pool:
        seen = tqdm(
            pool.map(read, photographs),
            total=len(photographs),
            desc="reading photographs",
            unit="eye",
            disable=not progress,
        )
        return list(seen)


def _read(photograph: Photograph, spec: PreprocessSpec) -> _Seen:
    path = photograph.path
    try:
        crop_eye(read_photograph(path), spec)
        file = ImageFile(path.name, path, sha256_of_file(path), photograph.eye, photograph.pair_id)
        return _Seen(file=file)
    except UngradableError as error:
        return _Seen(ungradable=error.reason)
    except (ImageError, OSError) as error:
        named = path.name in str(error)
        return _Seen(unreadable=str(error) if named else f"{path}: {error}")


def _refuse_unreadable(folder: Path, seen: Sequence[_Seen]) -> None:
    reasons = [one.unreadable for one in seen if one.unreadable is not None]
    if reasons:
        raise ExportError(
            f"{len(reasons)} of {len(seen)} photographs in {folder} cannot be read: "
            f"{few(reasons)}. Replace them, or take them out"
        )


def _refuse_mostly_ungradable(images: CalibrationImages) -> None:
    left_out = sum(images.ungradable.values())
    if not left_out:
        return
    read = left_out + len(images.files)
    reasons = ", ".join(f"{reason} {count}" for reason, count in images.ungradable.items())
    if left_out > _MAX_UNGRADABLE * read:
        raise ExportError(
            f"{left_out} of {read} photographs in {images.folder} cannot be graded ({reasons}); "
            "calibrate with photographs of the fundus as the model will see them"
        )
    _LOG.warning("%d of %d photographs are ungradable, left out: %s", left_out, read, reasons)


def _refuse_toofew(images: CalibrationImages, minimum: Minimum) -> None:
    eyes = len({file.sha256 for file in images.files})
    pairs = {(left.sha256, right.sha256) for left, right in images.pair_files}
    different = sum(left != right for left, right in pairs)
    if eyes < minimum.eyes or different < minimum.pairs:
        left_out = sum(images.ungradable.values())
        raise ExportError(
            f"{images.folder} holds {eyes} different gradable photographs, {different} pairs among "
            f"them ({left_out} were ungradable), but {minimum}; add photographs of both eyes, "
            "named <id>_left.jpg and <id>_right.jpg"
        )
