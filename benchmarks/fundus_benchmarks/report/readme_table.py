"""The README's performance table, written from kept results alone.

One table a machine, of the newest result that is kept for it: the product's exams, a column a
model, then the pairs of the peers of the same run and how many times as long they take; then the
promises of `bars.toml`. Nothing stands between the markers that was typed by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fundus_benchmarks.ratios.bars import Bar, judge
from fundus_benchmarks.report.latency_rows import (
    STAGE_NAMES,
    WHOLES,
    Row,
    contender_name,
    device_of,
    fastest_own,
    is_own,
    is_peer,
    models_of,
)
from fundus_benchmarks.report.numerals import UNKNOWN, measured, number, times
from fundus_benchmarks.report.page_parts import machine_in_words
from fundus_benchmarks.results.kept import ResultsError, Run

__all__ = ["BEGIN", "END", "block", "with_table"]

BEGIN = "<!-- performance: written by benchmarks/report.py -->"
END = "<!-- performance: end -->"
_SHOWN_VERSIONS = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")
_NOT_YET = "Nothing was measured yet: `make bench`."


def with_table(readme: str, runs: Sequence[Run], bars: Sequence[Bar]) -> str:
    """A README with its table written anew; nothing else of it changes.

    Args:
        readme: its text.
        runs: the newest of each machine, in the order to show.
        bars: what is promised.

    Raises:
        ResultsError: the README does not have both markers once, in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ResultsError(
            f"the README lacks its two markers, or has them twice; put {BEGIN!r} and {END!r} on "
            "lines of their own where the table belongs"
        )
    return f"{before}{block(runs, bars)}{after}"


def block(runs: Sequence[Run], bars: Sequence[Bar]) -> str:
    """The markers and what stands between them."""
    tables = "\n".join("\n".join(_of_run(run, bars)) for run in runs) if runs else f"{_NOT_YET}\n"
    return f"{BEGIN}\n\n{tables}\n{END}"


def _of_run(run: Run, bars: Sequence[Bar]) -> Iterator[str]:
    rows = [row for row in run.rows("latency") if row.get("model") and row["stage"] in WHOLES]
    yield f"{_about(run, rows)}:"
    yield ""
    if rows:
        yield from _exams(rows)
    if "ratios" in run.parts:
        yield from _promises(run, bars)
    commands = dict.fromkeys(f"`{part['command']}`" for part in run.parts.values())
    yield f"`make bench` repeats all of it, or part by part: {', '.join(commands)}."
    yield ""


def _about(run: Run, rows: Sequence[Row]) -> str:
    """The machine, the packages, the day and the commit."""
    versions = (f"{name} {run.versions[name]}" for name in _SHOWN_VERSIONS if name in run.versions)
    threads = _only_threads(rows)
    return "; ".join(
        [
            machine_in_words(run.machine),
            ", ".join(versions),
            *([] if threads is None else [f"{threads} thread{'' if threads == 1 else 's'} each"]),
            f"{run.date}, commit {run.commit}",
        ]
    )


def _exams(rows: Sequence[Row]) -> Iterator[str]:
    models = models_of(rows)
    yield _line("median (90th percentile)", *models)
    yield "|---|" + "---:|" * len(models)
    own = [row for row in rows if is_own(row)]
    peers = sorted((row for row in rows if is_peer(row)), key=_ms)
    name = partial(_name, threads=_only_threads(rows) is None)
    for what in dict.fromkeys(name(row) for row in sorted(own, key=_stage_place)):
        yield _line(f"**{what}**", *(_cell(own, what, model, name) for model in models))
    for what in dict.fromkeys(map(name, peers)):
        yield _line(what, *(_cell(peers, what, model, name, beside=own) for model in models))
    yield ""
    if peers:
        yield (
            "Behind a peer's times: how many times as long as the product's fastest form it takes. "
            "Peers run the same model, head included, behind preprocessing with OpenCV."
        )
        yield ""


def _promises(run: Run, bars: Sequence[Bar]) -> Iterator[str]:
    verdicts = judge(bars, run.parts["ratios"].get("figures", {}))
    kept = sum(verdict.kept for verdict in verdicts)
    yield _line(
        f"promise, {kept} of {len(verdicts)} kept; contenders in turns", "promised", "measured", ""
    )
    yield "|---|---:|---:|---|"
    for verdict in verdicts:
        value = "not measured" if verdict.value is None else number(verdict.value)
        yield _line(verdict.bar.what, verdict.bar, value, "" if verdict.kept else "**missed**")
    yield ""


def _name(row: Row, *, threads: bool) -> str:
    return f"{contender_name(row, threads=threads)}: {STAGE_NAMES[row['stage']]}"


def _only_threads(rows: Sequence[Row]) -> int | None:
    """How many threads all had; None where they differ."""
    found = {row.get("threads") for row in rows}
    return found.pop() if len(found) == 1 else None


def _stage_place(row: Row) -> tuple[str, int]:
    return contender_name(row, threads=True), WHOLES.index(row["stage"])


def _cell(
    rows: Sequence[Row],
    what: str,
    model: str,
    name: Callable[[Row], str],
    beside: Sequence[Row] = (),
) -> str:
    """A model's median, and how many times as long as the product's fastest form that is."""
    named = (row for row in rows if row["model"] == model and name(row) == what)
    row = next(named, None)
    ms = None if row is None else measured(row.get("p50_ms"))
    if row is None or ms is None:
        return UNKNOWN
    high = measured(row.get("p90_ms"))
    own_ms = _own_ms(beside, row)
    return (
        f"{number(ms)} ms"
        + ("" if high is None else f" ({number(high)})")
        + ("" if own_ms is None else f", {times(ms / own_ms)}")
    )


def _own_ms(own: Sequence[Row], peer: Row) -> float | None:
    """The product's fastest form at the same stage, on the same device with as many threads."""
    same = [r for r in own if all(r.get(key) == peer.get(key) for key in ("model", "threads"))]
    found = fastest_own(same, str(peer["stage"]), device_of(peer.get("provider")))
    return None if found is None else float(found["p50_ms"])


def _ms(row: Row) -> float:
    found = measured(row.get("p50_ms"))
    return float("inf") if found is None else found


def _line(*cells: object) -> str:
    texts = (str(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(texts)} |"
