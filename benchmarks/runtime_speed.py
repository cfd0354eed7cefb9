"""How fast the runtime is, beside what its users would put together instead; one run, one machine.

    python benchmarks/runtime_speed.py

Three parts: preprocessing of a 5-megapixel frame on one thread; ResNet-152 in INT8 at 224 px, pair
and second eye, against PyTorch and OpenVINO; the shipped edge bundle's start, memory and install.
What the contenders answer is compared before anything is timed, and they take turns. Leave the
machine alone meanwhile. Writes the part `ratios` of a run.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fundus_benchmarks.ratios import suites
from fundus_benchmarks.results.run_file import default_folder, new_part, write_part
from fundus_runtime.commands.arguments import positive_number

SECONDS = 90.0
PARTS: dict[str, Callable[[float], suites.Part]] = {
    "preprocessing": suites.preprocessing,
    "paper": suites.paper,
    "edge": suites.edge,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write JSON where asked."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("torch").setLevel(logging.WARNING)
    report = measure(args.part or list(PARTS), args.seconds)
    path = write_part(report, args.out)
    print(json.dumps(report, indent=1) if args.json else table(report))
    logging.info("%s", path)
    return 0


def measure(parts: Sequence[str], seconds: float) -> dict[str, Any]:
    """The figures and timings of these parts, as the part `ratios` of a run."""
    figures: dict[str, float] = {}
    timings: dict[str, dict[str, float]] = {}
    for name in parts:
        logging.info("%s", name)
        part = PARTS[name](seconds)
        figures.update(part.figures)
        timings.update({f"{name}: {one}": t.to_dict() for one, t in part.timings.items()})
    return new_part(
        "ratios",
        [],
        command=_command(parts, seconds),
        settings={"parts": list(parts), "seconds": seconds, "threads": suites.THREADS},
        figures=figures,
        timings_ms=timings,
    )


def _command(parts: Sequence[str], seconds: float) -> str:
    chosen = [] if list(parts) == list(PARTS) else [f"--part {name}" for name in parts]
    asked = [] if seconds == SECONDS else [f"--seconds {seconds:g}"]
    return " ".join(("python benchmarks/runtime_speed.py", *chosen, *asked))


def table(report: dict[str, Any]) -> str:
    """The report as lines of text."""
    columns = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
    lines = [f"{'milliseconds':<48}" + "".join(f"{name[:-3]:>9}" for name in columns) + "    times"]
    for name, timing in report["timings_ms"].items():
        values = "".join(f"{timing[column]:9.2f}" for column in columns)
        lines.append(f"{name:<48}{values}{timing['count']:9d}")
    lines += ["", *(f"{name:<48}{value:9.3g}" for name, value in report["figures"].items())]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="default: all")
    parser.add_argument(
        "--seconds", type=positive_number, default=SECONDS, help="of timing a part, at least"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", default=default_folder(), help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
