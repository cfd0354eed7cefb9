"""How an engine uses the machine: threads, cores, waiting, memory, warm-up.

The defaults are for a robot that has other work to do: from three cores on one is left to it,
nothing of ours runs between two photographs, and no thread of the host program is moved. A screener
has one budget of `threads`: an engine's run takes all of them, preparing a ready pair takes one for
each eye, and preparing an eye of an exam takes the calling one alone.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fundus_runtime.errors import UsageError

__all__ = [
    "PRECISIONS",
    "PROVIDERS",
    "EngineSettings",
    "Precision",
    "Provider",
    "Spinning",
    "default_threads",
]

Provider = Literal["cpu", "cuda", "tensorrt"]
Precision = Literal["fp32", "tf32", "fp16", "int8"]
Spinning = Literal["while_running", "never"]

PROVIDERS: tuple[str, ...] = get_args(Provider)
PRECISIONS: tuple[str, ...] = get_args(Precision)

_LOG = logging.getLogger(__name__)

_MAX_DEFAULT_THREADS = 4
_ALL_BUT_ONE_FROM = 3
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class EngineSettings:
    """What an engine may use.

    Attributes:
        threads: within one operator on the CPU; None for `default_threads()`.
        affinity: numbers of the logical CPUs, as the system counts them, one for each thread; the
            first is for the thread that runs the engine, the others for the engine's own. None
            gives each its own where there are as many threads as CPUs; there as elsewhere an empty
            one leaves them where the system puts them. CPUs need `threads`, or set it.
        spinning: `while_running` lets threads spin between two operators of one run and sleep when
            it returns: fastest where the cores are free. `never` makes them sleep at once: better
            where other programs keep all cores busy. On a GPU: how a thread waits for it.
        arena: whether ONNX Runtime keeps the memory of a run for the next one.
        warm_up_runs: runs of encoder and head before the engine is handed out, each at batch 1 and
            2; 0 for none.
        precision: `fp32`, `tf32`, `fp16` or `int8`; None for what the bundle declares for the
            device, or what plans were built for.
        device: number of the GPU.
        cuda_graphs: whether `tensorrt` replays each run as one CUDA graph.

    Raises:
        UsageError: a value is out of its range, or two contradict each other.
    """

    threads: int | None = None
    affinity: tuple[int, ...] | None = None
    spinning: Spinning = "while_running"
    arena: bool = True
    warm_up_runs: int = 1
    precision: Precision | None = None
    device: int = 0
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        for name, value, least in (
            ("threads", self.threads, 1),
            ("warm_up_runs", self.warm_up_runs, 0),
            ("device", self.device, 0),
        ):
            if value is not None and (type(value) is not int or value < least):
                raise UsageError(f"{name} must be a whole number, at least {least}, got {value!r}")
        _require_one_of("spinning", self.spinning, get_args(Spinning))
        if self.precision is not None:
            _require_one_of("precision", self.precision, PRECISIONS)
        if self.affinity is not None:
            self._require_affinity(self.affinity)

    @property
    def thread_count(self) -> int:
        """Threads of one run: as asked for, as many as `affinity` names, or the default."""
        if self.threads is not None:
            return self.threads
        return len(self.affinity) if self.affinity else default_threads()

    def with_own_cpus(self) -> EngineSettings:
        """These settings; without an affinity, but with as many threads as CPUs, one for each.

        Threads that work in step lose milliseconds when the system wakes two of them on one CPU,
        which it does after a rest; with a CPU to spare it does not.
        """
        allowed = _allowed_cpus()
        if self.affinity is not None or not len(allowed) == self.thread_count > 1:
            return self
        return replace(self, threads=len(allowed), affinity=tuple(sorted(allowed)))

    def pin_calling_thread(self, place: int = 0) -> None:
        """Keep the calling thread on one CPU of `affinity`, the first; nothing without one.

        For a thread of one's own that calls the engine; never for one of the host program. A CPU
        that was taken away meanwhile is a warning, since no exam should fail for it.
        """
        if self.affinity:
            _keep_on(set(self.affinity[place : place + 1]))

    def keeps_calling_thread(self) -> bool:
        """Whether the calling thread is kept on the first CPU of `affinity`, and on no other."""
        return _allowed_cpus() == {self.affinity[0]} if self.affinity else False

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        affinity = None if self.affinity is None else list(self.affinity)
        return {**asdict(self), "affinity": affinity}

    def _require_affinity(self, cpus: object) -> None:
        if not isinstance(cpus, tuple):
            raise UsageError(f"affinity is {cpus!r}, expected a tuple of numbers of CPUs")
        if not cpus:
            return
        allowed = _allowed_cpus()
        if len(set(cpus)) != len(cpus) or (allowed and not set(cpus) <= allowed):
            raise UsageError(
                f"affinity names the CPUs {list(cpus)}, expected different ones of those that this "
                f"process may use: {sorted(allowed)}"
            )
        if self.threads is not None and self.threads != len(cpus):
            raise UsageError(
                f"affinity names {len(cpus)} CPUs for {self.threads} threads; name one for each"
            )


def _keep_on(cpus: set[int]) -> None:
    if not cpus or not hasattr(os, "sched_setaffinity"):
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        _LOG.warning(
            "a thread cannot be kept on the CPUs %s (%s) and runs where the system puts it; name "
            "CPUs that this process may use",
            sorted(cpus),
            error,
        )


def default_threads() -> int:
    """Physical cores that this process may use, one of them left to others, at most 4.

    Two threads on one core share its arithmetic units and slow each other down, and the layers of
    an edge model are too small to feed more than about four. Of two cores both are taken. A
    container's CPU quota counts as that many cores.
    """
    cores = len({_siblings(cpu) for cpu in _allowed_cpus()}) or os.cpu_count() or 1
    quota = _cpu_quota()
    if quota is not None and quota < cores:
        return max(1, min(quota, _MAX_DEFAULT_THREADS))
    if cores >= _ALL_BUT_ONE_FROM:
        cores -= 1
    return max(1, min(cores, _MAX_DEFAULT_THREADS))


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _allowed_cpus() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _cpu_quota() -> int | None:
    """Whole CPUs that a container may use; None without a quota."""
    try:
        quota, period = _CPU_QUOTA.read_text().split()[:2]
        return max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):  # `max 100000` is no quota
        return None
