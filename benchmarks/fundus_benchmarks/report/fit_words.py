"""The line through a curve's points, in words."""

from __future__ import annotations

from fundus_benchmarks.report.latency_rows import Row
from fundus_benchmarks.report.numerals import measured, number

__all__ = ["fit_in_words"]

_COUNTED = ("eyes", "kilopixels", "megapixels", "pairs", "threads")


def fit_in_words(row: Row) -> str:
    """Intercept and slope with their units; empty where the curve has no line.

    Of a start below nought, which no command has, the slope alone is told.
    """
    slope, intercept = measured(row.get("slope")), measured(row.get("intercept"))
    if slope is None or intercept is None:
        return ""
    start_s, ms_per_pair = measured(row.get("start_s")), measured(row.get("ms_per_pair"))
    if ms_per_pair is not None:
        pairs = f"{number(ms_per_pair)} ms per pair"
        if start_s is None or start_s < 0:
            return f"by the line {pairs}"
        return f"by the line {number(start_s)} s to start, then {pairs}"
    unit, per = row.get("y_unit") or "", row.get("x_unit") or row.get("x") or ""
    sign = "−" if slope < 0 else "+"
    return f"{_with(intercept, unit)} {sign} {_with(abs(slope), unit)} per {_one_of(str(per))}"


def _with(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".strip()


def _one_of(unit: str) -> str:
    return unit.removesuffix("s") if unit in _COUNTED else unit
