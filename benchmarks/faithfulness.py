"""How faithful each form of a model is to the PyTorch model that was validated.

    python benchmarks/faithfulness.py --data DIR

Every form of the bundle, on every engine that opens here, is asked about the validation patients of
its own checkpoint, and certified as `fundus-export certify` does: changed decisions with bounds,
score, AUC, calibration. DIR is the data set that the checkpoint was trained on, by default
$FUNDUS_DATA/odir; without it, the certificates that the bundle records are given, and marked so:
there are none of engines on a GPU, which are named as missing, each with its reason.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundus_runtime.commands.arguments import positive_integer

_LOG = logging.getLogger("faithfulness")


def main(argv: Sequence[str] | None = None) -> int:
    """Certify, write the part, print a table."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    args = parser.parse_args(words)
    if args.data is not None and not args.data.is_dir():
        parser.error(f"{args.data} is no folder; give the data set that the model was trained on")
    from fundus_runtime.commands.program import run_program

    return run_program(
        "faithfulness", lambda: _certify(args, words), when_interrupted="nothing was written"
    )


def _certify(args: argparse.Namespace, words: Sequence[str]) -> int:
    from fundus_benchmarks.faithfulness.certification import certify_bundle
    from fundus_benchmarks.results.run_file import ROOT, default_folder, new_part, write_part
    from fundus_runtime.bundle import Bundle

    rows: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    data = args.data or _data_at_hand()
    for folder in args.bundle or [ROOT / "bundles" / "edge"]:
        # a build host's tool, as certify is: it may look at what nobody has signed yet
        bundle = Bundle.open(folder, require_trust=False)
        found, refused = certify_bundle(
            bundle, data, patients=args.patients, cache_dir=args.cache_dir
        )
        rows += found
        missing += refused
    part = new_part(
        "faithfulness",
        rows,
        command=shlex.join(["python", "benchmarks/faithfulness.py", *words]),
        settings={
            "patients": args.patients or "all",
            "split": "val",
            "data": None if data is None else data.name,
        },
        missing=missing,
    )
    path = write_part(part, args.out or default_folder())
    print(json.dumps(part, indent=1) if args.json else table(part))
    _LOG.info("wrote %s, %.1f kB", path, path.stat().st_size / 1e3)
    return 0 if rows else 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        action="append",
        metavar="DIR",
        help="with a checkpoint in it; repeatable (default: bundles/edge)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a data set (default: $FUNDUS_DATA/odir)"
    )
    parser.add_argument(
        "--patients",
        type=positive_integer,
        metavar="N",
        help="of the validation patients, spread evenly (default: all of them)",
    )
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where crops are cached")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: build/benchmarks/run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def table(part: dict[str, Any]) -> str:
    """A line a row, then what is missing."""
    from fundus_benchmarks.report.numerals import number, percent, signed

    lines = [
        "changed against the PyTorch model (share, upper 95 % bound), default operating point",
        f"{'model':<8} {'dialect':<10} {'engine':<18} {'patients':>8} {'decisions':>16} "
        f"{'refer or not':>16} {'score':>8} {'ECE':>7}  verdict",
    ]
    for row in part["rows"]:
        engine = f"{row['backend']}, {row['provider']}"
        flips, refer = (
            f"{percent(row[f'{kind}_share'], 2)}, {percent(row[f'{kind}_upper'], 2)}"
            for kind in ("flip", "refer")
        )
        verdict = "kept" if row["passed"] else "MISSED: " + "; ".join(row["misses"])
        verdict += "" if row["source"] == "measured" else " (recorded in the bundle)"
        lines.append(
            f"{row['model']:<8} {row['dialect']:<10} {engine:<18} {row['patients']:>8} "
            f"{flips:>16} {refer:>16} {signed(row['score_difference']):>8} "
            f"{number(row['calibration_error']):>7}  {verdict}"
        )
    return "\n".join(
        [*lines, *(f"missing: {one['what']}: {one['why']}" for one in part["missing"])]
    )


def _data_at_hand() -> Path | None:
    folder = os.environ.get("FUNDUS_DATA")
    data = Path(folder, "odir") if folder else None
    return data if data is not None and data.is_dir() else None


if __name__ == "__main__":
    sys.exit(main())
