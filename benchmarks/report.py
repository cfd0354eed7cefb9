"""What a run measured: kept as JSON, as one HTML page, and as the README's table.

    python benchmarks/report.py                 # the parts in build/benchmarks/run
    python benchmarks/report.py --no-keep       # the page alone
    python benchmarks/report.py --check         # exit 1 where the README's table is not of the
                                                # newest kept results; writes nothing

Any parts will do, as long as they come from one machine, one commit and one day; what was not
measured says so. The README's table is made of kept results alone, so without keeping it stays.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fundus_benchmarks.results.kept import (
    RESULTS,
    Run,
    gather,
    keep,
    kept_runs,
    newest_of_each_machine,
    previous,
)
from fundus_benchmarks.results.run_file import ROOT, default_folder
from fundus_runtime.atomic import atomic_text

if TYPE_CHECKING:
    from fundus_benchmarks.results.comparison import Comparison

_BARS = Path(__file__).with_name("bars.toml")
_PAGE = ROOT / "build" / "benchmarks" / "report.html"
_README = ROOT / "README.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Keep, render, write; ends with what was made, where, how large, and what matters of it."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from fundus_runtime.errors import FundusError

    try:
        return _check(args) if args.check else _report(args)
    except (ValueError, OSError, FundusError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", type=Path, nargs="?", default=default_folder(), help="folder (%(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="kept ones (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=_PAGE, metavar="HTML", help="(%(default)s)")
    parser.add_argument("--readme", type=Path, default=_README, metavar="FILE")
    parser.add_argument("--no-keep", action="store_true", help="keep nothing, leave the README")
    parser.add_argument("--no-readme", action="store_true", help="leave the README")
    parser.add_argument("--check", action="store_true", help="only look whether it is up to date")
    return parser


def _report(args: argparse.Namespace) -> int:
    from fundus_benchmarks.ratios.bars import read_bars
    from fundus_benchmarks.report.page import render_page

    run, bars = gather(args.parts), read_bars(_BARS)
    is_kept, writes_readme = not args.no_keep, not (args.no_keep or args.no_readme)
    if writes_readme:
        _readme(args)  # says what is wrong with it before anything is kept
    made = [keep(run, args.results)] if is_kept else []
    kept = kept_runs(run.machine_name, args.results)
    comparison = _compared(run, kept)
    page = render_page(run, comparison, kept if is_kept else [*kept, run], bars)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    made.append(_written(args.out, page))
    if writes_readme:
        made.append(_written(args.readme, _readme(args)))
    print("\n".join(_end(run, comparison, kept, made)))
    return 0


def _check(args: argparse.Namespace) -> int:
    if args.readme.read_text("utf-8") == _readme(args):
        print(f"{args.readme}: the performance table is that of the newest kept results")
        return 0
    print(
        f"{args.readme}: the performance table is not that of the newest results kept under "
        f"{args.results}; write it: python benchmarks/report.py",
        file=sys.stderr,
    )
    return 1


def _readme(args: argparse.Namespace) -> str:
    from fundus_benchmarks.ratios.bars import read_bars
    from fundus_benchmarks.report.readme_table import with_table

    runs = newest_of_each_machine(args.results)
    return with_table(args.readme.read_text("utf-8"), runs, read_bars(_BARS))


def _compared(run: Run, kept: Sequence[Run]) -> Comparison | None:
    from fundus_benchmarks.results.comparison import compare

    before = previous(run, "latency", kept)
    return None if before is None else compare(before, run)


def _written(path: Path, text: str) -> Path:
    with atomic_text(path, force=True) as file:
        file.write(text)
    return path


def _end(
    run: Run, comparison: Comparison | None, kept: Sequence[Run], made: Sequence[Path]
) -> Iterator[str]:
    from fundus_benchmarks.report.sections_run import other_processors, what_of
    from fundus_benchmarks.report.summary import key_figures
    from fundus_benchmarks.results.run_file import PARTS

    yield f"{run.machine_name}, {run.date}, commit {run.commit}: {', '.join(run.parts)}"
    if absent := [name for name in PARTS if name not in run.parts]:
        yield f"not measured: {', '.join(absent)}"
    yield from (f"  {value:>16}  {name}" for name, value in key_figures(run))
    if comparison is not None:
        slower = comparison.own("slower")
        yield f"{len(slower)} rows slower beyond noise than on {comparison.old.day_and_commit}"
        yield from (f"  {change.ratio:15.2f}×  {what_of(change.key)}" for change in slower)
    yield from other_processors(run, kept)
    yield from (f"wrote {path}, {path.stat().st_size / 1e3:.1f} kB" for path in made)


if __name__ == "__main__":
    sys.exit(main())
