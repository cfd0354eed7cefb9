"""Whether heat maps find lesions that were drawn into normal eyes of real patients.

    FUNDUS_DATA=... python benchmarks/heat_maps.py --eyes 300

The eyes are those of ODIR whose only diagnostic keyword is "normal fundus", of patients whom the
shipped model was not trained on; `fundus_benchmarks.studies.localisation` says what is found.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fundus_benchmarks.studies.lesions import LESIONS
from fundus_benchmarks.studies.localisation import find_lesions, share_found
from fundus_benchmarks.studies.normal_eyes import normal_eyes
from fundus_runtime.bundle import Bundle
from fundus_runtime.photograph import read_photograph
from fundus_runtime.screener import Screener


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    args = _parser().parse_args(argv)
    bundle = Bundle.open(args.bundle)
    eyes = normal_eyes(args.data, bundle.path / "checkpoint.safetensors")[: args.eyes]
    print("| lesion, disc diameters | kind | eyes | within one cell | in the very cell |")
    print("|---|---|---|---|---|")
    with Screener.open(bundle) as screener:
        for size in args.sizes:
            frames = (read_photograph(path) for path in eyes)
            found = list(find_lesions(screener, frames, size=size, seed=args.seed))
            for kind in (*LESIONS, "all"):
                some = [one for one in found if kind in (one.kind, "all")]
                near, exact = (100 * share_found(some, within=cells) for cells in (1, 0))
                print(f"| {size} | {kind} | {len(some)} | {near:.0f} % | {exact:.0f} % |")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    folder = os.environ.get("FUNDUS_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=None if folder is None else Path(folder) / "odir",
        required=folder is None,
        help="ODIR's folder (default: $FUNDUS_DATA/odir)",
    )
    parser.add_argument("--bundle", type=Path, help="default: the shipped one")
    parser.add_argument("--eyes", type=int, default=300)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.7, 1.0, 1.5])
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
