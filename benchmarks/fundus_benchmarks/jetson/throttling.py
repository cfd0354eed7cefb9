"""What Linux on a Jetson says of its clocks, and of being slowed down; all readable without root.

- `/sys/class/devfreq/*gpu*`: the GPU's clock, which tegrastats tells only root, and its bounds.
- `/sys/class/thermal/cooling_device*` of a type `...-throttle-alert`: a state above 0 while a part
  of the chip is too hot and is being slowed down.
- `/sys/class/hwmon/hwmon*/oc*_event_cnt`: how often power was too high or the voltage too low since
  the boot. On Orin oc1 counts under-voltage, oc2 average and oc3 momentary over-current. An event
  slows the chip down where `oc*_throt_en` is not 0.
- `jetson_clocks` pins clocks by making their bounds equal.

A node that is not there or cannot be read is no answer, never "no".
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fundus_runtime.latency.machine import text_of

__all__ = ["ClockReading", "JetsonNodes", "NodeWatch"]

_GPU = re.compile(r"gpu|ga10b")
# Thor's second clock of the GPU is the video engines'.
_NOT_GPU = re.compile(r"nvd")
_ALERT = "-throttle-alert"
_EVERY_S = 1.0


@dataclass(frozen=True)
class ClockReading:
    """One look at the nodes.

    Attributes:
        at_s: by `time.perf_counter`.
        gpu_mhz: the highest of the GPU's parts; None where it cannot be read.
        alerts: which alerts were on; None where there are none to read.
    """

    at_s: float
    gpu_mhz: float | None
    alerts: tuple[str, ...] | None


class JetsonNodes:
    """The nodes below a root.

    Args:
        sys: where sysfs is.
    """

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._class = sys / "class"
        self._cpu = sys / "devices" / "system" / "cpu"
        self._gpus = [
            node
            for node in sorted((self._class / "devfreq").glob("*"))
            if _GPU.search(node.name) and not _NOT_GPU.search(node.name)
        ]
        self._alerts = [
            (name, node)
            for node in sorted((self._class / "thermal").glob("cooling_device*"))
            if (name := text_of(node / "type")) is not None and name.endswith(_ALERT)
        ]

    def read(self) -> ClockReading:
        """The clock and the alerts now."""
        states = [(name, _number(node / "cur_state")) for name, node in self._alerts]
        known = [(name, state) for name, state in states if state is not None]
        return ClockReading(
            time.perf_counter(),
            self._gpu_mhz("cur_freq"),
            tuple(name for name, state in known if state > 0) if known else None,
        )

    def gpu_bound_mhz(self) -> float | None:
        """The highest clock that the power mode allows the GPU."""
        return self._gpu_mhz("max_freq")

    def cpu_bound_mhz(self) -> float | None:
        """The highest clock that the power mode allows any core."""
        found = [high for _, high in self._cpu_bounds()]
        return max(found) / 1e3 if found else None

    def clocks_pinned(self) -> bool | None:
        """Whether GPU and cores have no choice of clocks, as after `jetson_clocks`."""
        gpu = [
            (low, high)
            for node in self._gpus
            if (low := _number(node / "min_freq")) is not None
            and (high := _number(node / "max_freq")) is not None
        ]
        if not gpu or not self._cpu_bounds():
            return None
        return all(low == high for low, high in (*gpu, *self._cpu_bounds()))

    def over_current(self) -> dict[str, int] | None:
        """Events since the boot by counter, those that do not slow down left out; None: unknown."""
        counts = {
            node: count
            for node in sorted((self._class / "hwmon").glob("hwmon*/oc*_event_cnt"))
            if (count := _number(node)) is not None
        }
        names = {node: node.name.removesuffix("_event_cnt") for node in counts}
        slowing = {
            names[node]: count
            for node, count in counts.items()
            if _number(node.with_name(f"{names[node]}_throt_en")) != 0
        }
        return slowing if counts else None

    def _gpu_mhz(self, name: str) -> float | None:
        found = [hz for node in self._gpus if (hz := _number(node / name)) is not None]
        return max(found) / 1e6 if found else None

    def _cpu_bounds(self) -> list[tuple[int, int]]:
        """Lowest and highest allowed clock of each group of cores, kHz."""
        return [
            (low, high)
            for node in sorted((self._cpu / "cpufreq").glob("policy*"))
            if (low := _number(node / "scaling_min_freq")) is not None
            and (high := _number(node / "scaling_max_freq")) is not None
        ]


class NodeWatch:
    """Reads the nodes again and again while it is open; use it in a `with`.

    Args:
        nodes: what to read.
        every_s: between two readings.
    """

    def __init__(self, nodes: JetsonNodes, every_s: float = _EVERY_S) -> None:
        self.readings: list[ClockReading] = []
        self._nodes = nodes
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="jetson-nodes", daemon=True)

    def __enter__(self) -> NodeWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.readings.append(self._nodes.read())
            self._ended.wait(self._every_s)


def _number(path: Path) -> int | None:
    text = text_of(path)
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else None
