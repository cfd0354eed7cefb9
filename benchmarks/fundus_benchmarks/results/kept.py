"""Results that are kept: all parts of one run in one JSON, a folder a machine, sorted by time.

A run is what one machine measured at one commit, with one set of packages, within a day. Parts that
do not belong together are refused, since a table of them would compare what cannot be compared.
Hosts call different processors by one name, so that kept runs of one folder are compared only where
the processor is the same, or one of them was kept before that was told; of these, the last one on
a processor known to be the same goes before later ones that do not tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from fundus_benchmarks.results.processor import (
    PROCESSOR,
    is_same_processor,
    may_be_same_processor,
)
from fundus_benchmarks.results.run_file import PARTS, ROOT, machine_name, read_part
from fundus_runtime.atomic import atomic_text

__all__ = [
    "RESULTS",
    "ResultsError",
    "Run",
    "comparable",
    "gather",
    "keep",
    "kept_runs",
    "last_measured",
    "newest_of_each_machine",
    "previous",
]

RESULTS = ROOT / "benchmarks" / "results"
_FORMAT = "fundus-edge benchmark results"
_SCHEMA_VERSION = 1
_LONGEST = timedelta(days=1)

Part = Mapping[str, Any]


class ResultsError(ValueError):
    """Parts or kept results that cannot be used; says which, and what to do."""


@dataclass(frozen=True)
class Run:
    """The parts of one run, by name; at least one.

    Attributes:
        parts: as `run_file.new_part` makes them, in the order of `PARTS`.
        path: where it is kept; None where it is not.
    """

    parts: Mapping[str, Part]
    path: Path | None = None

    @classmethod
    def of(cls, parts: Iterable[Part], path: Path | None = None) -> Run:
        """Put parts together.

        Raises:
            ResultsError: there is none, or they come from different machines, commits or versions
                of packages, or from more than a day.
        """
        named = {part["part"]: _without_nan(part) for part in parts}
        run = cls({name: named[name] for name in PARTS if name in named}, path)
        if not run.parts:
            raise ResultsError("there is no part of a benchmark; measure first: make bench")
        run._require_one("machine", lambda part: machine_name(part["machine"]))
        run._require_one("processor", _processor_of)
        run._require_one("commit", lambda part: part["commit"] or "unknown")
        run._require_one_version()
        run._require_one_day()
        return run

    @property
    def machine_name(self) -> str:
        """The machine's folder."""
        return machine_name(self.machine)

    @property
    def machine(self) -> Mapping[str, Any]:
        """The machine as its first part describes it."""
        machine: Mapping[str, Any] = next(iter(self.parts.values()))["machine"]
        return machine

    @property
    def processor(self) -> str | None:
        """Which one it really is; None where no part tells, as none did before they were asked."""
        return next(filter(None, map(_processor_of, self.parts.values())), None)

    @property
    def commit(self) -> str:
        """The commit, `+` behind it where files differed; `unknown` outside git."""
        return str(next(iter(self.parts.values()))["commit"] or "unknown")

    @property
    def measured_at(self) -> str:
        """When the last part was measured, ISO 8601 in UTC."""
        return max(str(part["measured_at"]) for part in self.parts.values())

    @property
    def date(self) -> str:
        """The day of it."""
        return self.measured_at[:10]

    @property
    def day_and_commit(self) -> str:
        """As a comparison names it, which says too where the processor is not known."""
        unknown = " (its processor is not stated)" if self.processor is None else ""
        return f"{self.date}, commit {self.commit}{unknown}"

    @property
    def versions(self) -> dict[str, str]:
        """Of every package that a part names."""
        return {name: v for part in self.parts.values() for name, v in part["versions"].items()}

    def rows(self, part: str) -> list[dict[str, Any]]:
        """A part's rows; none where it was not measured."""
        return list(self.parts[part]["rows"]) if part in self.parts else []

    def holds(self, other: Run) -> bool:
        """Whether all parts of another run are this one's too."""
        return all(_when(self, name) == _when(other, name) for name in other.parts)

    def to_json(self) -> str:
        """As it is kept."""
        head = {"format": _FORMAT, "schema_version": _SCHEMA_VERSION}
        about = {key: getattr(self, key) for key in ("machine_name", "commit", "measured_at")}
        return json.dumps({**head, **about, "parts": dict(self.parts)}, indent=1) + "\n"

    def _require_one(self, what: str, of: Callable[[Part], str | None]) -> None:
        """Refuse parts of which more than one thing is known."""
        found = {name: one for name, part in self.parts.items() if (one := of(part)) is not None}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} from {value}" for name, value in found.items())
            raise ResultsError(
                f"parts come from more than one {what}: {listed}; measure them again together "
                "(make bench), or remove those that do not belong"
            )

    def _require_one_version(self) -> None:
        for package in self.versions:
            found = {
                name: part["versions"][package]
                for name, part in self.parts.items()
                if package in part["versions"]
            }
            if len(set(found.values())) > 1:
                listed = ", ".join(f"{name} with {version}" for name, version in found.items())
                raise ResultsError(
                    f"parts were measured with more than one version of {package}: {listed}; "
                    "measure them again together (make bench)"
                )

    def _require_one_day(self) -> None:
        found = {name: _time(part["measured_at"]) for name, part in self.parts.items()}
        first, last = min(found, key=lambda n: found[n]), max(found, key=lambda n: found[n])
        if found[last] - found[first] > _LONGEST:
            raise ResultsError(
                f"{first} was measured at {self.parts[first]['measured_at']}, {last} at "
                f"{self.parts[last]['measured_at']}, more than a day apart; measure {first} again, "
                "or remove it"
            )


def gather(folder: Path) -> Run:
    """The run whose parts lie in a folder; other files there are left alone.

    Raises:
        ResultsError: no parts, or parts that do not belong together.
        ValueError: a file is no part of a benchmark.
    """
    paths = [path for name in PARTS if (path := folder / f"{name}.json").exists()]
    if not paths:
        raise ResultsError(
            f"{folder} holds no part of a benchmark ({', '.join(PARTS)}.json); "
            "measure first: make bench"
        )
    return Run.of(map(read_part, paths))


def keep(run: Run, results: Path = RESULTS) -> Path:
    """Write a run to its machine's folder as `<date>-<commit>.json`.

    What is there under this name is replaced only where the run holds all of it; a second run of
    the same day and commit gets a number behind its name.
    """
    folder = results / run.machine_name
    folder.mkdir(parents=True, exist_ok=True)
    for place in count(1):
        path = folder / f"{run.date}-{run.commit}{'' if place == 1 else f'-{place}'}.json"
        if not path.exists() or run.holds(_read(path)):
            break
    with atomic_text(path, force=True) as file:
        file.write(run.to_json())
    return path


def kept_runs(machine: str, results: Path = RESULTS) -> list[Run]:
    """All kept runs of a machine, oldest first.

    Raises:
        ResultsError: a file there is no kept result.
    """
    runs = [_read(path) for path in sorted((results / machine).glob("*.json"))]
    return sorted(runs, key=lambda run: run.measured_at)


def newest_of_each_machine(results: Path = RESULTS) -> list[Run]:
    """The newest kept run of every machine, the newest of all first."""
    if not results.is_dir():
        return []
    machines = sorted(folder.name for folder in results.iterdir() if folder.is_dir())
    newest = [runs[-1] for machine in machines if (runs := kept_runs(machine, results))]
    return sorted(newest, key=lambda run: run.measured_at, reverse=True)


def comparable(processor: str | None, runs: Iterable[Run]) -> list[Run]:
    """Those of a machine's kept runs that were not measured on another processor of its name.

    Args:
        processor: `Run.processor` of what they are compared with.
        runs: of one `machine_name`.
    """
    return [run for run in runs if may_be_same_processor(processor, run.processor)]


def last_measured(processor: str | None, part: str, runs: Iterable[Run]) -> Run | None:
    """The last of a machine's kept runs to measure a part on a processor.

    Those known to be of that processor go before those of which it is not known, however late.
    """

    def place(run: Run) -> tuple[bool, str]:
        return is_same_processor(processor, run.processor), _when(run, part) or ""

    found = [one for one in comparable(processor, runs) if _when(one, part)]
    return max(found, key=place, default=None)


def previous(run: Run, part: str, runs: Iterable[Run]) -> Run | None:
    """What `last_measured` finds of the runs that measured a part before `run` did."""
    when = _when(run, part)
    earlier = [one for one in runs if when is not None and (at := _when(one, part)) and at < when]
    return last_measured(run.processor, part, earlier)


def _processor_of(part: Part) -> str | None:
    identity: str | None = part["machine"].get(PROCESSOR)
    return identity


def _when(run: Run, part: str) -> str | None:
    return run.parts[part]["measured_at"] if part in run.parts else None


def _read(path: Path) -> Run:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path} is no JSON ({error}); restore or remove it") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ResultsError(f"{path} is no kept result; expected format {_FORMAT!r}; remove it")
    if found.get("schema_version") != _SCHEMA_VERSION:
        raise ResultsError(
            f"{path} has schema version {found.get('schema_version')!r}, expected "
            f"{_SCHEMA_VERSION}; remove it, or read it with the commit that wrote it"
        )
    return Run.of(found["parts"].values(), path)


def _time(text: str) -> datetime:
    # Python 3.10 reads no `Z`.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _without_nan(value: Any) -> Any:
    """The same with None for what is no finite number, which JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return value
