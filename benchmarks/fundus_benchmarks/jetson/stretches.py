"""Stretches of time, and values that were read over time; all moments by `time.perf_counter`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["Series", "Stretch"]


@dataclass(frozen=True)
class Stretch:
    """From when to when."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def first(self, seconds: float) -> Stretch:
        """Its beginning."""
        return Stretch(self.start_s, min(self.end_s, self.start_s + seconds))

    def last(self, seconds: float) -> Stretch:
        """Its end."""
        return Stretch(max(self.start_s, self.end_s - seconds), self.end_s)

    def parts(self, count: int) -> list[Stretch]:
        """As many equal parts."""
        edges = [float(edge) for edge in np.linspace(self.start_s, self.end_s, count + 1)]
        return [Stretch(*both) for both in pairwise(edges)]

    def holds(self, at_s: float) -> bool:
        """Whether a moment lies in it."""
        return self.start_s <= at_s <= self.end_s


@dataclass(frozen=True)
class Series:
    """A value at ascending moments.

    Attributes:
        times_s: the moments.
        values: as many.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, points: Iterable[tuple[float, float | None]]) -> Series:
        """Of moments and values; those without a value are left out."""
        known = [(at_s, value) for at_s, value in points if value is not None]
        return cls(tuple(at_s for at_s, _ in known), tuple(value for _, value in known))

    def within(self, stretch: Stretch) -> list[float]:
        """The values that were read in a stretch."""
        both = zip(self.times_s, self.values, strict=True)
        return [value for at_s, value in both if stretch.holds(at_s)]

    def median(self, stretch: Stretch) -> float | None:
        """The median in a stretch; None where nothing was read."""
        found = self.within(stretch)
        return float(np.median(found)) if found else None

    def lowest(self, stretch: Stretch) -> float | None:
        """The lowest value in a stretch; None where nothing was read."""
        return min(self.within(stretch), default=None)

    def highest(self, stretch: Stretch) -> float | None:
        """The highest value in a stretch; None where nothing was read."""
        return max(self.within(stretch), default=None)

    def longest_gap_s(self, stretch: Stretch) -> float:
        """The longest time in a stretch during which nothing was read."""
        inside = [at_s for at_s in self.times_s if stretch.holds(at_s)]
        return float(np.max(np.diff([stretch.start_s, *inside, stretch.end_s])))

    def integral(self, stretch: Stretch) -> float | None:
        """The area below the values, by trapezoids, straight on between two readings.

        Returns:
            Values times seconds, or None where the readings do not reach over the whole stretch.
        """
        times = np.array(self.times_s)
        if len(times) == 0 or not times[0] <= stretch.start_s <= stretch.end_s <= times[-1]:
            return None
        inside = times[(times > stretch.start_s) & (times < stretch.end_s)]
        at = np.concatenate(([stretch.start_s], inside, [stretch.end_s]))
        values = np.interp(at, times, np.array(self.values))
        return float(np.sum((values[1:] + values[:-1]) / 2 * np.diff(at)))
