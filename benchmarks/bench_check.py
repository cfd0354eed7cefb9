"""`make bench-check`: hold a run to the promises of `bars.toml` and to the last run kept here.

    python benchmarks/bench_check.py                       # measures first
    python benchmarks/bench_check.py --report RUN.json     # judges what runtime_speed.py wrote

Exit 1 when a promise is missed, or when a figure is more than 15 % worse than the last one kept for
this machine and its processor under `benchmarks/results`. A kept run that does not state its
processor counts only where none is known to be of the same one, and the summary says so. The last
line is the summary of both.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fundus_benchmarks.ratios.bars import Verdict, Worsening, against, judge, read_bars
from fundus_benchmarks.results.kept import RESULTS, Run, comparable, kept_runs, last_measured
from fundus_benchmarks.results.processor import PROCESSOR
from fundus_benchmarks.results.run_file import machine_name, read_part
from fundus_runtime.commands.arguments import positive_number
from fundus_runtime.commands.program import run_program
from fundus_runtime.errors import UsageError

_BARS = Path(__file__).with_name("bars.toml")


def main(argv: Sequence[str] | None = None) -> int:
    """Judge every bar and every figure that was kept before; the last line is the summary."""
    args = build_parser().parse_args(argv)
    return run_program("bench-check", lambda: _check(args), when_interrupted="nothing was judged")


def _check(args: argparse.Namespace) -> int:
    report = _measured(args.seconds) if args.report is None else _read(args.report)
    bars, figures = read_bars(args.bars), report["figures"]
    verdicts = judge(bars, figures)
    runs = earlier_ratios(report, args.results)
    processor = report.get("machine", {}).get(PROCESSOR)
    before, others = last_measured(processor, "ratios", runs), _others(processor, runs)
    changes = (
        [] if before is None else against(bars, figures, before.parts["ratios"].get("figures", {}))
    )
    for line in (*verdicts, *changes):
        print(line)
    print(f"{_kept(verdicts)}; {_held(changes, before, others)}")
    failed = any(not one.kept for one in verdicts) or any(one.too_much for one in changes)
    return 1 if failed else 0


def earlier_ratios(report: Mapping[str, Any], results: Path) -> list[Run]:
    """The kept runs of the report's machine that measured ratios before the report did."""
    if "machine" not in report:
        return []
    runs = [run for run in kept_runs(machine_name(report["machine"]), results) if _ratios_at(run)]
    now = report.get("measured_at")
    return [run for run in runs if now is None or _ratios_at(run) < now]


def build_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", type=Path, metavar="JSON", help="judge this run")
    parser.add_argument("--bars", type=Path, default=_BARS, metavar="TOML")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="what was kept (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=positive_number, default=90.0, help="of timing a part, at least"
    )
    return parser


def _read(path: Path) -> Mapping[str, Any]:
    try:
        part = read_part(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be judged: {error}") from error
    if part["part"] != "ratios":
        raise UsageError(f"{path} holds {part['part']}; give the ratios of runtime_speed.py")
    return part


def _measured(seconds: float) -> Mapping[str, Any]:
    import runtime_speed

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    report: Mapping[str, Any] = runtime_speed.measure(list(runtime_speed.PARTS), seconds)
    print(runtime_speed.table(report), end="\n\n")
    return report


def _ratios_at(run: Run) -> str:
    return str(run.parts["ratios"]["measured_at"]) if "ratios" in run.parts else ""


def _others(processor: str | None, runs: Sequence[Run]) -> int:
    return len(runs) - len(comparable(processor, runs))


def _kept(verdicts: Sequence[Verdict]) -> str:
    missed = [verdict.bar.name for verdict in verdicts if not verdict.kept]
    return f"{len(verdicts) - len(missed)} of {len(verdicts)} bars kept" + (
        f", missed: {', '.join(missed)}" if missed else ""
    )


def _held(changes: Sequence[Worsening], before: Run | None, others: int) -> str:
    """What the comparison says; runs on other processors of the machine's name are no measure."""
    if before is None:
        kept = f", {others} of another processor are" if others else ""
        return f"no earlier ratios of this machine are kept to compare with{kept}"
    worse = [one.bar.name for one in changes if one.too_much]
    return (
        f"{len(changes) - len(worse)} of {len(changes)} figures within 15 % of "
        f"{before.day_and_commit}" + (f", worse: {', '.join(worse)}" if worse else "")
    )


if __name__ == "__main__":
    sys.exit(main())
