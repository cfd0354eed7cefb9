"""What power a Jetson takes in.

Which rails are the input differs by board, and is told from their names:

- `VIN` (Thor's developer kit): the connector's power, carrier board included. NVIDIA's forum,
  "Question about power monitor with additional load on Jetson Thor": its INA238 is the total input.
- `VDD_IN` (Orin NX and Nano): "the total power of module", NVIDIA's forum, "Interpretation of
  Jetson NX power rail". The carrier board is not in it.
- `VDD_GPU_SOC`, `VDD_CPU_CV` and `VIN_SYS_5V0` together (AGX Orin): the module is fed through these
  three. By the Jetson Linux Developer Guide (36.4, power consumption of Orin) `VIN_SYS_5V0` is the
  5 V rail alone, and `VDDQ_VDD2_1V8AO` is contained in it, not beside it. No carrier board either.

Any other set of rails has no known total, and none is given: so for Thor on a carrier board without
the sensor of `VIN`, whose other rails look like a whole, but nobody says that they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fundus_benchmarks.jetson.tegrastats import Rail

__all__ = ["INPUTS", "PowerInput", "input_w", "power_input"]


@dataclass(frozen=True)
class PowerInput:
    """The rails whose sum is what flows in.

    Attributes:
        rails: their names.
        covers: `board` with the carrier board, `module` without.
    """

    rails: tuple[str, ...]
    covers: Literal["board", "module"]


# The first whose rails are all there counts.
INPUTS = (
    PowerInput(("VIN",), "board"),
    PowerInput(("VDD_IN",), "module"),
    PowerInput(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), "module"),
)


def power_input(rails: Iterable[str]) -> PowerInput | None:
    """Which of a board's rails are its input; None where that is not known."""
    names = set(rails)
    return next((found for found in INPUTS if names.issuperset(found.rails)), None)


def input_w(rails: Mapping[str, Rail], source: PowerInput) -> float | None:
    """The input power of one line, W; None where one of its rails is not in the line."""
    found = [rails[name].now_mw for name in source.rails if name in rails]
    return sum(found) / 1e3 if len(found) == len(source.rails) else None
