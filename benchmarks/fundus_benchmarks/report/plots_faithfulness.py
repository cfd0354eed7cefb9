"""Plots of what a form changes: score against latency, flips, AUC of each class, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fundus_benchmarks.report.form_rows import TimedForm, form_name, letters_of
from fundus_benchmarks.report.latency_rows import Row
from fundus_benchmarks.report.numerals import measured
from fundus_benchmarks.report.plot_style import (
    ACCENT,
    GREY,
    INK,
    LINE,
    MARKERS,
    SERIES,
    SOFT,
    WARN,
    Plot,
    beside,
    lengths_from_nought,
    made,
    named_rows,
)
from fundus_runtime.labels import ODIR_CLASSES

__all__ = ["auc_per_class", "calibration", "flips", "score_against_latency"]

# Of the score's axis: a thousandth is no difference to look at.
_LEAST_SPAN = 0.02
_FLIPS = (
    ("class decisions that differ, %", "flip_share", "flip_upper", "class_decisions"),
    ("“refer or not” differs, % of patients", "refer_share", "refer_upper", "referrals"),
)


def score_against_latency(forms: Sequence[TimedForm]) -> Plot | None:
    """The challenge's score of each form over the time of a pair."""
    if not forms:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, form in enumerate(forms):
            _timed_form(axes, form, place)
        lengths_from_nought(axes)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, high - _LEAST_SPAN), max(high, low + _LEAST_SPAN))
        axes.set_xlabel("pair at once, ms, median; the line ends at the 90th percentile")
        axes.set_ylabel("challenge score")
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.grid()
        figure.legend(loc="outside lower center", ncols=3)

    return made(
        "score",
        "Challenge score of each form on the validation patients over the time of a pair on this "
        "machine: better is up and to the left. Upright lines: 95 % intervals of the difference "
        "from the validated model. Hollow: peers in FP32, at the validated model's "
        "score; their own preprocessing was not scored.",
        draw,
        height_in=3.2,
    )


def flips(rows: Sequence[Row]) -> Plot | None:
    """How many decisions differ from the validated model's, with upper bounds and limits."""
    rows = [row for row in rows if measured(row.get("flip_share")) is not None]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (title, share, upper, limit) in zip(panels, _FLIPS, strict=True):
            for place, row in enumerate(rows):
                _bounded(axes, place, row, share, upper)
            _limit(axes, rows, limit)
            axes.set_xlabel(title)
            lengths_from_nought(axes)
            named_rows(axes, [form_name(row) for row in rows])

    return made(
        "flips",
        "Decisions that differ from the validated FP32 model's, with their upper 95 % bounds; "
        "dashed, the limit that a certificate allows the bound.",
        draw,
        height_in=1.0 + 0.32 * len(rows),
    )


def auc_per_class(rows: Sequence[Row]) -> Plot | None:
    """The AUC of every class, and what each form changes of it."""
    letters = letters_of(rows)
    rows = [row for row in rows if _has_areas(row, letters)]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        whole, change = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.35))
        for place, row in enumerate(rows):
            before, after = (_areas(row, key, letters) for key in ("auc_reference", "auc"))
            whole.plot(before, range(len(letters)), "|", color=INK, markersize=11, zorder=1)
            whole.plot(after, range(len(letters)), **_style(place), linestyle="", zorder=2)
            at = np.arange(len(letters)) + _offset(place, len(rows))
            moved = 1e3 * (np.array(after) - np.array(before))
            change.plot(moved, at, **_style(place), linestyle="", label=form_name(row))
        change.axvline(0, color=INK, linewidth=1)
        whole.set_xlabel("AUC; black mark, FP32")
        change.set_xlabel("AUC less that of FP32, thousandths")
        for axes in (whole, change):
            named_rows(axes, [_class_name(letter) for letter in letters])
            for place in range(1, len(letters)):
                axes.axhline(place - 0.5, color=LINE, linewidth=0.8, zorder=0)
        figure.legend(loc="outside lower center", ncols=2)

    return made(
        "auc",
        "AUC of each class on the validation patients, and how far each form is from the "
        "validated FP32 model.",
        draw,
        height_in=1.3 + 0.27 * len(letters) + 0.12 * len(rows),
    )


def calibration(rows: Sequence[Row]) -> Plot | None:
    """Calibration error of each form beside the validated model's, and reliability curves."""
    rows = [row for row in rows if measured(row.get("calibration_error")) is not None]
    if not rows:
        return None
    curves = [row for row in rows if row.get("reliability")]

    def draw(figure: Figure) -> None:
        if not curves:
            _errors(figure.subplots(), rows)
            return
        errors, reliability = figure.subplots(1, 2, width_ratios=(1.1, 1))
        _errors(errors, rows)
        _reliability(reliability, curves)

    return made(
        "calibration",
        "Expected calibration error over 15 bins"
        + (", and how often what was said to be so likely is true" if curves else "")
        + ", of each form and of the validated FP32 model.",
        draw,
        height_in=3.3 if curves else 0.8 + 0.3 * len(rows),
    )


def _errors(axes: Axes, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        after = float(row["calibration_error"])
        before = measured(row.get("calibration_error_reference"))
        if before is not None:
            axes.plot([before, after], [place, place], color=GREY, linewidth=3, zorder=1)
            axes.plot(before, place, "|", color=INK, markersize=11, markeredgewidth=2)
        axes.plot(after, place, **_style(place), linestyle="")
        beside(axes, f"{after:.4f}", max(after, before or 0), place)
    named_rows(axes, [form_name(row) for row in rows])
    axes.set_xlabel("expected calibration error; black mark, FP32")
    lengths_from_nought(axes, room=1.3)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _reliability(axes: Axes, rows: Sequence[Row]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    reference = rows[0].get("reliability_reference") or ()
    axes.plot(*_curve(reference), color=INK, linewidth=1.2, label="FP32")
    for place, row in enumerate(rows):
        axes.plot(
            *_curve(row["reliability"]),
            **_style(place),
            linewidth=0.8,
            markersize=4,
            label=form_name(row),
        )
    axes.set_xlabel("said probability, mean of a bin")
    axes.set_ylabel("share that is true")
    axes.set_aspect("equal")
    axes.grid()
    axes.legend(loc="upper left", fontsize=7)


def _curve(bins: Sequence[Row]) -> tuple[list[float], list[float]]:
    pairs = [(measured(one.get("probability")), measured(one.get("share"))) for one in bins]
    known = [(said, true) for said, true in pairs if said is not None and true is not None]
    return [said for said, _ in known], [true for _, true in known]


def _timed_form(axes: Axes, form: TimedForm, place: int) -> None:
    ms = float(form.pair["p50_ms"])
    high = max(measured(form.pair.get("p90_ms")) or ms, ms)
    style, name = _style(place), form.name
    if form.is_peer:
        style, name = {**style, "markerfacecolor": "white"}, f"{form.name}, {form.model}"
    axes.plot([ms, high], [form.score, form.score], color=SOFT, linewidth=1)
    if form.interval is not None:
        axes.plot([ms, ms], form.interval, color=SOFT, linewidth=1)
    axes.plot(ms, form.score, **style, linestyle="", markersize=7, label=name)


def _bounded(axes: Axes, place: int, row: Row, share: str, upper: str) -> None:
    middle, high = measured(row.get(share)), measured(row.get(upper))
    if middle is None:
        return
    if high is not None:
        axes.plot([100 * middle, 100 * high], [place, place], color=ACCENT, linewidth=1.5)
        axes.plot(100 * high, place, "|", color=ACCENT, markersize=9, markeredgewidth=1.5)
    axes.plot(100 * middle, place, "o", color=ACCENT, clip_on=False)


def _limit(axes: Axes, rows: Sequence[Row], name: str) -> None:
    limits = {measured((row.get("limits") or {}).get(name)) for row in rows} - {None}
    for limit in limits:
        axes.axvline(100 * float(limit or 0), color=WARN, linestyle="--", linewidth=1.2)


def _has_areas(row: Row, letters: Sequence[str]) -> bool:
    both = [row.get(key) or {} for key in ("auc", "auc_reference")]
    return any(all(measured(of.get(one)) is not None for of in both) for one in letters)


def _areas(row: Row, key: str, letters: Sequence[str]) -> list[float]:
    found = (measured(row[key].get(letter)) for letter in letters)
    return [float("nan") if one is None else one for one in found]


def _class_name(letter: str) -> str:
    known = letter in ODIR_CLASSES.letters
    return f"{ODIR_CLASSES.name_of(letter)}, {letter}" if known else letter


def _style(place: int) -> dict[str, Any]:
    return {"marker": MARKERS[place % len(MARKERS)], "color": SERIES[place % len(SERIES)]}


def _offset(place: int, of: int) -> float:
    """Forms of a class beside one another instead of on top."""
    return 0.0 if of == 1 else 0.5 * (place / (of - 1) - 0.5)
