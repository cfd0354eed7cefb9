"""What one line of `tegrastats` says, as JetPack 5, 6 and 7 print it on Orin and Thor.

A line holds whatever board, release and the user's rights allow. Without root, Orin tells nothing
of the memory and no clock of the GPU, and Thor nothing of either. Power comes as `now/average`,
since Jetson Linux 39 as `now/average/highest`, where temperatures may come as `now/highest`. The
averages are those since tegrastats was started and in its first line on Thor half the power:
integrate `now_mw` instead. What this module does not know is kept aside, so that a newer release
does not end a measurement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fundus_runtime.errors import FundusError

__all__ = ["Clocked", "Rail", "TegraSample", "TegrastatsError", "parse_line"]

_LONGEST = 8192
_SHOWN = 80
# A sensor whose part of the chip is switched off.
_SENSOR_OFF_C = -256.0

# A value in brackets or parentheses is one token, blanks in it or not.
_TOKEN = re.compile(r"[^\s\[(]*\[[^\]]*\]\S*|\([^)]*\)|\S+")
_DATE = re.compile(r"\d\d-\d\d-\d{4}", re.ASCII)
_USED_OF = re.compile(r"(\d{1,9})/(\d{1,9})MB", re.ASCII)
_CORES = re.compile(r"\[([^\]]*)\](?:@(\d{1,6}))?", re.ASCII)
_CORE = re.compile(r"(\d{1,3})%(?:@(\d{1,6}))?", re.ASCII)
_CLOCKED = re.compile(r"(?:(\d{1,3})%)?(?:@(?:(\d{1,6})|\[([\d,\s]{1,99})\]))?", re.ASCII)
_TEMPERATURE = re.compile(
    r"([A-Za-z][\w.-]*)@(-?\d{1,4}(?:\.\d{1,6})?)C(?:/-?\d{1,4}(?:\.\d{1,6})?C)?", re.ASCII
)
_MILLIWATTS = re.compile(r"(-?\d{1,9})mW(?:/(-?\d{1,9})mW)?(?:/-?\d{1,9}mW)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
# A channel of the power monitor that is not connected.
_NOT_CONNECTED = "NC"


class TegrastatsError(FundusError):
    """tegrastats printed something that is no line of its own, or nothing at all."""


@dataclass(frozen=True)
class Clocked:
    """A core, or another part of the chip that has a clock.

    Attributes:
        load_percent: of the time; None where it is not told.
        clocks_mhz: one for each of its parts (a GPU has several); empty where they are not told.
    """

    load_percent: int | None
    clocks_mhz: tuple[int, ...]


@dataclass(frozen=True)
class Rail:
    """The power of one rail; a little below zero where nothing flows and the sensor is off by it.

    Attributes:
        now_mw: at the line's time.
        average_mw: since tegrastats was started; None where it is not told.
    """

    now_mw: int
    average_mw: int | None


@dataclass(frozen=True)
class TegraSample:
    """One line.

    Attributes:
        date: as printed, in the board's own clock; None where the line has none.
        ram_used_mb: 2^20 bytes, as printed.
        ram_total_mb: likewise.
        swap_used_mb: None where there is no swap.
        swap_total_mb: likewise.
        cores: in order; None for one that is off.
        memory: EMC, the memory controller; None where the line does not tell.
        gpu: GR3D; None where the line does not tell.
        temperatures_c: by sensor, in lower case; those that are off are left out.
        rails: by name.
        other: the rest of the line, word by word.
    """

    date: str | None
    ram_used_mb: int
    ram_total_mb: int
    swap_used_mb: int | None
    swap_total_mb: int | None
    cores: tuple[Clocked | None, ...]
    memory: Clocked | None
    gpu: Clocked | None
    temperatures_c: Mapping[str, float]
    rails: Mapping[str, Rail]
    other: tuple[str, ...]


def parse_line(line: str) -> TegraSample:
    """Read a line.

    Raises:
        TegrastatsError: it is none: every line states the memory in use.
    """
    words = _TOKEN.findall(line) if len(line) <= _LONGEST else []
    date = None
    if len(words) > 1 and _DATE.fullmatch(words[0]):
        date, words = f"{words[0]} {words[1]}", words[2:]
    fields, other = _fields(words)
    memory = fields.pairs.get("RAM")
    if memory is None:
        raise TegrastatsError(
            f"{line.strip()[:_SHOWN]!r} is no line of tegrastats, expected one with "
            "`RAM <used>/<total>MB`; see what `tegrastats --interval 1000` prints here"
        )
    swap = fields.pairs.get("SWAP", (None, None))
    return TegraSample(
        date=date,
        ram_used_mb=memory[0],
        ram_total_mb=memory[1],
        swap_used_mb=swap[0],
        swap_total_mb=swap[1],
        cores=fields.cores,
        memory=fields.clocked.get("EMC_FREQ"),
        gpu=fields.clocked.get("GR3D_FREQ"),
        temperatures_c=fields.temperatures_c,
        rails=fields.rails,
        other=tuple(other),
    )


@dataclass
class _Fields:
    """What has been understood of a line so far."""

    pairs: dict[str, tuple[int, int]]
    clocked: dict[str, Clocked]
    temperatures_c: dict[str, float]
    rails: dict[str, Rail]
    cores: tuple[Clocked | None, ...] = ()

    def take(self, word: str, value: str) -> int:
        """Understand `word`, or it and the `value` behind it: how many of the two that used."""
        if self._temperature(word):
            return 1
        return 2 if self._named(word, value) else 0

    def _temperature(self, word: str) -> bool:
        found = _TEMPERATURE.fullmatch(word)
        if found is None or float(found[2]) == _SENSOR_OFF_C:
            return False
        self.temperatures_c[found[1].lower()] = float(found[2])
        return True

    def _named(self, word: str, value: str) -> bool:
        if word in ("RAM", "SWAP"):
            return self._pair(word, value)
        if word == "CPU":
            return self._cores(value)
        if word in ("EMC_FREQ", "GR3D_FREQ"):
            return self._clocked(word, value)
        return self._rail(word, value)

    def _pair(self, word: str, value: str) -> bool:
        found = _USED_OF.fullmatch(value)
        if found is None:
            return False
        self.pairs[word] = int(found[1]), int(found[2])
        return True

    def _cores(self, value: str) -> bool:
        found = _CORES.fullmatch(value)
        texts = [] if found is None else [text.strip() for text in found[1].split(",")]
        if found is None or not all(text == "off" or _CORE.fullmatch(text) for text in texts):
            return False
        self.cores = tuple(_core(text, shared_mhz=found[2]) for text in texts)
        return True

    def _clocked(self, word: str, value: str) -> bool:
        found = _CLOCKED.fullmatch(value)
        if found is None or not value:
            return False
        clocks = (found[2] or found[3] or "").split(",")
        self.clocked[word] = Clocked(
            None if found[1] is None else int(found[1]),
            tuple(int(clock) for clock in clocks if clock.strip().isdigit()),
        )
        return True

    def _rail(self, word: str, value: str) -> bool:
        found = _MILLIWATTS.fullmatch(value)
        if found is None or word == _NOT_CONNECTED or _NAME.fullmatch(word) is None:
            return False
        self.rails[word] = Rail(int(found[1]), None if found[2] is None else int(found[2]))
        return True


def _core(text: str, *, shared_mhz: str | None) -> Clocked | None:
    found = _CORE.fullmatch(text)
    if found is None:
        return None
    mhz = found[2] or shared_mhz
    return Clocked(int(found[1]), () if mhz is None else (int(mhz),))


def _fields(words: Sequence[str]) -> tuple[_Fields, list[str]]:
    """What is understood of the words, and the words that are not."""
    fields = _Fields({}, {}, {}, {})
    other = []
    index = 0
    while index < len(words):
        used = fields.take(words[index], words[index + 1] if index + 1 < len(words) else "")
        if used == 0:
            other.append(words[index])
        index += used or 1
    return fields, other
