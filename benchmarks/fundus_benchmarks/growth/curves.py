"""Rows of the `growth` part: a curve's points, and the line that fits them best.

Points take turns, so that a busy moment of the machine falls on all of them, and in another order
each round, since what ran before leaves clocks, caches and sleeping cores behind. The line is that
of least squares through their medians; its r² is None where it says nothing: two points lie on
their line whatever they are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fundus_benchmarks.ratios.turns import Contender, take_turns
from fundus_runtime.latency.timing import Timing, took_ms

__all__ = ["Curve", "Effort", "Line", "Point", "fit_line", "points_in_turns"]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seconds: a curve is timed for, at least.
        threads: of every engine, save where threads are what is varied.
        models: that batch, threads and trunk are varied on.
        full: also what takes many minutes to make or to time.
    """

    seconds: float
    threads: int
    models: tuple[str, ...] = ("edge", "paper")
    full: bool = False

    @property
    def seconds_a_model(self) -> float:
        """A model's part of a curve that each is timed alone for."""
        return self.seconds / len(self.models)


@dataclass(frozen=True)
class Line:
    """y = slope · x + intercept.

    Attributes:
        slope: None where fewer than two different x were measured, or no line is meant.
        intercept: likewise.
        r2: share of the points' variance that the line explains; None below three points, and
            where all y are the same.
    """

    slope: float | None
    intercept: float | None
    r2: float | None


@dataclass(frozen=True)
class Point:
    """One measured point.

    Attributes:
        x: in the curve's unit.
        y: likewise, the median where it was measured several times.
        p90: nine in ten were at most this; None where y was measured once.
        label: what x is, in words; None where the number says it.
    """

    x: float
    y: float
    p90: float | None = None
    label: str | None = None


@dataclass(frozen=True)
class Curve:
    """What grows with what.

    Attributes:
        name: of the curve.
        what: in words, a plot's title; curves of several models share it.
        model: whose.
        x: what is varied.
        x_unit: its unit.
        points: in the order of x.
        y: what was measured.
        y_unit: its unit.
        settings: further keys of the row, such as dialect and threads.
        fitted: whether a line is what the points should lie on.
    """

    name: str
    what: str
    model: str | None
    x: str
    x_unit: str
    points: Sequence[Point]
    y: str = "p50"
    y_unit: str = "ms"
    settings: Mapping[str, Any] | None = None
    fitted: bool = True

    @property
    def line(self) -> Line:
        """Through the points; nowhere where none is meant."""
        points = self.points if self.fitted else ()
        return fit_line([point.x for point in points], [point.y for point in points])

    def row(self) -> dict[str, Any]:
        """As the part holds it."""
        return {
            "curve": self.name,
            "what": self.what,
            "model": self.model,
            "x": self.x,
            "x_unit": self.x_unit,
            "y": self.y,
            "y_unit": self.y_unit,
            "points": [asdict(point) for point in self.points],
            **asdict(self.line),
            **(self.settings or {}),
        }


def points_in_turns(
    contenders: Mapping[tuple[str, float], Contender],
    seconds: float,
    labels: Mapping[float, str] | None = None,
) -> dict[str, list[Point]]:
    """Time all points of several series in turns, in another order each round.

    Args:
        contenders: by series and x.
        seconds: in all, at least.
        labels: what an x is, in words.

    Returns:
        The points of each series, in the order of x; medians and 90th percentiles in milliseconds.
    """
    keys, shuffle = sorted(contenders, key=lambda key: key[1]), random.Random(0).shuffle
    samples: dict[tuple[str, float], list[float]] = {key: [] for key in keys}
    order = list(keys)

    def place(number: int) -> Contender:
        """The contender whose turn it is at this place of a round."""

        def once(turn: int) -> float:
            if number == 0:
                shuffle(order)
            key = order[number]
            own_ms, whole_ms = took_ms(lambda: contenders[key](turn))
            samples[key].append(whole_ms if own_ms is None else own_ms)
            return samples[key][-1]

        return once

    rounds = take_turns({str(k): place(k) for k in range(len(keys))}, seconds=seconds)
    kept = len(rounds.ms["0"])  # what came before was warm-up
    points: dict[str, list[Point]] = {}
    for series, x in keys:
        timing = Timing.of(samples[series, x][-kept:])
        points.setdefault(series, []).append(
            Point(x, round(timing.p50_ms, 3), round(timing.p90_ms, 3), (labels or {}).get(x))
        )
    return points


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """The line of least squares.

    Args:
        xs: where it was measured.
        ys: what was measured there.
    """
    x, y = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    if np.unique(x).size < 2:
        return Line(None, None, None)
    from_mean = x - x.mean()
    slope = float(from_mean @ y / (from_mean @ from_mean))
    intercept = float(y.mean() - slope * x.mean())
    spread = float(((y - y.mean()) ** 2).sum())
    if len(x) < 3 or spread == 0.0:
        return Line(slope, intercept, None)
    unexplained = float(((y - slope * x - intercept) ** 2).sum())
    return Line(slope, intercept, 1.0 - unexplained / spread)
