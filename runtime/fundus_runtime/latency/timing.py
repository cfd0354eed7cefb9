"""Durations and their percentiles, in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

__all__ = ["Timing", "took_ms"]

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Timing:
    """How long something took, over `count` times.

    Attributes:
        count: how often it was measured.
        p50_ms: median.
        p90_ms: nine in ten were as fast.
        p99_ms: 99 in a hundred were; close to the maximum below about 100 times.
        max_ms: the slowest.
    """

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, durations_ms: Sequence[float]) -> Timing:
        """The percentiles of at least one duration."""
        p50, p90, p99, slowest = np.percentile(np.asarray(durations_ms, float), (50, 90, 99, 100))
        return cls(len(durations_ms), float(p50), float(p90), float(p99), float(slowest))

    def to_dict(self) -> dict[str, float]:
        """The values as JSON-able ones, to a microsecond."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def took_ms(call: Callable[[], _Value]) -> tuple[_Value, float]:
    """What a call returns, and how long it took."""
    start = time.perf_counter()
    value = call()
    return value, 1e3 * (time.perf_counter() - start)
