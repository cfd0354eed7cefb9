"""Sections on the run itself: what it was measured on and how, what is missing, what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from fundus_benchmarks.report.latency_rows import STAGE_NAMES, contender_name
from fundus_benchmarks.report.numerals import UNKNOWN, number, percent, times, words
from fundus_benchmarks.report.page_parts import Line, Section, Table
from fundus_benchmarks.report.plots_growth import history
from fundus_benchmarks.results.comparison import LEAST_MARGIN, Change, Comparison, Host, RowKey
from fundus_benchmarks.results.kept import Run, comparable
from fundus_benchmarks.results.run_file import PARTS

__all__ = [
    "RULE",
    "comparison_section",
    "missing_section",
    "other_processors",
    "run_section",
    "what_of",
]

RULE = (
    "A row is slower when its new median is above the earlier run's 90th percentile and more than "
    "a margin above its median, both multiplied by the host's own change. That is the median "
    "change of the peers, whose packages stayed the same; the margin is "
    f"{100 * LEAST_MARGIN:.0f} %, or twice what nine in ten peers stay within of that median where "
    "that is more. Faster is the same the other way round; the rest is noise. Fewer than three "
    "peers tell nothing of the host, fewer than five times nothing of a row."
)
_CHANGING = {"clock_mhz": "clock, MHz", "temperatures_c": "temperatures, °C"}
_NAMES = {"usable_processors": "CPUs in use", "memory_mb": "memory, MB"} | _CHANGING


def run_section(run: Run) -> Section:
    """Machine, versions, and for every part when, how and by which command."""
    machine = [
        Line((_NAMES.get(key, key.replace("_", " ")), _over_parts(run, key)))
        for key in run.machine
        if key != "not_available"
    ]
    versions = [Line((name, version)) for name, version in sorted(run.versions.items())]
    parts = [
        Line((name, part["measured_at"], f"{part['command']}", words(part["settings"])))
        for name, part in run.parts.items()
    ]
    return Section(
        "What was measured, and how to repeat it",
        tables=(
            Table(("part", "measured", "command", "settings"), tuple(parts), texts=4),
            Table(("machine", ""), tuple(machine), texts=2),
            Table(("package", "version"), tuple(versions), texts=2),
        ),
        notes=("– : this host does not tell. Clocks are those of the moment when a part began.",),
    )


def missing_section(run: Run) -> Section:
    """All that a whole report would have."""
    lines = [
        Line((name, "the whole part", "it was not run"))
        for name in PARTS
        if name not in run.parts and name != "jetson"
    ]
    lines += [
        Line((name, words(one.get("what")), words(one.get("why"))))
        for name, part in run.parts.items()
        for one in part.get("missing") or ()
    ]
    if not lines:
        return Section("What is missing", ("Nothing: every part measured all that it can.",))
    return Section(
        "What is missing", tables=(Table(("part", "what", "why"), tuple(lines), texts=3),)
    )


def comparison_section(run: Run, comparison: Comparison | None, runs: Sequence[Run]) -> Section:
    """What changed since the last kept run, and all kept runs of its processor as lines."""
    plot, others = history(comparable(run.processor, runs)), tuple(other_processors(run, runs))
    plots = () if plot is None else (plot,)
    title = "Against the last kept run"
    if comparison is None:
        absent = "No earlier run with latencies is kept for this machine."
        return Section(title, others, plots, absent=absent)
    slower, faster = comparison.own("slower"), comparison.own("faster")
    judged = [one for one in comparison.changes if one.verdict in ("slower", "faster")]
    return Section(
        title,
        (
            f"Against {comparison.old.day_and_commit}: "
            f"{len(slower)} of the product's rows slower beyond noise, {len(faster)} faster, of "
            f"{len(comparison.own_rows)}.",
            *(_host_in_words(device, host) for device, host in comparison.hosts.items()),
            *others,
        ),
        plots,
        (_changes_table(judged), *_versions_table(comparison)),
        (RULE, *_rows_in_one_run(comparison)),
    )


def other_processors(run: Run, runs: Sequence[Run]) -> Iterator[str]:
    """A sentence on kept runs that bear the machine's name and are no measure of this one."""
    same = comparable(run.processor, runs)
    others = Counter(one.processor for one in runs if one not in same)
    for processor, count in others.items():
        yield (
            f"{count} kept run{'' if count == 1 else 's'} of {run.machine_name} not compared: "
            f"measured on {processor}, and this one on {run.processor}."
        )


def _over_parts(run: Run, key: str) -> str:
    """A property of the machine; of clocks and temperatures every part's."""
    if key not in _CHANGING:
        return words(run.machine.get(key))
    found = [words(part["machine"].get(key)) for part in run.parts.values()]
    return "; ".join(dict.fromkeys(found)) if any(one != UNKNOWN for one in found) else UNKNOWN


def _host_in_words(device: str, host: Host) -> str:
    name = {"cpu": "The CPU", "gpu": "The GPU"}[device]
    if not host.known:
        return (
            ""
            if device == "gpu" and host.peers == 0
            else (
                f"{name} as a host: only {host.peers} peers are in both runs, so its own change is "
                "not known and counts as none."
            )
        )
    return (
        f"{name} as a host took {times(host.ratio)} the time of then, by {host.peers} peers; "
        f"the margin is {percent(host.margin, 0)}."
    )


def _changes_table(changes: Sequence[Change]) -> Table:
    lines = (
        Line(
            (
                change.verdict,
                what_of(change.key),
                number(change.old_ms),
                number(change.new_ms),
                times(change.ratio),
            ),
            "bad" if change.verdict == "slower" else "good",
        )
        for change in sorted(changes, key=lambda change: -change.ratio)
    )
    return Table(("", "row", "then, ms", "now, ms", "host taken out"), tuple(lines), texts=2)


def what_of(key: RowKey) -> str:
    """A row in words: model, stage, contender."""
    stage = STAGE_NAMES.get(key.stage, key.stage)
    model = f"{key.model}, " if key.model else ""
    return f"{model}{stage}: {contender_name(key._asdict(), threads=True)}"


def _versions_table(comparison: Comparison) -> tuple[Table, ...]:
    lines = [
        Line((name, words(before), words(after)))
        for name, (before, after) in comparison.versions.items()
    ]
    return (Table(("package", "then", "now"), tuple(lines), texts=3),) if lines else ()


def _rows_in_one_run(comparison: Comparison) -> tuple[str, ...]:
    both = {"In this run alone": comparison.appeared, "In the earlier run alone": comparison.gone}
    return tuple(f"{name}: {'; '.join(map(what_of, keys))}." for name, keys in both.items() if keys)
