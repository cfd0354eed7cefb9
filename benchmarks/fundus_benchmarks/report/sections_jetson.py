"""The section on a Jetson: latencies fresh and sustained, power, clocks, heat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fundus_benchmarks.report.latency_rows import STAGE_NAMES, Row
from fundus_benchmarks.report.numerals import number, words
from fundus_benchmarks.report.page_parts import Line, Section, Table
from fundus_benchmarks.report.plots_jetson import over_time
from fundus_benchmarks.results.kept import Run

__all__ = ["jetson_section"]

_POWER = {
    "rest_w": "at rest, W",
    "ready_w": "screener open and waiting, W",
    "fresh_w": "load, its beginning, W",
    "sustained_w": "load, its end, W",
    "gross_j_per_exam": "an exam, all that flowed in, J",
    "net_j_per_exam": "an exam, beyond the board at rest, J",
}
_PERCENTILES = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
_WHEN = ("fresh", "sustained")


def jetson_section(run: Run) -> Section:
    """A block a model: exams one after another for minutes."""
    rows = run.rows("jetson")
    plots = (over_time(row, place) for place, row in enumerate(rows))
    return Section(
        "On Jetson",
        tuple(_sentence(row) for row in rows),
        tuple(plot for plot in plots if plot is not None),
        tuple(table for row in rows for table in _tables(row)),
        ("Fresh is the load's beginning, sustained its end; exams follow without a pause.",),
    )


def _sentence(row: Row) -> str:
    throttled = row.get("throttled")
    if throttled is None:
        told = f"whether it throttled is not told ({words(row.get('throttling_not_told'))})"
    else:
        told = f"throttled: {words(row['throttled_because'])}" if throttled else "no throttling"
    name = " ".join(str(row[key]) for key in ("model", "dialect") if row.get(key))
    return (
        f"{name} on {words(row.get('backend'))}, {words(row.get('provider'))}: "
        f"{words(row.get('exams'))} exams in {number(row.get('seconds'))} s; {told}; clocks pinned "
        f"by jetson_clocks: {words(row.get('clocks_pinned'))}."
    )


def _tables(row: Row) -> Sequence[Table]:
    name = words(row.get("model"))
    return (
        Table(
            ("latency, ms", "when", "p50", "p90", "p99", "max", "times"),
            tuple(_latency_lines(row)),
            texts=2,
            caption=name,
        ),
        Table(("power and energy", ""), tuple(_power_lines(row.get("power") or {}))),
        _values_table("clock, MHz", row.get("clocks_mhz") or {}, digits=4),
        _values_table("temperature, °C", row.get("temperatures_c") or {}, digits=3),
    )


def _latency_lines(row: Row) -> Sequence[Line]:
    lines = []
    for when in _WHEN:
        found = row.get(when) or {}
        timings = {"pair": found.get("pair"), **(found.get("stages") or {})}
        for stage, timing in timings.items():
            values = timing or {}
            cells = (number(values.get(key)) for key in _PERCENTILES)
            name = STAGE_NAMES.get(stage, stage.replace("_", " "))
            lines.append(
                Line(
                    (name, when, *cells, words(values.get("count"))),
                    "own" if stage == "pair" else "",
                )
            )
    return lines


def _power_lines(power: Mapping[str, Any]) -> Sequence[Line]:
    lines = [Line((name, number(power.get(key)))) for key, name in _POWER.items()]
    covers = f"{words(power.get('covers'))}: {words(power.get('rails'))}"
    return [*lines, Line(("what is measured", covers))]


def _values_table(what: str, values: Mapping[str, Mapping[str, object]], *, digits: int) -> Table:
    columns = tuple(dict.fromkeys(key for one in values.values() for key in one))
    return Table(
        (what, *columns),
        tuple(
            Line((name, *(number(one.get(column), digits) for column in columns)))
            for name, one in values.items()
        ),
    )
