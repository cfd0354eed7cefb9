"""Contenders take turns in one process: a busy moment of the machine falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.latency.timing import Timing

__all__ = ["Contender", "Rounds", "take_turns"]

# Given the number of the round, does the work once. It returns how many milliseconds it took where
# only a part of it counts, else None: then the whole call counts.
Contender = Callable[[int], "float | None"]

_WARM_UP = 2
_LEAST = 7
# Each finds a machine at rest, as a robot's exam does; threads of the one before no longer spin.
_PAUSE_S = 0.1


@dataclass(frozen=True)
class Rounds:
    """What each contender took in each round.

    Attributes:
        ms: by name, a value a round.
    """

    ms: Mapping[str, NDArray[np.float64]]

    @property
    def timings(self) -> dict[str, Timing]:
        """The percentiles of each contender."""
        return {name: Timing.of(list(values)) for name, values in self.ms.items()}

    def ratio(self, slower: str, faster: str) -> float:
        """Median over the rounds of how many times as long one took as the other."""
        return float(np.median(self.ms[slower] / self.ms[faster]))

    def beyond_ms(self, whole: str, parts: Sequence[str]) -> float:
        """Median over the rounds of what one took beyond the sum of others."""
        return float(np.median(self.ms[whole] - sum(self.ms[part] for part in parts)))


def take_turns(contenders: Mapping[str, Contender], *, seconds: float) -> Rounds:
    """Time every contender once a round, for at least `seconds` and seven rounds.

    Args:
        contenders: by name.
        seconds: in all.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    end = None
    for turn in count():
        for name, contender in contenders.items():
            samples[name].append(_once(contender, turn))
            time.sleep(_PAUSE_S)
        if turn + 1 < _WARM_UP:
            continue
        end = time.perf_counter() + seconds if end is None else end
        if turn + 1 >= _WARM_UP + _LEAST and time.perf_counter() >= end:
            break
    return Rounds({name: np.array(found[_WARM_UP:]) for name, found in samples.items()})


def _once(contender: Contender, turn: int) -> float:
    start = time.perf_counter()
    own_ms = contender(turn)
    whole_ms = 1e3 * (time.perf_counter() - start)
    return whole_ms if own_ms is None else own_ms
