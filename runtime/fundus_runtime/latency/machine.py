"""What a figure was measured on: processor, clocks, memory, and on Jetson power mode and heat.

What this host does not tell is None, and named in `not_available`; nothing is guessed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["describe_machine", "memory_mb", "process_threads", "temperatures_c", "text_of"]

_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_DEVICE_MODEL = Path("/proc/device-tree/model")
_THERMAL = Path("/sys/class/thermal")
_STATUS = Path("/proc/self/status")
_NVPMODEL_SECONDS = 5
_NVPMODEL_ANSWER = "NV Power Mode:"


def describe_machine() -> dict[str, Any]:
    """The machine as JSON-able values."""
    found = {
        "device": _device_model(),
        "processor": _processor(),
        "usable_processors": _usable_processors(),
        "memory_mb": _meminfo_mb("MemTotal"),
        "kernel": platform.release(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "clock_mhz": _clock_mhz(),
        "clock_governor": text_of(_CPUFREQ / "scaling_governor"),
        "power_mode": _power_mode(),
        "temperatures_c": temperatures_c() or None,
    }
    return {**found, "not_available": [name for name, value in found.items() if value is None]}


def temperatures_c() -> dict[str, float]:
    """Degrees Celsius by thermal zone; empty where the host shows none."""
    zones = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        kind, value = text_of(zone / "type"), text_of(zone / "temp")
        if kind is not None and value is not None and value.lstrip("-").isdigit():
            zones[kind] = int(value) / 1000
    return zones


def memory_mb() -> dict[str, float | None]:
    """Resident memory of this process now and at its peak, in 10^6 bytes."""
    return {"resident": _status_mb("VmRSS"), "peak": _status_mb("VmHWM")}


def process_threads() -> int | None:
    """Threads of this process at this moment, the engine's own ones counted."""
    for line in _lines(_STATUS):
        if line.startswith("Threads:"):
            return int(line.split(":", 1)[1])
    return None


def _usable_processors() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _device_model() -> str | None:
    text = text_of(_DEVICE_MODEL)
    return None if text is None else text.rstrip("\0")


def _processor() -> str | None:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or None


def _clock_mhz() -> float | None:
    """The first core's clock at this moment."""
    scaled = text_of(_CPUFREQ / "scaling_cur_freq")
    if scaled is not None and scaled.isdigit():
        return int(scaled) / 1000
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("cpu MHz"):
            return float(line.split(":", 1)[1])
    return None


def _power_mode() -> str | None:
    """Jetson's power mode, as nvpmodel names it; warnings may stand before it."""
    program = shutil.which("nvpmodel")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-q"], capture_output=True, text=True, timeout=_NVPMODEL_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    for line in done.stdout.splitlines():
        if line.startswith(_NVPMODEL_ANSWER):
            return line.removeprefix(_NVPMODEL_ANSWER).strip()
    return None


def _meminfo_mb(name: str) -> float | None:
    return _kilobytes(Path("/proc/meminfo"), name)


def _status_mb(name: str) -> float | None:
    return _kilobytes(_STATUS, name)


def _kilobytes(path: Path, name: str) -> float | None:
    """A line `name: 123 kB`, in 10^6 bytes."""
    for line in _lines(path):
        if line.startswith(name + ":"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


def _lines(path: Path) -> list[str]:
    text = text_of(path)
    return [] if text is None else text.splitlines()


def text_of(path: Path) -> str | None:
    """What a file of the system says, stripped; None where it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None
