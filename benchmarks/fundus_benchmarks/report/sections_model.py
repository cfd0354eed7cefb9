"""Sections on the model: what its forms change, and how time and memory grow."""

from __future__ import annotations

from collections.abc import Sequence

from fundus_benchmarks.report.fit_words import fit_in_words
from fundus_benchmarks.report.form_rows import form_name, letters_of, timed_forms, untimed_forms
from fundus_benchmarks.report.latency_rows import Row
from fundus_benchmarks.report.numerals import UNKNOWN, measured, number, percent, signed, words
from fundus_benchmarks.report.page_parts import Line, Section, Table
from fundus_benchmarks.report.plots_faithfulness import (
    auc_per_class,
    calibration,
    flips,
    score_against_latency,
)
from fundus_benchmarks.report.plots_growth import growth
from fundus_benchmarks.results.kept import Run

__all__ = ["faithfulness_section", "growth_section"]

_FORM_COLUMNS = (
    "form",
    "source",
    "verdict",
    "patients",
    "class decisions that differ",
    "bound",
    "refer or not differs",
    "bound",
    "score",
    "less FP32",
    "calibration error",
)
_SOURCES = {"measured": "counted in this run", "bundle": "the bundle's certificate"}


def faithfulness_section(run: Run) -> Section:
    """Flips, score, AUC of each class and calibration of each form."""
    rows, latency = run.rows("faithfulness"), run.rows("latency")
    timed = timed_forms(rows, latency)
    plots = (score_against_latency(timed), flips(rows), auc_per_class(rows), calibration(rows))
    untimed = untimed_forms(rows, latency)
    return Section(
        "How faithful",
        ("Each form of a model against the validated FP32 one, on the same validation patients.",),
        tuple(plot for plot in plots if plot is not None),
        (_forms_table(rows), _auc_table(rows)) if rows else (),
        (f"Counted, but no pair was timed here: {'; '.join(untimed)}.",) if untimed else (),
    )


def growth_section(run: Run) -> Section:
    """Curves with their lines."""
    rows = run.rows("growth")
    plot = growth(rows)
    return Section(
        "How it grows",
        plots=() if plot is None else (plot,),
        tables=(
            Table(
                ("curve", "model", "settings", "medians", "line, least squares", "r²"),
                tuple(map(_growth_line, rows)),
                texts=5,
            ),
        ),
    )


def _forms_table(rows: Sequence[Row]) -> Table:
    return Table(
        _FORM_COLUMNS,
        tuple(map(_form_line, rows)),
        texts=3,
    )


def _form_line(row: Row) -> Line:
    passed = row.get("passed")
    return Line(
        (
            form_name(row),
            _SOURCES.get(str(row.get("source")), words(row.get("source"))),
            UNKNOWN if passed is None else "within limits" if passed else "BEYOND LIMITS",
            words(row.get("patients")),
            _counted(row.get("flips"), row.get("decisions"), row.get("flip_share")),
            percent(row.get("flip_upper")),
            _counted(row.get("refer_flips"), row.get("patients"), row.get("refer_share")),
            percent(row.get("refer_upper")),
            _fixed(row.get("score"), 3),
            signed(row.get("score_difference")),
            _fixed(row.get("calibration_error"), 4),
        ),
        "bad" if passed is False else "",
    )


def _auc_table(rows: Sequence[Row]) -> Table:
    letters = letters_of(rows)
    reference = next((row for row in rows if row.get("auc_reference")), None)
    lines = [] if reference is None else [_auc_line("FP32", reference["auc_reference"], letters)]
    lines += [_auc_line(form_name(row), row["auc"], letters) for row in rows if row.get("auc")]
    return Table(("AUC", *letters), tuple(lines))


def _auc_line(name: str, areas: dict[str, object], letters: Sequence[str]) -> Line:
    return Line((name, *(_fixed(areas.get(letter), 4) for letter in letters)))


def _growth_line(row: Row) -> Line:
    threads = row.get("threads")
    settings = (row.get("dialect"), None if threads is None else f"{threads} threads")
    points = (
        f"{point.get('label') or words(point['x'])}: {number(point.get('y'))}"
        for point in row.get("points") or ()
    )
    return Line(
        (
            words(row.get("what") or row.get("curve")),
            words(row.get("model")),
            words([one for one in settings if one]),
            "; ".join(points),
            fit_in_words(row) or "no line",
            _fixed(row.get("r2"), 3),
        )
    )


def _counted(count: object, of: object, share: object) -> str:
    if measured(count) is None:
        return percent(share)
    return f"{words(count)} of {words(of)}, {percent(share)}"


def _fixed(value: object, decimals: int) -> str:
    found = measured(value)
    return UNKNOWN if found is None else f"{found:.{decimals}f}"
