"""Plots of growth, and of the runs that were kept."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fundus_benchmarks.report.fit_words import fit_in_words
from fundus_benchmarks.report.latency_rows import Row, fastest_own
from fundus_benchmarks.report.numerals import measured, number
from fundus_benchmarks.report.plot_style import MARKERS, SERIES, Plot, from_nought, made
from fundus_benchmarks.results.kept import Run

__all__ = ["growth", "history"]

_COLUMNS = 2
_TITLE = 40  # letters of a title on one line of a panel
_TICKS = 8
_SHOWN = {"pair": "pair at once", "second_eye": "wait after the second eye"}


def growth(rows: Sequence[Row]) -> Plot | None:
    """A panel a curve, lines and their slopes in its legend; None where there is no point."""
    curves: dict[str, list[Row]] = {}
    for row in rows:
        if _points(row):
            curves.setdefault(str(row.get("what") or row.get("curve")), []).append(row)
    if not curves:
        return None
    lines = math.ceil(len(curves) / _COLUMNS)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
        for axes, (what, found) in zip(panels, curves.items(), strict=False):
            _panel(axes, what, found)
        for axes in panels[len(curves) :]:
            axes.set_visible(False)

    return made(
        "growth",
        "How time, throughput and memory grow. Points are measured; bars end at the 90th "
        "percentile; lines are least squares, drawn where one is meant.",
        draw,
        height_in=2.75 * lines,
    )


def history(runs: Sequence[Run]) -> Plot | None:
    """Medians of the product's exams in all kept runs of a machine; None for fewer than two."""
    runs = [run for run in runs if run.rows("latency")]
    series = _series(runs)
    if len(runs) < 2 or not series:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (name, values) in enumerate(series.items()):
            colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            axes.plot(range(len(runs)), values, marker=marker, color=colour, label=name)
        step = max(1, math.ceil(len(runs) / _TICKS))
        shown = range(0, len(runs), step)
        axes.set_xticks(shown, [f"{runs[at].date}\n{runs[at].commit}" for at in shown])
        axes.set_ylabel("ms, median")
        from_nought(axes)
        figure.legend(loc="outside lower center", ncols=2)

    return made(
        "history",
        "The product's fastest form in each run kept for this machine; days of a slow host are not "
        "taken out here.",
        draw,
        height_in=3.2,
    )


def _panel(axes: Axes, what: str, rows: Sequence[Row]) -> None:
    named = any(isinstance(point["x"], str) for row in rows for point in _points(row))
    for place, row in enumerate(rows):
        (_categories if named else _curve)(axes, row, place)
    first = rows[0]
    axes.set_title(textwrap.fill(what[:1].upper() + what[1:], _TITLE))
    axes.set_xlabel("" if named else _axis(first, "x"))
    axes.set_ylabel(_axis(first, "y"))
    from_nought(axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best", handlelength=1.2)


def _curve(axes: Axes, row: Row, place: int) -> None:
    points = _points(row)
    x, y = np.array([float(p["x"]) for p in points]), np.array([float(p["y"]) for p in points])
    style: dict[str, Any] = {"color": SERIES[place % len(SERIES)]}
    label = ", ".join(part for part in (str(row.get("model") or ""), fit_in_words(row)) if part)
    axes.errorbar(
        x,
        y,
        yerr=np.array([np.zeros(len(y)), _above(points, y)]),
        fmt=MARKERS[place % len(MARKERS)],
        elinewidth=1,
        capsize=2,
        label=label or None,
        **style,
    )
    for point in points:
        _label(axes, point, x.max())
    slope, intercept = measured(row.get("slope")), measured(row.get("intercept"))
    if slope is not None and intercept is not None:
        ends = np.array([min(0.0, x.min()), x.max()])
        axes.plot(ends, intercept + slope * ends, linewidth=1.2, **style)


def _label(axes: Axes, point: Row, right: float) -> None:
    """What a point is, towards the middle of the panel."""
    is_left = float(point["x"]) < right / 2
    axes.annotate(
        str(point.get("label") or ""),
        (float(point["x"]), float(point["y"])),
        xytext=(6 if is_left else -6, -3 if is_left else 5),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="top" if is_left else "baseline",
        size=7,
    )


def _categories(axes: Axes, row: Row, place: int) -> None:
    """Points with names: bars beside one another."""
    points = _points(row)
    y = np.array([float(point["y"]) for point in points])
    bars = axes.bar(
        [str(point["x"]) for point in points],
        y,
        width=0.6,
        yerr=np.array([np.zeros(len(y)), _above(points, y)]),
        color=SERIES[place % len(SERIES)],
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.bar_label(bars, [number(value) for value in y], padding=2)


def _points(row: Row) -> list[Row]:
    return [point for point in row.get("points") or () if measured(point.get("y")) is not None]


def _above(points: Sequence[Row], y: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """From the median up to the 90th percentile."""
    highs = (measured(point.get("p90")) for point in points)
    pairs = zip(highs, y, strict=True)
    return [max(0.0, high - float(value)) if high is not None else 0.0 for high, value in pairs]


def _axis(row: Row, which: str) -> str:
    name, unit = str(row.get(which) or ""), row.get(f"{which}_unit") or ""
    name = "median" if name == "p50" else name
    return f"{name}, {unit}" if unit and unit != name else name


def _series(runs: Sequence[Run]) -> dict[str, list[float]]:
    """By model and stage, a value a run, NaN where it was not timed."""
    found: dict[str, list[float]] = {}
    models = dict.fromkeys(
        str(row["model"]) for run in runs for row in run.rows("latency") if row.get("model")
    )
    for model in models:
        for stage, name in _SHOWN.items():
            values = [_fastest_ms(run, model, stage) for run in runs]
            if not all(map(math.isnan, values)):
                found[f"{model}: {name}"] = values
    return found


def _fastest_ms(run: Run, model: str, stage: str) -> float:
    rows = [row for row in run.rows("latency") if row.get("model") == model]
    row = fastest_own(rows, stage) or fastest_own(rows, stage, "gpu")
    return math.nan if row is None else float(row["p50_ms"])
