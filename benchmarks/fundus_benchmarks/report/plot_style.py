"""How plots look: SVG for a page, text as text, colours that colour-blind readers tell apart.

Colours are Okabe and Ito's; wherever a colour says something, a marker, a hatch or a label says it
too, so that a plot printed in grey can still be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "GREY",
    "INK",
    "LINE",
    "MARKERS",
    "SERIES",
    "SOFT",
    "STAGES",
    "WARN",
    "Plot",
    "beside",
    "from_nought",
    "lengths_from_nought",
    "made",
    "named_rows",
]

INK, SOFT, LINE, GREY = "#16202b", "#566373", "#d9dfe6", "#c3cad3"
ACCENT, WARN = "#0072b2", "#d55e00"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#16202b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Colour and hatch: in grey, from light to dark, hatched where two are alike.
STAGES = {
    "preprocessing": ("#b3dcf5", ""),
    "gates": ("#cc79a7", ""),
    "encoder_1": ("#0072b2", ""),
    "encoder_2": ("#0072b2", ""),
    "head": ("#e69f00", "xxxx"),
}
_WIDTH_IN = 7.8
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollars in it is a name
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "fundus-edge",  # the same figures give the same bytes
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Plot:
    """A plot for a page.

    Attributes:
        name: unique on the page.
        caption: what it shows, in a sentence.
        svg: an `<svg>` element that refers to nothing outside itself.
    """

    name: str
    caption: str
    svg: str


def made(name: str, caption: str, draw: Callable[[Figure], None], *, height_in: float) -> Plot:
    """Draw a plot.

    Args:
        name: unique on the page.
        caption: what it shows.
        draw: fills an empty figure.
        height_in: of the figure, in inches.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", name)  # becomes part of ids, whatever a model is called
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata=_NO_METADATA)
    return Plot(name, caption, _inline(text.getvalue(), name))


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows from top to bottom at 0, 1, 2 and so on, with names instead of ticks and a line."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def from_nought(axes: Axes) -> None:
    """Heights that can be compared: an upright axis from 0, with room above what was drawn."""
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(axis="y")


def lengths_from_nought(axes: Axes, *, room: float = 1.1) -> None:
    """Lengths that can be compared: a level axis from 0, and room for texts beside what was drawn.

    Args:
        axes: all is drawn.
        room: the axis' length in that of what was drawn.
    """
    axes.set_xlim(0, room * axes.get_xlim()[1])


def beside(axes: Axes, text: str, x: float, y: float, **style: Any) -> None:
    """A text to the right of a point."""
    axes.annotate(text, (x, y), xytext=(7, 0), textcoords="offset points", va="center", **style)


def _inline(svg: str, name: str) -> str:
    """The element alone, without name spaces that HTML implies, ids unique on the page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    # A rule for every element; the page's own sheet has it for plots alone.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
