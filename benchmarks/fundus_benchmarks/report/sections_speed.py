"""Sections on speed: latencies beside peers, promises, limits of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fundus_benchmarks.ratios.bars import Bar, judge
from fundus_benchmarks.report.latency_rows import (
    STAGE_NAMES,
    Row,
    contender_name,
    is_own,
    models_of,
)
from fundus_benchmarks.report.limit_distance import Distance, distances, limit_name
from fundus_benchmarks.report.numerals import UNKNOWN, measured, number, times, words
from fundus_benchmarks.report.page_parts import Line, Section, Table
from fundus_benchmarks.report.plots_latency import distance_to_limit, latency_by_stage
from fundus_benchmarks.results.kept import Run

__all__ = ["latency_section", "limits_section", "ratios_section"]

_PEAKS = {
    "fp32_gflops": ("FP32 matrix product", "GFLOP/s"),
    "int8_gops": ("INT8 matrix product", "GOP/s"),
    "copy_gb_s": ("memory copy", "GB/s"),
}
_LATENCY_COLUMNS = (
    "stage",
    "contender",
    "verified",
    "threads",
    "p50, ms",
    "p90",
    "p99",
    "max",
    "times",
)
_LIMIT_COLUMNS = (
    "stage",
    "operations, 10⁶",
    "weights, MB",
    "activations, MB",
    "operations need, ms",
    "bytes need, ms",
    "measured, ms",
    "of the limit",
)
_PERCENTILES = ("p50_ms", "p90_ms", "p99_ms", "max_ms")


def latency_section(run: Run) -> Section:
    """Bars by stage, and every row that was timed."""
    rows = run.rows("latency")
    models = models_of(rows)
    plots = (latency_by_stage(rows, model) for model in models)
    tables = (
        _latency_table(model, [row for row in rows if (row.get("model") or None) == model])
        for model in (*models, None)
    )
    return Section(
        "How fast",
        (
            "Each contender's output was verified before it was timed, as its row says. "
            "Peers are fed by the preprocessing that their users would write with OpenCV.",
            *_about_trtexec(rows),
        ),
        tuple(plot for plot in plots if plot is not None),
        tuple(table for table in tables if table.lines),
    )


def ratios_section(run: Run, bars: Sequence[Bar]) -> Section:
    """Every promise of `bars.toml` and whether this run kept it."""
    verdicts = judge(bars, run.parts["ratios"].get("figures", {}))
    lines = (
        Line(
            (
                verdict.bar.what,
                "kept" if verdict.kept else "MISSED",
                str(verdict.bar),
                "not measured" if verdict.value is None else number(verdict.value),
            ),
            "" if verdict.kept else "bad",
        )
        for verdict in verdicts
    )
    return Section(
        "Promises",
        (
            f"{sum(verdict.kept for verdict in verdicts)} of {len(verdicts)} kept. Ratios are "
            "medians over rounds in which the contenders took turns.",
        ),
        tables=(
            Table(("figure", "", "promised", "measured"), tuple(lines), texts=2),
            _turns_table(run.parts["ratios"].get("timings_ms") or {}),
        ),
    )


def limits_section(run: Run) -> Section:
    """Peaks of the machine, and how near each stage comes to them."""
    rows = run.rows("limits")
    found = distances(rows, run.rows("latency"))
    plot = distance_to_limit(found)
    return Section(
        "How near to the machine's limit",
        (
            "The limit is the longer of two times: all operations at the peak rate of matrix "
            "products, and all bytes at the rate of a memory copy, as both were measured here.",
            *(() if found else ("No stage has both a limit and a time in this run.",)),
        ),
        () if plot is None else (plot,),
        (
            _peaks_table(run.parts["limits"].get("peaks") or {}),
            _limits_table(rows, {id(one.row): one for one in found}),
        ),
    )


def _turns_table(timings: Mapping[str, Row]) -> Table:
    return Table(
        ("in turns", "p50, ms", "p90", "p99", "max", "times"),
        tuple(
            Line((name, *(number(one.get(key)) for key in _PERCENTILES), words(one.get("count"))))
            for name, one in timings.items()
        ),
    )


def _about_trtexec(rows: Sequence[Row]) -> Iterator[str]:
    if any(row.get("backend") == "trtexec" for row in rows):
        yield (
            "trtexec runs the same TensorRT plans with nothing around them, back to back and with "
            "their inputs on the GPU already; what the product's rows take beyond that is copying, "
            "the runtime, and a GPU that rested before each run."
        )


def _latency_table(model: str | None, rows: Sequence[Row]) -> Table:
    return Table(
        _LATENCY_COLUMNS,
        tuple(
            Line(
                (
                    STAGE_NAMES.get(str(row["stage"]), str(row["stage"])),
                    contender_name(row),
                    words(row.get("verified")),
                    words(row.get("threads")),
                    *(number(row.get(key)) for key in _PERCENTILES),
                    words(row.get("count")),
                ),
                "own" if is_own(row) else "",
            )
            for row in sorted(rows, key=_stage_place)
        ),
        texts=3,
        caption="Any model" if model is None else model,
    )


def _stage_place(row: Row) -> int:
    order = list(STAGE_NAMES)
    return order.index(str(row["stage"])) if row["stage"] in order else len(order)


def _peaks_table(peaks: Mapping[str, Any]) -> Table:
    return Table(
        ("peak, measured", "unit", "one thread", f"{words(peaks.get('threads_all'))} threads"),
        tuple(
            Line((name, unit, number(peaks.get(f"{key}_1")), number(peaks.get(f"{key}_all"))))
            for key, (name, unit) in _PEAKS.items()
        ),
        texts=2,
    )


def _limits_table(rows: Sequence[Row], near: Mapping[int, Distance]) -> Table:
    return Table(
        _LIMIT_COLUMNS,
        tuple(_limit_line(row, near.get(id(row))) for row in rows),
    )


def _limit_line(row: Row, distance: Distance | None) -> Line:
    return Line(
        (
            limit_name(row),
            *(
                _millions(row.get(key))
                for key in ("operations", "weight_bytes", "activation_bytes")
            ),
            *(number(row.get(key)) for key in ("least_ms_operations", "least_ms_bytes")),
            UNKNOWN if distance is None else number(distance.ms),
            UNKNOWN if distance is None else times(distance.times),
        )
    )


def _millions(value: object) -> str:
    found = measured(value)
    return UNKNOWN if found is None else number(found / 1e6)
