"""A run as one self-contained HTML page, for a person to read or print.

No script and no reference to anything outside the page: plots are SVG within it, fonts are the
reader's own. All text is escaped. A part that was not measured says so in its section.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import jinja2
from markupsafe import Markup

from fundus_benchmarks.ratios.bars import Bar
from fundus_benchmarks.report.page_parts import Section, machine_in_words
from fundus_benchmarks.report.sections_jetson import jetson_section
from fundus_benchmarks.report.sections_model import faithfulness_section, growth_section
from fundus_benchmarks.report.sections_run import comparison_section, missing_section, run_section
from fundus_benchmarks.report.sections_speed import latency_section, limits_section, ratios_section
from fundus_benchmarks.report.summary import key_figures
from fundus_benchmarks.results.comparison import Comparison
from fundus_benchmarks.results.kept import Run

__all__ = ["render_page"]

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def render_page(
    run: Run, comparison: Comparison | None, history: Sequence[Run], bars: Sequence[Bar]
) -> str:
    """The page as text.

    Args:
        run: what it is about.
        comparison: with the last kept run that timed latencies; None without one.
        history: all kept runs of the machine, oldest first.
        bars: what is promised.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Plots are this package's own, and matplotlib escapes their texts.
    environment.filters["svg"] = Markup
    page = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        machine=machine_in_words(run.machine),
        date=run.date,
        commit=run.commit,
        figures=key_figures(run),
        sections=_sections(run, comparison, history, bars),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return page + "\n"


def _sections(
    run: Run, comparison: Comparison | None, history: Sequence[Run], bars: Sequence[Bar]
) -> list[Section]:
    parts: dict[str, tuple[str, Callable[[], Section]]] = {
        "latency": ("How fast", lambda: latency_section(run)),
        "ratios": ("Promises", lambda: ratios_section(run, bars)),
        "limits": ("How near to the machine's limit", lambda: limits_section(run)),
        "faithfulness": ("How faithful", lambda: faithfulness_section(run)),
        "growth": ("How it grows", lambda: growth_section(run)),
        "jetson": ("On Jetson", lambda: jetson_section(run)),
    }
    return [
        *(
            make() if name in run.parts else Section(title, absent="Not measured in this run.")
            for name, (title, make) in parts.items()
        ),
        comparison_section(run, comparison, history),
        missing_section(run),
        run_section(run),
    ]
