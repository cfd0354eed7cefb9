"""What this machine reaches at best: matrix products in FP32 and INT8, and copying memory.

A peak is a maximum: of several libraries and shapes, each the fastest of many short repetitions.
Shapes range from ones that stay in a core's own cache to ones that give every thread enough to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from fundus_benchmarks.limits.products import LIBRARIES, Factors, Kind, Library, WrongProductError

__all__ = ["Measured", "Peaks", "fastest_s", "measure_copy", "measure_peaks", "measure_product"]

SIDES = (384, 512, 768, 1024)
# Twice that is in play, several times any cache; source and target differ.
COPIED_MB = 256
_LEAST_REPETITIONS = 5
_FIGURES: dict[Kind, str] = {"fp32": "fp32_gflops", "int8": "int8_gops"}
_COPY = "copy_gb_s"


@dataclass(frozen=True)
class Measured:
    """What one contender reached.

    Attributes:
        figure: `fp32_gflops`, `int8_gops` or `copy_gb_s`.
        by: library and shape.
        threads: that it had.
        value: 10^9 operations, or bytes read and written, a second.
    """

    figure: str
    by: str
    threads: int
    value: float


@dataclass(frozen=True)
class Peaks:
    """What all contenders reached.

    Attributes:
        threads_all: the most threads that any had.
        measured: each contender.
        missing: `what` was not measured, and `why`.
    """

    threads_all: int
    measured: tuple[Measured, ...]
    missing: tuple[dict[str, str], ...] = ()

    def best(self, figure: str, threads: int) -> Measured:
        """The fastest with at most this many threads: more of them may be slower.

        Raises:
            RuntimeError: nothing was measured.
        """
        found = [one for one in self.measured if one.figure == figure and one.threads <= threads]
        if not found:
            said = "; ".join(f"{one['what']}: {one['why']}" for one in self.missing)
            raise RuntimeError(f"no library reached a figure for {figure} ({said or 'none ran'})")
        return max(found, key=lambda one: one.value)

    def to_dict(self) -> dict[str, float]:
        """The peaks with one thread and with all."""
        figures = {name: round(one.value, 2) for name, one in self._by_name().items()}
        return {**figures, "threads_all": self.threads_all}

    def named(self) -> dict[str, str]:
        """Who reached each peak."""
        return {
            name: f"{one.by}, {one.threads} thread{'' if one.threads == 1 else 's'}"
            for name, one in self._by_name().items()
        }

    def _by_name(self) -> dict[str, Measured]:
        counts = {"1": 1, "all": self.threads_all}
        return {
            f"{figure}_{word}": self.best(figure, threads)
            for figure in (*_FIGURES.values(), _COPY)
            for word, threads in counts.items()
        }


def measure_peaks(
    *,
    threads: int,
    seconds: float,
    libraries: Sequence[Library] = LIBRARIES,
    sides: Sequence[int] = SIDES,
    copied_mb: int = COPIED_MB,
    progress: bool = True,
) -> Peaks:
    """Measure every contender with one thread and with all.

    Args:
        threads: all of them.
        seconds: of measuring, in all.
        libraries: that multiply; those not installed are named as missing.
        sides: rows and columns of the matrices.
        copied_mb: size of the buffer that is copied, in 2^20 bytes.
        progress: show a bar on stderr.
    """
    missing = [
        {"what": f"matrix products of {one.name}", "why": "not installed"}
        for one in libraries
        if not one.is_installed
    ]
    jobs: list[Callable[[float], Measured]] = [
        partial(measure_copy, count, megabytes=copied_mb) for count in sorted({1, threads})
    ]
    present = [one for one in libraries if one.is_installed]
    jobs += [job for kind in _FIGURES for job in _products(present, kind, sides, threads)]
    measured = []
    for job in tqdm(jobs, desc="peaks", unit="contender", disable=not progress):
        try:
            measured.append(job(seconds / len(jobs)))
        except WrongProductError as error:
            missing.append({"what": "peak of a matrix product", "why": str(error)})
    return Peaks(threads, tuple(measured), tuple(missing))


def measure_product(library: Library, factors: Factors, threads: int, seconds: float) -> Measured:
    """Verify one library's product, then time it.

    Raises:
        WrongProductError: the answer is not NumPy's.
    """
    by = f"{library.name}, {factors.side}×{factors.side}×{factors.side}"
    with library.multiplying(factors, threads) as multiply:
        factors.require_product(multiply(), by)
        fastest = fastest_s(multiply, seconds=seconds)
    return Measured(_FIGURES[factors.kind], by, threads, factors.operations / fastest / 1e9)


def measure_copy(threads: int, seconds: float, *, megabytes: int = COPIED_MB) -> Measured:
    """Copy a buffer that no cache holds; bytes read and bytes written both count.

    Raises:
        RuntimeError: the copy is not the source.
    """
    source = np.random.default_rng(0).integers(0, 256, megabytes << 20, np.uint8)
    target = np.zeros_like(source)
    parts = np.array_split(target, threads), np.array_split(source, threads)
    with ThreadPoolExecutor(threads) as pool:  # NumPy releases the interpreter's lock as it copies
        fastest = fastest_s(lambda: list(pool.map(np.copyto, *parts)), seconds=seconds)
    if not np.array_equal(source, target):
        raise RuntimeError("the copy differs from its source")
    by = f"NumPy, {megabytes} MiB"
    return Measured(_COPY, by, threads, 2 * source.nbytes / fastest / 1e9)


def fastest_s(call: Callable[[], object], *, seconds: float) -> float:
    """The fastest of many calls, after one that does not count; at least five."""
    call()
    fastest, count, end = float("inf"), 0, time.perf_counter() + seconds
    while count < _LEAST_REPETITIONS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
        count += 1
    return fastest


def _products(
    libraries: Sequence[Library], kind: Kind, sides: Sequence[int], threads: int
) -> list[Callable[[float], Measured]]:
    jobs: list[Callable[[float], Measured]] = []
    for side in sides:
        factors = Factors.drawn(kind, side)
        jobs += [
            partial(measure_product, library, factors, count)
            for library in libraries
            if kind in library.kinds
            for count in sorted({1, threads})
        ]
    return jobs
