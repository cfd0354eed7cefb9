"""The ratios and limits that the product promises, and whether a run kept them.

`bars.toml` has one table a figure: `what` in words, and `most` or `least`. A figure that a run
should have measured and did not counts as missed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Bar", "Verdict", "judge", "read_bars"]


@dataclass(frozen=True)
class Bar:
    """One promise.

    Attributes:
        name: of the figure.
        what: in words, with its unit.
        most: the figure is at most this, or None.
        least: the figure is at least this, or None.
    """

    name: str
    what: str
    most: float | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        if (self.most is None) == (self.least is None):
            raise ValueError(f"bar {self.name!r} needs either `most` or `least`")

    def kept_by(self, value: float) -> bool:
        """Whether a figure keeps the promise."""
        if self.most is not None:
            return value <= self.most
        return self.least is not None and value >= self.least

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


def read_bars(path: Path) -> list[Bar]:
    """The bars of a TOML file.

    Raises:
        ValueError: a bar has unknown keys, or neither or both of `most` and `least`.
    """
    with path.open("rb") as file:
        tables = tomllib.load(file)
    bars = []
    for name, table in tables.items():
        if unknown := set(table) - {"what", "most", "least"}:
            raise ValueError(f"bar {name!r} has unknown keys {sorted(unknown)}")
        bars.append(Bar(name, table["what"], table.get("most"), table.get("least")))
    return bars


def judge(bars: list[Bar], figures: Mapping[str, float]) -> list[Verdict]:
    """Every bar with its figure."""
    return [Verdict(bar, figures.get(bar.name)) for bar in bars]
