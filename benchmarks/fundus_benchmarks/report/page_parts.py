"""What a page is made of: sections with sentences, plots and tables of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fundus_benchmarks.report.plot_style import Plot

__all__ = ["Line", "Section", "Table", "machine_in_words"]


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        cells: one text a column.
        mark: `own`, `good` or `bad` where it stands out.
    """

    cells: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        head: one text a column.
        lines: the rows.
        texts: how many columns from the left hold words; the others hold numbers.
        caption: above it; may be empty.
    """

    head: tuple[str, ...]
    lines: tuple[Line, ...]
    texts: int = 1
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: its heading.
        sentences: above its plots.
        plots: in order.
        tables: below them.
        notes: below those, small.
        absent: why it is empty; None where it is not.
    """

    title: str
    sentences: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    absent: str | None = None


def machine_in_words(machine: Mapping[str, object]) -> str:
    """A machine in one line: processor or device, CPUs, memory, clock, power mode, Python."""
    memory, clock = machine.get("memory_mb"), machine.get("clock_mhz")
    said: Sequence[tuple[object, str]] = (
        (machine.get("device"), "{}"),
        (machine.get("processor"), "{}"),
        (machine.get("usable_processors"), "{} CPUs"),
        (memory / 1000 if isinstance(memory, (int, float)) else None, "{:.0f} GB"),
        (clock / 1000 if isinstance(clock, (int, float)) else None, "{:.1f} GHz"),
        (machine.get("power_mode"), "power mode {}"),
        (machine.get("clock_governor"), "governor {}"),
        (machine.get("python"), "Python {}"),
    )
    return ", ".join(form.format(value) for value, form in said if value is not None)
