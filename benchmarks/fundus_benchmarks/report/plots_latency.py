"""Plots of time: stages of an exam beside the peers, and how far each stage is from its limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fundus_benchmarks.report.latency_rows import (
    Row,
    contender_name,
    is_own,
    is_peer,
    prepares_side_by_side,
    timed_parts,
)
from fundus_benchmarks.report.limit_distance import Distance
from fundus_benchmarks.report.numerals import measured, number, times
from fundus_benchmarks.report.plot_style import (
    ACCENT,
    GREY,
    INK,
    SOFT,
    STAGES,
    Plot,
    beside,
    lengths_from_nought,
    made,
    named_rows,
)

__all__ = ["distance_to_limit", "latency_by_stage"]

_SHOWN = ("pair", "second_eye")
_SHORT = {"pair": "pair", "second_eye": "second eye"}
_REST = ("#eef1f4", "////")
# In the colour of preprocessing, hatched as the rest.
_EYES_AND_REST = (STAGES["preprocessing"][0], "////")
_ABOUT_EYES = (
    " With two threads or more the product prepares both eyes of a pair side by side, which was "
    "not timed alone: all that such a pair takes beyond encoder and head is one length."
)


def latency_by_stage(rows: Sequence[Row], model: str) -> Plot | None:
    """Bars of a model's exams, one a contender, stacked by stage; None where none was timed."""
    bars = _bars(rows, model)
    if not bars:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, row in enumerate(bars):
            _bar(axes, place, row, rows)
        named_rows(axes, [_label(row) for row in bars])
        axes.set_xlabel("ms, median; the thin line ends at the 90th percentile")
        lengths_from_nought(axes)
        figure.legend(handles=_legend(bars), loc="outside lower center", ncols=3)

    return made(
        f"latency-{model}",
        f"{model}: from two frames to the result, and the wait after the second eye. Stages were "
        "timed alone, and may take longer so; the rest is what the whole, the black mark, takes "
        "beyond them. PyTorch's rest holds encoder and head, which it runs as one."
        f"{_ABOUT_EYES if any(map(prepares_side_by_side, bars)) else ''}",
        draw,
        height_in=1.4 + 0.3 * len(bars),
    )


def distance_to_limit(distances: Sequence[Distance]) -> Plot | None:
    """How many times its limit each stage takes; None where no stage has both."""
    if not distances:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, one in enumerate(distances):
            axes.plot([one.limit_ms, one.ms], [place, place], color=GREY, linewidth=3, zorder=1)
            axes.plot(one.limit_ms, place, "|", color=INK, markersize=11, markeredgewidth=2)
            axes.plot(one.ms, place, "o", color=ACCENT, markersize=6)
            label = f"{number(one.ms)} ms, {times(one.times)}"
            beside(axes, label, max(one.ms, one.limit_ms), place)
        named_rows(axes, [one.name for one in distances])
        _log_ms(axes)
        axes.set_xlim(right=axes.get_xlim()[1] * 3)
        axes.set_xlabel("ms (logarithmic): black mark, the limit; dot, measured")

    return made(
        "limits",
        "Each stage beside the least time that its operations and bytes need at the peak rates "
        "measured on this machine, whichever takes longer.",
        draw,
        height_in=0.8 + 0.28 * len(distances),
    )


def _bars(rows: Sequence[Row], model: str) -> list[Row]:
    """The product's forms, each pair before its second eye, then peers, the fastest first."""
    found = [
        row
        for row in rows
        if row.get("model") == model
        and row.get("stage") in _SHOWN
        and measured(row.get("p50_ms")) is not None
        and (is_own(row) or is_peer(row))
    ]
    pairs = sorted(
        (row for row in found if is_own(row)),
        key=lambda row: (contender_name(row, threads=True), row["stage"]),
    )
    return pairs + sorted((r for r in found if is_peer(r)), key=lambda row: float(row["p50_ms"]))


def _bar(axes: Axes, place: int, row: Row, rows: Sequence[Row]) -> None:
    whole, end = float(row["p50_ms"]), 0.0
    for stage, ms in timed_parts(rows, row):
        _segment(axes, place, end, ms, *STAGES[stage])
        end += ms
    if whole > end:
        rest = _EYES_AND_REST if prepares_side_by_side(row) else _REST
        _segment(axes, place, end, whole - end, *rest)
    high = max(measured(row.get("p90_ms")) or whole, whole)
    axes.plot([whole, high], [place, place], color=INK, linewidth=1)
    axes.plot([whole, whole], [place - 0.36, place + 0.36], color=INK, linewidth=2)
    weight = "bold" if is_own(row) else "normal"
    beside(axes, number(whole), max(high, end), place, weight=weight)


def _segment(axes: Axes, place: int, start: float, width: float, colour: str, hatch: str) -> None:
    axes.barh(place, width, 0.62, left=start, **_fill(colour, hatch))


def _fill(colour: str, hatch: str) -> dict[str, Any]:
    edge = SOFT if (colour, hatch) == _REST else "white"
    return {"facecolor": colour, "edgecolor": edge, "linewidth": 0.7, "hatch": hatch}


def _label(row: Row) -> str:
    name = contender_name(row)
    return f"{name}: {_SHORT[row['stage']]}" if is_own(row) else name


def _legend(bars: Sequence[Row]) -> list[Any]:
    named = {"preprocessing": "preprocessing", "gates": "gates", "encoder_1": "encoder"}
    stages = {**named, "head": "head"}
    rests = {"the rest": _REST}
    if any(map(prepares_side_by_side, bars)):
        rests["both eyes prepared, and the rest"] = _EYES_AND_REST
    return [
        *(Patch(**_fill(*STAGES[stage]), label=name) for stage, name in stages.items()),
        *(Patch(**_fill(*rest), label=name) for name, rest in rests.items()),
    ]


def _log_ms(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
