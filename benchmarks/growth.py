"""How latency, throughput and memory grow: with the frame, the input, the batch, threads, trunk.

    python benchmarks/growth.py
    python benchmarks/growth.py --curve megapixels --seconds 20

Curves state the line of least squares through their medians; pairs a second, which follow from the
line of the time and level off, are given as measured. Models that are not at hand are
exported once and kept under build/benchmarks. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_runtime.commands.arguments import positive_integer, positive_number

if TYPE_CHECKING:
    from fundus_benchmarks.growth.curves import Curve, Effort

_MODELS = ("edge", "resnet50", "paper")
_CURVES = ("megapixels", "image_size", "batch", "threads", "trunk", "pairs")
_LOG = logging.getLogger("growth")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the part, print a table."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    from fundus_runtime.commands.program import run_program

    return run_program("growth", lambda: _grow(args, words), when_interrupted="nothing was written")


def build_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curve", action="append", choices=_CURVES, help="default: all")
    parser.add_argument(
        "--model",
        action="append",
        choices=_MODELS,
        help="that batch, threads and trunk are varied on (default: edge and paper)",
    )
    parser.add_argument(
        "--seconds",
        type=positive_number,
        default=10.0,
        help="a curve is timed for, at least, and nine rounds (default: %(default)g)",
    )
    parser.add_argument(
        "--threads", type=positive_integer, default=2, help="of every engine (default: %(default)s)"
    )
    parser.add_argument(
        "--full", action="store_true", help="also ResNet-50, and ResNet-152 at 448 px"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: build/benchmarks/run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def table(part: dict[str, Any]) -> str:
    """A curve's line, and its points under it."""
    lines = [line for row in part["rows"] for line in (_headline(row), f"    {_points(row)}")]
    lines += [f"missing: {one['what']}: {one['why']}" for one in part["missing"]]
    return "\n".join(lines)


def _headline(row: dict[str, Any]) -> str:
    from fundus_benchmarks.report.fit_words import fit_in_words

    name = ", ".join(part for part in (row["what"], row["model"]) if part)
    line = fit_in_words(row) or f"no line, {len(row['points'])} measured"
    return f"{name}: {line}" + ("" if row["r2"] is None else f", r² {row['r2']:.3f}")


def _points(row: dict[str, Any]) -> str:
    from fundus_benchmarks.report.numerals import number

    return ", ".join(
        f"{point['label'] or number(point['x'])}: {number(point['y'])}" for point in row["points"]
    )


def _grow(args: argparse.Namespace, words: Sequence[str]) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from fundus_benchmarks.growth.curves import Effort
    from fundus_benchmarks.results.run_file import default_folder, new_part, write_part
    from fundus_runtime.errors import FundusError

    logging.getLogger("torch").setLevel(logging.WARNING)
    models = args.model or [name for name in _MODELS if args.full or name != "resnet50"]
    effort = Effort(args.seconds, args.threads, tuple(models), args.full)
    rows: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    measures = _measures()
    # what an export says on the way is no result of this program
    with logging_redirect_tqdm(), contextlib.redirect_stdout(sys.stderr):
        for name in tqdm(args.curve or _CURVES, desc="growth", unit="curve"):
            try:
                rows += [curve.row() for curve in measures[name](effort)]
            except FundusError as error:
                missing.append({"what": f"growth with {name}", "why": str(error)})
    part = new_part(
        "growth",
        rows,
        command=shlex.join(["python", "benchmarks/growth.py", *words]),
        settings=asdict(effort),
        missing=missing,
    )
    path = write_part(part, args.out or default_folder())
    print(json.dumps(part, indent=1) if args.json else table(part))
    _LOG.info("wrote %s, %.1f kB", path, path.stat().st_size / 1e3)
    return 0 if rows else 1


def _measures() -> dict[str, Callable[[Effort], list[Curve]]]:
    from fundus_benchmarks.growth.engines import batch, image_size, threads, trunk
    from fundus_benchmarks.growth.frames import megapixels
    from fundus_benchmarks.growth.throughput import throughput

    found = (megapixels, image_size, batch, threads, trunk, throughput)
    return dict(zip(_CURVES, found, strict=True))


if __name__ == "__main__":
    sys.exit(main())
