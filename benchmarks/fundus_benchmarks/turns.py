"""Contenders take turns in one process: a busy moment of the machine falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import count

from fundus_runtime.latency.timing import Timing

__all__ = ["Contender", "take_turns"]

# Given the number of the round, does the work once. It returns how many milliseconds it took where
# only a part of it counts, else None: then the whole call counts.
Contender = Callable[[int], "float | None"]

_WARM_UP = 2
_LEAST = 7
# Threads of the one before may still spin; until then the next would share the cores with them.
_PAUSE_S = 0.02


def take_turns(contenders: Mapping[str, Contender], *, seconds: float) -> dict[str, Timing]:
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
    return {name: Timing.of(found[_WARM_UP:]) for name, found in samples.items()}


def _once(contender: Contender, turn: int) -> float:
    start = time.perf_counter()
    own_ms = contender(turn)
    whole_ms = 1e3 * (time.perf_counter() - start)
    return whole_ms if own_ms is None else own_ms
