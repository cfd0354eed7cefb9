"""`make bench-check`: hold a run to the promises of `bars.toml`; exit 1 when one is missed.

python benchmarks/bench_check.py                       # measures first
python benchmarks/bench_check.py --report RUN.json     # judges what runtime_speed.py wrote
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fundus_benchmarks.bars import judge, read_bars

_BARS = Path(__file__).with_name("bars.toml")


def main(argv: Sequence[str] | None = None) -> int:
    """Judge every bar; the last line is the summary."""
    args = _parser().parse_args(argv)
    if args.report is not None:
        report = json.loads(args.report.read_text())
    else:
        import runtime_speed

        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        report = runtime_speed.measure(list(runtime_speed.PARTS), args.seconds)
        print(runtime_speed.table(report), end="\n\n")
    verdicts = judge(read_bars(args.bars), report["figures"])
    for verdict in verdicts:
        print(verdict)
    missed = [verdict.bar.name for verdict in verdicts if not verdict.kept]
    print(
        f"{len(verdicts) - len(missed)} of {len(verdicts)} bars kept"
        + (f"; missed: {', '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", type=Path, metavar="JSON", help="judge this run")
    parser.add_argument("--bars", type=Path, default=_BARS, metavar="TOML")
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing a part, at least")
    return parser


if __name__ == "__main__":
    sys.exit(main())
