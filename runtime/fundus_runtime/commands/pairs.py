"""Screens a folder of pairs into one CSV file, one row a pair, written whole or not at all.

Photographs are `<id>_left.*` and `<id>_right.*` with the endings jpg, jpeg or png in any case. The
next pairs are decoded and preprocessed on a second thread while the engine works on the current
one; only a few pairs are in memory at a time.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fundus_runtime.atomic import atomic_text, require_writable
from fundus_runtime.errors import ImageError, UsageError
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.prepared import PreparedEye
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import Screener
from fundus_runtime.version import __version__

__all__ = [
    "EXTRA_COLUMNS",
    "FIRST_COLUMNS",
    "PHOTOGRAPH_ENDINGS",
    "PairFiles",
    "PairFolder",
    "find_pairs",
    "group_pairs",
    "screen_pairs",
]

FIRST_COLUMNS = ("pair", "status", "reason", "outcome")
EXTRA_COLUMNS = (
    "refer",
    "findings",
    "operating_point",
    "left_status",
    "right_status",
    "left_reason",
    "right_reason",
    "warnings",
    "latency_ms",
    "bundle_sha256",
    "package_version",
)

_NAME = re.compile(r"(?P<id>.+)_(?P<eye>left|right)\.(?P<ending>[^.]+)", re.DOTALL)
PHOTOGRAPH_ENDINGS = frozenset({"jpg", "jpeg", "png"})
_PAIRS_AHEAD = 3

Row = dict[str, object]


@dataclass
class PairFiles:
    """The files of one id; more than one for an eye is a mistake that the row will state."""

    id: str
    left: list[Path] = field(default_factory=list)
    right: list[Path] = field(default_factory=list)

    def of(self, eye: Eye) -> list[Path]:
        """The files of one eye."""
        return self.left if eye == "left" else self.right


@dataclass(frozen=True)
class PairFolder:
    """What a folder holds: its pairs in natural order, and how many files are none."""

    pairs: tuple[PairFiles, ...]
    others: int


def find_pairs(folder: str | Path) -> PairFolder:
    """List a folder's pairs; see `group_pairs`.

    Raises:
        UsageError: the folder is missing, or no file in it is named like a photograph of a pair.
    """
    found = group_pairs(_files_of(Path(folder)))
    if not found.pairs:
        raise UsageError(
            f"{folder} holds no photographs of pairs ({found.others} other files); "
            "name them <id>_left.jpg and <id>_right.jpg (or .jpeg, .png)"
        )
    return found


def group_pairs(paths: Iterable[Path]) -> PairFolder:
    """Group files into pairs by their names alone; none at all are no error.

    Where an eye has no JPEG or PNG but another file of its name, that file stands for it, so that
    the pair gets a row that says what came.
    """
    images: dict[str, PairFiles] = {}
    elsewhere: list[tuple[str, Eye, Path]] = []
    others = 0
    for path in paths:
        match = None if path.name.startswith(".") else _NAME.fullmatch(path.name)
        if match is None:
            others += 1
            continue
        eye: Eye = "left" if match["eye"] == "left" else "right"
        if match["ending"].lower() in PHOTOGRAPH_ENDINGS:
            images.setdefault(match["id"], PairFiles(match["id"])).of(eye).append(path)
        else:
            elsewhere.append((match["id"], eye, path))
    taken = {(pair.id, eye) for pair in images.values() for eye in EYES if pair.of(eye)}
    for name, eye, path in elsewhere:
        if (name, eye) in taken:
            others += 1
        else:
            images.setdefault(name, PairFiles(name)).of(eye).append(path)
    ordered = sorted(images.values(), key=lambda pair: _natural_key(pair.id))
    return PairFolder(tuple(ordered), others)


def _files_of(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(
            f"{folder} is no folder that can be read ({error.strerror or error}); "
            "give a folder of <id>_left.* and <id>_right.*"
        ) from error


def screen_pairs(
    screener: Screener,
    folder: PairFolder,
    out: str | Path,
    *,
    one_eye: bool,
    force: bool,
    stopped: Callable[[], bool] = lambda: False,
) -> Counter[str]:
    """Screen every pair and write the CSV file.

    Args:
        screener: an open screener.
        folder: from `find_pairs`.
        out: the CSV file.
        one_eye: screen an eye whose partner is missing, instead of refusing the pair.
        force: replace an existing file.
        stopped: asked after every row; true ends the work with nothing written.

    Returns:
        How many rows have each status.

    Raises:
        ResultError: the file cannot be written.
        EngineError: the engine failed; nothing is written.
        KeyboardInterrupt: the work was stopped; nothing is written.
    """
    require_writable(out, force=force)
    letters = screener.manifest.classes.letters
    counts: Counter[str] = Counter()
    with atomic_text(out, force=force, newline="") as stream:
        writer = csv.DictWriter(stream, [*FIRST_COLUMNS, *letters, *EXTRA_COLUMNS], restval="")
        writer.writeheader()
        for row in _rows(screener, folder.pairs, one_eye):
            counts[str(row["status"])] += 1
            writer.writerow(row)
            if stopped():
                raise KeyboardInterrupt
    return counts


def _rows(screener: Screener, pairs: Sequence[PairFiles], one_eye: bool) -> Iterator[Row]:
    from tqdm import tqdm

    def prepare(pair: PairFiles) -> _Prepared:
        return _prepare(screener, pair, one_eye)

    quiet = not sys.stderr.isatty()
    with (
        ThreadPoolExecutor(1, thread_name_prefix="prepare") as worker,
        tqdm(
            total=len(pairs), unit="pair", file=sys.stderr, mininterval=10 if quiet else 0.2
        ) as bar,
    ):
        ahead: deque[tuple[PairFiles, Future[_Prepared]]] = deque()
        coming = iter(pairs)
        try:
            while True:
                while len(ahead) < _PAIRS_AHEAD and (pair := next(coming, None)) is not None:
                    ahead.append((pair, worker.submit(prepare, pair)))
                if not ahead:
                    return
                pair, prepared = ahead.popleft()
                yield _row(screener, pair, prepared.result())
                bar.update()
        finally:
            for _, waiting in ahead:
                waiting.cancel()


@dataclass(frozen=True)
class _Prepared:
    """Both eyes of a pair, or why the pair is refused."""

    eyes: Mapping[Eye, PreparedEye]
    refusal: str | None = None


def _prepare(screener: Screener, pair: PairFiles, one_eye: bool) -> _Prepared:
    eyes: dict[Eye, PreparedEye] = {}
    for eye in EYES:
        files = pair.of(eye)
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            return _Prepared({}, f"{eye}: two files for one eye ({names}); keep one")
        if not files and not one_eye:
            return _Prepared(
                {}, f"{eye}: no {pair.id}_{eye}.*; add it, or screen one eye alone with --one-eye"
            )
        try:
            eyes[eye] = screener.prepare_file(eye, files[0] if files else None)
        except ImageError as error:
            return _Prepared({}, f"{eye}: {error}")
    return _Prepared(eyes)


def _row(screener: Screener, pair: PairFiles, prepared: _Prepared) -> Row:
    common: Row = {
        "pair": pair.id,
        "operating_point": screener.operating_point.name,
        "bundle_sha256": screener.bundle.sha256,
        "package_version": __version__,
    }
    if prepared.refusal is not None:
        # a pair that could not be screened is referred, like every other that is not normal
        refused = {"status": "refused", "outcome": "ungradable", "refer": "true"}
        return common | refused | {"reason": prepared.refusal}
    result = screener.screen_prepared(prepared.eyes["left"], prepared.eyes["right"])
    return common | _row_of_result(result)


def _row_of_result(result: ExamResult) -> Row:
    ungradable = [eye for eye in EYES if result.eye(eye).status == "ungradable"]
    reasons = [f"{eye}: {result.eye(eye).reason}" for eye in EYES if result.eye(eye).status != "ok"]
    row: Row = {
        "status": "ungradable" if ungradable else "ok",
        "reason": "; ".join(reasons),
        "outcome": result.outcome,
        "refer": "true" if result.refer else "false",
        "findings": "" if ungradable else " ".join(result.findings),
        "warnings": "; ".join(result.warnings),
        "latency_ms": f"{result.time_ms['total'] or 0.0:.2f}",
    }
    for eye in EYES:
        row[f"{eye}_status"] = result.eye(eye).status
        row[f"{eye}_reason"] = result.eye(eye).reason or ""
    return row if ungradable else row | result.probabilities


def _natural_key(text: str) -> list[tuple[int, int, str]]:
    """Orders runs of digits by their number: 2 before 10."""
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]
