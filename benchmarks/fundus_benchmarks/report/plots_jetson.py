"""A plot of minutes of exams: time, power, heat and clocks over the load."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from fundus_benchmarks.report.latency_rows import Row
from fundus_benchmarks.report.numerals import measured
from fundus_benchmarks.report.plot_style import ACCENT, SERIES, Plot, from_nought, made

__all__ = ["over_time"]

_LINES = {"pair_ms": "pair, ms", "power_w": "power, W", "hottest_c": "hottest, °C"}
_CLOCKS = ("cpu", "gpu", "memory")
_STYLES = ("-", "--", ":")


def over_time(row: Row, place: int) -> Plot | None:
    """The load of one run; None where nothing was recorded over time."""
    series = row.get("series") or ()
    lines = [key for key in _LINES if _has(series, key)]
    clocks = [name for name in _CLOCKS if _has(series, f"{name}_mhz")]
    panels = len(lines) + bool(clocks)
    if not panels:
        return None

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(panels, 1, sharex=True, squeeze=False).ravel()
        at = [float(point["t_s"]) for point in series]
        for axes, key in zip(all_axes, lines, strict=False):
            axes.plot(at, _values(series, key), color=ACCENT)
            axes.set_ylabel(_LINES[key])
        for place_of, name in enumerate(clocks):
            all_axes[-1].plot(
                at,
                _values(series, f"{name}_mhz"),
                color=SERIES[place_of],
                linestyle=_STYLES[place_of],
                label=name,
            )
        if clocks:
            all_axes[-1].set_ylabel("clock, MHz")
            all_axes[-1].legend(loc="lower right", ncols=len(clocks))
        for axes in all_axes:
            from_nought(axes)
        all_axes[-1].set_xlabel("seconds of load")

    return made(
        f"jetson-{place}",
        f"{row.get('model')}: exams one after another; medians of equal parts of the time.",
        draw,
        height_in=0.5 + 1.25 * panels,
    )


def _has(series: Sequence[Row], key: str) -> bool:
    return any(measured(point.get(key)) is not None for point in series)


def _values(series: Sequence[Row], key: str) -> list[float]:
    found = (measured(point.get(key)) for point in series)
    return [float("nan") if one is None else one for one in found]
