"""Rows of the `limits` part beside what the stages really took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fundus_benchmarks.report.latency_rows import STAGE_NAMES, Row, device_of, is_own
from fundus_benchmarks.report.numerals import measured

__all__ = ["Distance", "distances", "limit_name"]


@dataclass(frozen=True)
class Distance:
    """A stage and its limit.

    Attributes:
        row: of the `limits` part.
        timed: of the `latency` part.
    """

    row: Row
    timed: Row

    @property
    def limit_ms(self) -> float:
        """The least time that operations and bytes need."""
        return float(self.row["limit_ms"])

    @property
    def ms(self) -> float:
        """The median that was measured."""
        return float(self.timed["p50_ms"])

    @property
    def times(self) -> float:
        """How many times its limit the stage takes."""
        return self.ms / self.limit_ms

    @property
    def name(self) -> str:
        """Model, form and stage."""
        return limit_name(self.row)


def limit_name(row: Row) -> str:
    """Model, form and stage of a limit, and the provider where it is none of the CPU's."""
    stage = STAGE_NAMES.get(str(row["stage"]), str(row["stage"]))
    what = " ".join(str(row[key]) for key in ("model", "dialect") if row.get(key))
    where = f", {row['provider']}" if device_of(row.get("provider")) == "gpu" else ""
    return f"{what}: {stage}{where}" if what else stage + where


def distances(limits: Sequence[Row], latency: Sequence[Row]) -> list[Distance]:
    """Each limit with the product's time of the same stage, where both are known."""
    found = []
    for limit in limits:
        timed = _timed(limit, latency)
        if timed is not None and (measured(limit.get("limit_ms")) or 0) > 0:
            found.append(Distance(limit, timed))
    return found


def _timed(limit: Row, latency: Sequence[Row]) -> Row | None:
    rows = [
        row
        for row in latency
        if is_own(row)
        and row.get("stage") == limit.get("stage")
        and all(_agree(row.get(key), limit.get(key)) for key in ("model", "dialect"))
        and device_of(row.get("provider")) == device_of(limit.get("provider"))
        and measured(row.get("p50_ms")) is not None
    ]
    return min(rows, key=lambda row: float(row["p50_ms"]), default=None)


def _agree(one: object, other: object) -> bool:
    """Equal, or one of them not said: preprocessing knows no form."""
    return one is None or other is None or one == other
