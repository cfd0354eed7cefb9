"""The range of every activation that is to be quantised, measured on calibration photographs.

One pass over the photographs; memory holds one exam's activations and a histogram a tensor, however
many photographs there are. The same measurement serves unsigned scales (`low` to `high`) and
symmetric ones (the larger magnitude of both).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy.typing as npt
from tqdm import tqdm

from fundus_export.errors import ExportError
from fundus_export.quantise.cpu_graph import CpuGraph
from fundus_export.quantise.histogram import ChannelMeans, Extremes, SignedHistogram
from fundus_export.quantise.images import Minimum

__all__ = ["DEFAULT_PERCENTILE", "METHODS", "RangeMethod", "TensorRange", "measure_ranges"]

MethodName = Literal["percentile", "minmax"]
METHODS: tuple[str, ...] = get_args(MethodName)
DEFAULT_PERCENTILE = 99.99
_PLAIN_PERCENTILE = 100.0

# The largest of n eyes' values is passed by the next eye with a probability of 1 / (n + 1): 3 % at
# 32. More eyes only widen the range further, outlier by outlier.
_MINMAX_EYES, _MINMAX_PAIRS = 32, 16
# A percentile is of use where the values beyond it belong to more than an eye or two. The smallest
# maps have some 5,000 values an eye: of 64 eyes, 99.99 % leave out 32, one for every second eye.
_PERCENTILE_EYES, _PERCENTILE_PAIRS = 64, 32


@dataclass(frozen=True)
class RangeMethod:
    """How a range is chosen from the values.

    Attributes:
        name: `percentile`, or `minmax` for everything that was seen.
        percentile: of the signed values, on either side; 100 for `minmax`.
    """

    name: MethodName = "percentile"
    percentile: float = DEFAULT_PERCENTILE

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ExportError: the method is unknown or the percentile out of range.
        """
        if self.name not in METHODS:
            raise ExportError(f"the method is {self.name!r}, expected {' or '.join(METHODS)}")
        if self.name == "minmax":
            object.__setattr__(self, "percentile", _PLAIN_PERCENTILE)
        if isinstance(self.percentile, bool) or not isinstance(self.percentile, int | float):
            raise ExportError(f"the percentile is {self.percentile!r}, expected a number")
        if not 50 < self.percentile <= 100:
            raise ExportError(
                f"the percentile is {self.percentile}, expected more than 50 and at most 100; "
                f"{DEFAULT_PERCENTILE} is usual"
            )
        object.__setattr__(self, "percentile", float(self.percentile))

    def __str__(self) -> str:
        return "min-max" if self.name == "minmax" else f"percentile {self.percentile:g}"

    @property
    def minimum(self) -> Minimum:
        """How many photographs it needs."""
        if self.name == "minmax":
            return Minimum(_MINMAX_EYES, _MINMAX_PAIRS, f"calibration by {self}")
        return Minimum(_PERCENTILE_EYES, _PERCENTILE_PAIRS, f"calibration by {self}")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"name": self.name, "percentile": self.percentile}


@dataclass(frozen=True)
class TensorRange:
    """A tensor's range; `low <= 0 <= high`, since zero must have a quantised value of its own.

    Attributes:
        low: the smallest value to represent.
        high: the largest value to represent.
        largest: the largest magnitude that was seen, which the method may have left outside.
        means: the mean of each channel (axis 1 of a map N x C x H x W, else the last axis), which
            bias correction needs; empty where it is not known.
    """

    low: float
    high: float
    largest: float
    means: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ExportError: they are no range.
        """
        if not -math.inf < -self.largest <= self.low <= 0 <= self.high <= self.largest:
            raise ExportError(
                f"low {self.low}, high {self.high} and largest {self.largest} are no range; "
                "expected -largest <= low <= 0 <= high <= largest, all finite"
            )

    def to_list(self) -> list[Any]:
        """As plain JSON values: low, high, largest, and the list of means."""
        return [self.low, self.high, self.largest, list(self.means)]

    @classmethod
    def from_list(cls, values: Any) -> TensorRange:
        """Read a range back.

        Raises:
            ExportError: they are no range.
            TypeError: the values are not of that form.
            ValueError: they are too many, too few, or no numbers.
        """
        low, high, largest, means = values
        return cls(float(low), float(high), float(largest), tuple(float(mean) for mean in means))

    @property
    def dead(self) -> bool:
        """Whether nothing but zero was seen, so that no scale follows from it."""
        return self.largest == 0

    @property
    def magnitude(self) -> float:
        """The larger end, for a symmetric scale."""
        return max(-self.low, self.high)


def measure_ranges(
    graph: bytes,
    feeds: Callable[[], Iterable[Mapping[str, npt.NDArray[Any]]]],
    tensors: Sequence[str],
    method: RangeMethod,
    *,
    total: int,
    describe: str = "measuring ranges",
    progress: bool = True,
) -> dict[str, TensorRange]:
    """Run a graph over all feeds and measure tensors on the way.

    Args:
        graph: the FP32 graph, serialised; it is executed as it is written, nothing merged.
        feeds: called once; what the graph's inputs get, one exam after the other.
        tensors: float32 inputs or results of nodes.
        method: how ranges are chosen.
        total: how many feeds will come, for the progress bar.
        describe: what the progress bar and errors say.
        progress: show a progress bar on stderr.

    Returns:
        The ranges, in the order of `tensors`.

    Raises:
        ExportError: a tensor is not in the graph, no feed came, the engine failed, or a tensor had
            a NaN or an infinity.
    """
    wanted = tuple(dict.fromkeys(tensors))
    running = CpuGraph(graph, "the graph", tensors=wanted)
    trackers = {tensor: _tracker(method) for tensor in wanted}
    means = {tensor: ChannelMeans() for tensor in wanted}
    count = 0
    shown = tqdm(
        feeds(),
        total=total,
        desc=describe,
        unit="exam",
        disable=not progress,
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )
    for feed in shown:
        count += 1
        # in the order of computation, so that the first NaN is where it arose
        for tensor, values in running.run(feed).items():
            if not trackers[tensor].add(values):
                raise ExportError(
                    f"{describe}: {tensor!r} holds NaN or infinity in exam {count}, the first "
                    "tensor to do so; such a model cannot be quantised: check its weights"
                )
            means[tensor].add(values)
    if not count:
        raise ExportError(f"{describe}: there is no exam to measure with; give photographs")
    return {tensor: _range_of(trackers[tensor], means[tensor], method) for tensor in wanted}


def _tracker(method: RangeMethod) -> Extremes:
    return Extremes() if method.name == "minmax" else SignedHistogram()


def _range_of(tracker: Extremes, means: ChannelMeans, method: RangeMethod) -> TensorRange:
    low, high = tracker.lowest, tracker.highest
    if isinstance(tracker, SignedHistogram):
        low, high = tracker.span(method.percentile)
    return TensorRange(min(low, 0.0), max(high, 0.0), tracker.largest, means.values())
