"""Counts of a tensor's values in memory that does not grow, from which percentiles can be read.

Values are float32 arrays of any shape; they are counted once and not kept. What is read afterwards
depends on the values alone, not on their order or on how they came in portions.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

__all__ = ["BINS_A_SIDE", "ChannelMeans", "Extremes", "SignedHistogram"]

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

# A bin is at most 1/2048 of the largest value wide, a sixteenth of an INT8 step at the widest scale
# that may be chosen; 8 bytes a bin are 64 KiB a tensor.
BINS_A_SIDE = 4096
_BINS_LOG2 = 12
# Below 2**-100 a value counts as zero: no FP16 scale reaches as far, and bins stay normal numbers.
_SMALLEST_EXPONENT = -100
# values worked on at once, so that the steps in between stay in the processor's cache
_BLOCK = 1 << 16


class ChannelMeans:
    """The mean of each channel: axis 1 of a map N x C x H x W, else the last axis."""

    def __init__(self) -> None:
        self._sums: npt.NDArray[np.float64] | None = None
        self._count = 0

    def add(self, values: Float32Array) -> None:
        """Take values in, with as many channels each time."""
        if not values.ndim:
            return
        channel = 1 if values.ndim == 4 else values.ndim - 1
        others = tuple(axis for axis in range(values.ndim) if axis != channel)
        sums = values.sum(axis=others, dtype=np.float64)
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += values.size // values.shape[channel] if values.size else 0

    def values(self) -> tuple[float, ...]:
        """A mean a channel; empty before any value came."""
        if self._sums is None or not self._count:
            return ()
        return tuple(float(mean) for mean in self._sums / self._count)


class Extremes:
    """The smallest and the largest value.

    Attributes:
        lowest: 0 before any value came.
        highest: 0 before any value came.
        count: of values.
    """

    def __init__(self) -> None:
        self.lowest = 0.0
        self.highest = 0.0
        self.count = 0

    def add(self, values: Float32Array) -> bool:
        """Take values in; false, and nothing taken, where one is NaN or infinite."""
        if not values.size:
            return True
        low, high = float(values.min()), float(values.max())  # NaN wins both
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        self.lowest = min(self.lowest, low) if self.count else low
        self.highest = max(self.highest, high) if self.count else high
        self.count += values.size
        return True

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.lowest), abs(self.highest))


class SignedHistogram(Extremes):
    """Counts in bins of one width over both signs, with 2 * `BINS_A_SIDE` - 1 bins.

    Bin t holds the values that are t widths after rounding towards zero, so that bin 0 is twice as
    wide. The width is a power of two. When a larger value comes, the width is doubled until the
    value fits, and bins are merged; rounding towards zero twice is rounding once, and so the counts
    are those that the final width would have given from the start.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exponent = _SMALLEST_EXPONENT  # all magnitudes are below 2 ** exponent
        self._counts = np.zeros(2 * BINS_A_SIDE - 1, dtype=np.int64)

    @property
    def width(self) -> float:
        """Of a bin."""
        return math.ldexp(1.0, self._exponent - _BINS_LOG2)

    def add(self, values: Float32Array) -> bool:
        """Count values; false, and nothing counted, where one is NaN or infinite."""
        if not super().add(values):
            return False
        if self.largest > 0:
            self._grow_to(math.frexp(self.largest)[1])
        flat = values.reshape(-1)
        scale = np.float32(1.0 / self.width)
        for start in range(0, flat.size, _BLOCK):
            # exact: the scale is a power of two. The cast rounds towards zero.
            bins = (flat[start : start + _BLOCK] * scale).astype(np.int32)
            bins += BINS_A_SIDE - 1
            self._counts += np.bincount(bins, minlength=self._counts.size)
        return True

    def span(self, percentile: float) -> tuple[float, float]:
        """The range outside which at most 100 - percentile % of the values lie on either side.

        Both ends lie on the outer edge of the bin that holds the percentile (by the rule
        `inverted_cdf` of NumPy), or on the extreme value where that is nearer: never inside the
        true percentile, and outside it by at most a width, in bin 0 by at most two.

        Args:
            percentile: above 50, at most 100.
        """
        if not self.count:
            return 0.0, 0.0
        # in decimal, as it was written: 100 - 99.9 in binary would leave out one value too few
        outside = int(self.count * (100 - Fraction(repr(float(percentile)))) / 100)
        top = _last_bin(self._counts, outside) - (BINS_A_SIDE - 1)
        bottom = (BINS_A_SIDE - 1) - _last_bin(self._counts[::-1], outside)
        high = (top + 1 if top >= 0 else top) * self.width
        low = (bottom - 1 if bottom <= 0 else bottom) * self.width
        return max(low, self.lowest), min(high, self.highest)

    def _grow_to(self, exponent: int) -> None:
        if exponent <= self._exponent:
            return
        # beyond this every value is in bin 0; also keeps the shift within 64 bits
        shift = min(exponent - self._exponent, _BINS_LOG2)
        bins = np.arange(1 - BINS_A_SIDE, BINS_A_SIDE)
        merged = np.sign(bins) * (np.abs(bins) >> shift) + (BINS_A_SIDE - 1)
        counts = np.zeros_like(self._counts)
        np.add.at(counts, merged, self._counts)
        self._counts, self._exponent = counts, exponent


def _last_bin(counts: Int64Array, outside: int) -> int:
    """The last bin after which at most `outside` values come."""
    after = np.cumsum(counts[::-1])[::-1]  # in this bin and all after it
    return int(np.flatnonzero(after > outside)[-1])
