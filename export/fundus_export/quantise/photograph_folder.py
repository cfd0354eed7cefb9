"""Which files of a folder are photographs to calibrate with, and which of them are pairs.

A folder's JPEG and PNG files are photographs; folders inside it are not searched. `<id>_left.*` and
`<id>_right.*` make a pair, by the rule of `fundus-screen pairs`; every other photograph is a single
eye. Only names are looked at here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_export.errors import ExportError
from fundus_runtime.commands.pairs import PHOTOGRAPH_ENDINGS, PairFiles, group_pairs
from fundus_runtime.labels import EYES, Eye

__all__ = ["Minimum", "Photograph", "few", "photographs_of"]

_NAMED_AT_MOST = 5
_HOW_TO_NAME = "give a folder of <id>_left.jpg and <id>_right.jpg (or .jpeg, .png)"


@dataclass(frozen=True)
class Minimum:
    """How many gradable photographs, all different, a purpose needs.

    Attributes:
        eyes: in all.
        pairs: of both eyes of one patient.
        purpose: for messages.
    """

    eyes: int
    pairs: int
    purpose: str = "calibration"

    def __str__(self) -> str:
        return f"{self.purpose} needs at least {self.eyes} eyes, {self.pairs} pairs among them"


@dataclass(frozen=True)
class Photograph:
    """A file of the folder: where it lies, and which eye of which patient its name says it is."""

    path: Path
    eye: Eye | None = None
    pair_id: str | None = None


def photographs_of(
    folder: Path, minimum: Minimum, limit: int | None
) -> list[tuple[Photograph, ...]]:
    """Photographs of a folder that belong together: those of an id, or one alone.

    Args:
        folder: its JPEG and PNG files are taken; folders inside it are not searched.
        minimum: what they are for, and how many that needs.
        limit: take at most so many, groups whole; always the same ones, spread over the folder by a
            hash of their names. None takes all.

    Raises:
        ExportError: the folder cannot be read or holds no photograph, one has a twin for the same
            eye, or the limit is below the minimum.
    """
    return _limited(_groups(folder, minimum), limit, minimum)


def _groups(folder: Path, minimum: Minimum) -> list[tuple[Photograph, ...]]:
    paths = _paths_of(folder, minimum)
    pairs = group_pairs(paths).pairs
    _refuse_twins(folder, pairs)
    named = {path for pair in pairs for eye in EYES for path in pair.of(eye)}
    groups = [
        tuple(Photograph(path, eye, pair.id) for eye in EYES for path in pair.of(eye))
        for pair in pairs
    ]
    groups += [(Photograph(p),) for p in paths if p not in named and _is_photograph(p)]
    if not groups:
        raise ExportError(
            f"{folder} holds no JPEG or PNG photograph ({len(paths)} other files and folders; "
            f"folders are not searched), but {minimum}; {_HOW_TO_NAME}"
        )
    return groups


def _paths_of(folder: Path, minimum: Minimum) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ExportError(
            f"{folder} is no folder that can be read ({error.strerror or error}), but {minimum}; "
            f"{_HOW_TO_NAME}"
        ) from error


def _is_photograph(path: Path) -> bool:
    return path.suffix[1:].lower() in PHOTOGRAPH_ENDINGS and not path.name.startswith(".")


def _refuse_twins(folder: Path, pairs: Sequence[PairFiles]) -> None:
    twins = [pair.of(eye) for pair in pairs for eye in EYES if len(pair.of(eye)) > 1]
    if twins:
        names = few([" and ".join(path.name for path in paths) for paths in twins])
        raise ExportError(
            f"{folder} has several files for one eye, {len(twins)} times: {names}; "
            "keep one for each eye"
        )


def _limited(
    groups: list[tuple[Photograph, ...]], limit: int | None, minimum: Minimum
) -> list[tuple[Photograph, ...]]:
    if limit is None:
        return groups
    if limit < minimum.eyes:
        raise ExportError(f"the limit is {limit} photographs, but {minimum}; raise it")
    room, chosen = limit, set()
    for index in sorted(range(len(groups)), key=lambda index: _name_hash(groups[index])):
        if len(groups[index]) <= room:
            chosen.add(index)
            room -= len(groups[index])
    return [group for index, group in enumerate(groups) if index in chosen]


def _name_hash(group: tuple[Photograph, ...]) -> bytes:
    name = group[0].pair_id or group[0].path.name
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def few(items: Sequence[str]) -> str:
    """The first of a list of texts, and how many more there are."""
    more = len(items) - _NAMED_AT_MOST
    return "; ".join(items[:_NAMED_AT_MOST]) + (f"; and {more} more" if more > 0 else "")
