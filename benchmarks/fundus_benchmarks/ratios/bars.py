"""The ratios and limits that the product promises, and whether a run kept them.

`bars.toml` has one table a figure: `what` in words, and `most` or `least`. A figure that a run
should have measured and did not counts as missed. A figure that keeps its promise can still have
become worse: `against` holds it to the one of an earlier run, unless its bar says
`compare = false`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["WORSE", "Bar", "Verdict", "Worsening", "against", "judge", "read_bars"]

# So much worse than the figure kept before fails.
WORSE = 0.15
_KEYS = ("what", "most", "least", "compare")


@dataclass(frozen=True)
class Bar:
    """One promise.

    Attributes:
        name: of the figure.
        what: in words, with its unit.
        most: the figure is at most this, or None.
        least: the figure is at least this, or None.
        compare: whether it is held to earlier runs; a share of a figure near nought means nothing.
    """

    name: str
    what: str
    most: float | None = None
    least: float | None = None
    compare: bool = True

    def __post_init__(self) -> None:
        if (self.most is None) == (self.least is None):
            raise ValueError(f"bar {self.name!r} needs either `most` or `least`")

    def kept_by(self, value: float) -> bool:
        """Whether a figure keeps the promise."""
        if self.most is not None:
            return value <= self.most
        return self.least is not None and value >= self.least

    def worse_by(self, value: float, before: float) -> float:
        """By which share of the earlier figure this one is worse; below nought where it is better.

        Args:
            value: the figure.
            before: the same of an earlier run, above nought.
        """
        change = value / before - 1
        return change if self.most is not None else -change

    def __str__(self) -> str:
        return f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"


@dataclass(frozen=True)
class Verdict:
    """A bar and what a run measured; None where it did not."""

    bar: Bar
    value: float | None

    @property
    def kept(self) -> bool:
        """Whether it was measured and keeps the promise."""
        return self.value is not None and self.bar.kept_by(self.value)

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        mark = "kept  " if self.kept else "MISSED"
        return f"{mark} {value:>12}  {self.bar!s:<14}  {self.bar.what}"


@dataclass(frozen=True)
class Worsening:
    """A figure beside the one of an earlier run."""

    bar: Bar
    value: float
    before: float

    @property
    def share(self) -> float:
        """By which share of the earlier figure it is worse; below nought where it is better."""
        return self.bar.worse_by(self.value, self.before)

    @property
    def too_much(self) -> bool:
        """Whether it is more than 15 % worse."""
        return self.share > WORSE

    def __str__(self) -> str:
        mark = "WORSE " if self.too_much else "held  "
        how = "worse" if self.share > 0 else "better"
        change = f"{100 * abs(self.share):.0f} % {how}"
        return f"{mark} {self.value:>12.3g}  {change:<14}  than {self.before:.3g}: {self.bar.name}"


def read_bars(path: Path) -> list[Bar]:
    """The bars of a TOML file.

    Raises:
        ValueError: a bar has unknown keys, no `what`, neither or both of `most` and `least`, or a
            `compare` that is neither true nor false.
    """
    with path.open("rb") as file:
        tables = tomllib.load(file)
    bars = []
    for name, table in tables.items():
        if unknown := set(table) - set(_KEYS):
            raise ValueError(f"bar {name!r} has unknown keys {sorted(unknown)}")
        if "what" not in table:
            raise ValueError(f"bar {name!r} needs `what`, in words")
        if not isinstance(table.get("compare", True), bool):
            raise ValueError(
                f"bar {name!r} has compare = {table['compare']!r}; it is true or false"
            )
        bars.append(Bar(name, **table))
    return bars


def judge(bars: Sequence[Bar], figures: Mapping[str, float | None]) -> list[Verdict]:
    """Every bar with its figure."""
    return [Verdict(bar, figures.get(bar.name)) for bar in bars]


def against(
    bars: Sequence[Bar],
    figures: Mapping[str, float | None],
    before: Mapping[str, float | None],
) -> list[Worsening]:
    """The figures that both runs have and that may be compared, each beside the earlier one."""
    return [
        Worsening(bar, value, earlier)
        for bar in bars
        if bar.compare
        and (value := figures.get(bar.name)) is not None
        and (earlier := before.get(bar.name)) is not None
        and math.isfinite(value)
        and earlier > 0
    ]
