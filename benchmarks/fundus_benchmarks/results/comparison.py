"""A run against the one before it on the same machine: what became slower, and what is noise.

The rule. Let `host` be the median, over the peers of both runs whose package did not change, of new
median time over old one: how much slower the machine was that day, whatever the product did. Let
`margin` be 10 %, or twice what nine in ten of those peers stay within of `host` where that is more:
how far unchanged code moves from run to run. A row is *slower* when its new median is above

- the old run's 90th percentile times `host`, and
- the old median times `host` and times one plus `margin`.

It is *faster* when the old run would be slower than the new one by the same rule. Everything else
is noise. Fewer than three peers tell nothing of the host: then it counts as unchanged, and the page
says so. CPU and GPU are hosts of their own. Rows timed fewer than five times are not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fundus_benchmarks.report.latency_rows import OWN, device_of, package_of
from fundus_benchmarks.report.numerals import measured
from fundus_benchmarks.results.kept import Run

__all__ = ["LEAST_MARGIN", "Change", "Comparison", "Host", "RowKey", "compare"]

LEAST_MARGIN = 0.10
_LEAST_PEERS = 3
_LEAST_COUNT = 5
# Of a normal scatter twice this is 3.3 standard deviations: one row in two thousand is slower by
# chance alone, where once would make it one in twenty.
_WITHIN, _TIMES = 0.9, 2.0

Row = Mapping[str, Any]


class RowKey(NamedTuple):
    """What must be equal for two rows to be of the same thing."""

    model: str | None
    stage: str
    contender: str
    dialect: str | None
    backend: str | None
    provider: str | None
    threads: int | None

    @classmethod
    def of(cls, row: Row) -> RowKey:
        """The key of a latency row."""
        return cls(*(row.get(name) for name in cls._fields))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Host:
    """How a machine moved between two runs, as its peers tell.

    Attributes:
        peers: how many rows of peers both runs have.
        ratio: median of their new time over the old; 1 where they are too few.
        margin: how far from it a row must be to count, 0.1 for 10 %.
    """

    peers: int
    ratio: float
    margin: float

    @property
    def known(self) -> bool:
        """Whether there were peers enough."""
        return self.peers >= _LEAST_PEERS

    @classmethod
    def of(cls, ratios: list[float]) -> Host:
        """From each peer's new time over its old one."""
        if len(ratios) < _LEAST_PEERS:
            return cls(len(ratios), 1.0, LEAST_MARGIN)
        logs = np.log(ratios)
        middle = float(np.median(logs))
        within = float(np.quantile(np.abs(logs - middle), _WITHIN))
        margin = max(LEAST_MARGIN, math.expm1(_TIMES * within))
        return cls(len(ratios), math.exp(middle), margin)


@dataclass(frozen=True)
class Change:
    """One row in both runs.

    Attributes:
        key: what was timed.
        old_ms: median then.
        new_ms: median now.
        ratio: new over old, the host's own change taken out.
        verdict: `slower`, `faster`, `noise`, or `too few` times to tell.
    """

    key: RowKey
    old_ms: float
    new_ms: float
    ratio: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two runs of one machine.

    Attributes:
        old: the earlier run.
        new: the later one.
        hosts: how the machine moved, by `cpu` and `gpu`.
        changes: rows that both have.
        appeared: rows of the later run alone.
        gone: rows of the earlier run alone.
        versions: packages that changed, from what to what; None where one run lacks it.
    """

    old: Run
    new: Run
    hosts: Mapping[str, Host]
    changes: tuple[Change, ...]
    appeared: tuple[RowKey, ...]
    gone: tuple[RowKey, ...]
    versions: Mapping[str, tuple[str | None, str | None]]

    @property
    def own_rows(self) -> tuple[Change, ...]:
        """The product's rows in both runs."""
        return tuple(change for change in self.changes if change.key.contender == OWN)

    def own(self, verdict: str) -> tuple[Change, ...]:
        """The product's rows of a verdict, the largest change first."""
        found = [change for change in self.own_rows if change.verdict == verdict]
        return tuple(sorted(found, key=lambda c: -abs(math.log(c.ratio))))


def compare(old: Run, new: Run) -> Comparison:
    """Hold each latency row against the same row of an earlier run, by this module's rule."""
    before, after = _by_key(old.rows("latency")), _by_key(new.rows("latency"))
    both = [key for key in after if key in before]
    versions = _changed_versions(old, new)
    hosts = {
        device: Host.of(
            [
                _ratio(before[key], after[key])
                for key in both
                if device_of(key.provider) == device and _is_yardstick(key, versions)
            ]
        )
        for device in ("cpu", "gpu")
    }
    return Comparison(
        old,
        new,
        hosts,
        tuple(_change(key, before[key], after[key], hosts) for key in both),
        tuple(key for key in after if key not in before),
        tuple(key for key in before if key not in after),
        versions,
    )


def _by_key(rows: Iterable[Row]) -> dict[RowKey, Row]:
    return {RowKey.of(row): row for row in rows if (measured(row.get("p50_ms")) or 0) > 0}


def _is_yardstick(key: RowKey, versions: Mapping[str, object]) -> bool:
    package = package_of(key.contender)
    return package is not None and package not in versions


def _change(key: RowKey, old: Row, new: Row, hosts: Mapping[str, Host]) -> Change:
    host = hosts[device_of(key.provider)]
    return Change(
        key, old["p50_ms"], new["p50_ms"], _ratio(old, new) / host.ratio, _verdict(old, new, host)
    )


def _verdict(old: Row, new: Row, host: Host) -> str:
    if min(measured(row.get("count")) or 0 for row in (old, new)) < _LEAST_COUNT:
        return "too few"
    if _is_slower(old, new, host.ratio, host.margin):
        return "slower"
    return "faster" if _is_slower(new, old, 1 / host.ratio, host.margin) else "noise"


def _is_slower(old: Row, new: Row, host: float, margin: float) -> bool:
    high = measured(old.get("p90_ms")) or old["p50_ms"]
    return bool(new["p50_ms"] > host * max(high, old["p50_ms"] * (1 + margin)))


def _ratio(old: Row, new: Row) -> float:
    return float(new["p50_ms"] / old["p50_ms"])


def _changed_versions(old: Run, new: Run) -> dict[str, tuple[str | None, str | None]]:
    before, after = old.versions, new.versions
    return {
        name: (before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }
