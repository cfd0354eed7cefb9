"""Latency, energy and heat of exams on a Jetson, fresh and after minutes without a pause.

    python3 benchmarks/jetson.py --bundle bundles/edge                       # its TensorRT plans
    python3 benchmarks/jetson.py --backend onnxruntime --provider cpu        # the CPU beside them

benchmarks/jetson.md walks through it. Writes the part `jetson`, with one row:

- `model`, `backend`, `provider`, `dialect`, `precision`, `threads`, `degraded_reason`: what ran.
- `golden_pairs`: answered as recorded before anything was timed; null where a bundle has none.
- `seconds`, `exams`: of the load: ready pairs, one after another without a pause.
- `fresh`, `sustained`: the load's first and last 30 s, at most half of it each: `seconds`, `pair`
  and `stages` by the names of a result's `time_ms`, each with `count`, `p50_ms`, `p90_ms`, `p99_ms`
  and `max_ms`.
- `power`: `covers` (`board` with the carrier board, `module` without, null: no total is known),
  `rails` (their sum is the power; without a total, those that were seen), `samples`,
  `longest_gap_ms`; mean power in W: `rest_w` (nothing open), `ready_w` (screener open, no exam),
  `load_w`, `fresh_w`, `sustained_w`; `gross_j_per_exam` (all energy of the load by the exams in it)
  and `net_j_per_exam` (the same without what the board at rest takes in that time).
- `clocks_pinned`: whether jetson_clocks was on, as the clocks' bounds tell.
- `clocks_mhz`: of `cpu`, `gpu` and `memory`, the highest of the parts: `fresh` and `sustained`
  (medians), `lowest` during the load, `allowed` by the power mode.
- `temperatures_c`: by sensor: `rest`, `fresh`, `sustained` (medians), `highest` during the load.
- `throttled`: true, false, or null where too little is told to say no; `throttled_because`: what
  says so, `throttling_not_told`: what could not be read.
- `series`: the load in at most 120 equal parts, medians of each: `t_s` (of its middle), `pair_ms`,
  `power_w`, `hottest_c` (over all sensors), `cpu_mhz`, `gpu_mhz`, `memory_mhz`.

What is not told is null and stands under the part's `missing`. More of the part: `l4t`, the release
of Jetson Linux; the power mode is in `machine`. Without root everything but the memory's clock and
load is told.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundus_runtime.commands.arguments import add_engine_options, path_text, positive_number
from fundus_runtime.commands.output import json_text, print_text
from fundus_runtime.commands.program import run_program
from fundus_runtime.errors import FundusError

PROGRAM = "jetson"
_MODEL = Path("/proc/device-tree/model")
_RELEASE = Path("/etc/nv_tegra_release")
_PRECISIONS = ("fp32", "tf32", "fp16", "int8")


class NoJetsonError(FundusError):
    """This machine is no Jetson, so that there is nothing to measure on it."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=path_text, metavar="DIR", help="default: what ships")
    add_engine_options(parser)
    parser.set_defaults(backend="tensorrt")
    parser.add_argument("--precision", choices=_PRECISIONS, help="of plans in several")
    parser.add_argument("--minutes", type=positive_number, default=5.0, metavar="N")
    parser.add_argument("--rest-seconds", type=positive_number, default=10.0, metavar="N")
    parser.add_argument("--frames", type=path_text, metavar="DIR", help="default: ten drawn ones")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: build/benchmarks/run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures, and write the part."""
    args = build_parser().parse_args(argv)
    return run_program(PROGRAM, lambda: _run(args), when_interrupted="nothing was written")


def _run(args: argparse.Namespace) -> int:
    _require_jetson()
    from fundus_benchmarks.jetson.table import jetson_table
    from fundus_benchmarks.results.run_file import default_folder, write_part

    part = _measure(args)
    path = write_part(part, args.out or default_folder())
    print_text(json_text(part) if args.json else jetson_table(part))
    print(f"written to {path}", file=sys.stderr)
    return 0


def _require_jetson() -> None:
    lacking = [
        what
        for what, there in (
            ("no tegrastats on the path", shutil.which("tegrastats") is not None),
            (f"no {_MODEL}", _MODEL.exists()),
        )
        if not there
    ]
    if lacking:
        raise NoJetsonError(
            f"this machine is no Jetson: it has {' and '.join(lacking)}; nothing was measured, run "
            "it on the Jetson itself"
        )


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    from fundus_benchmarks.jetson.row import jetson_row, missing_of
    from fundus_benchmarks.jetson.sustained import Plan, record
    from fundus_benchmarks.jetson.throttling import JetsonNodes
    from fundus_benchmarks.results.run_file import new_part
    from fundus_runtime.backends.settings import EngineSettings
    from fundus_runtime.bundle import Bundle
    from fundus_runtime.latency.frames import camera_frames, frames_of
    from fundus_runtime.screener import Screener

    frames = camera_frames() if args.frames is None else frames_of(args.frames)
    bundle = Bundle.open(args.bundle)
    settings = EngineSettings(threads=args.threads, precision=args.precision)
    recording = record(
        bundle,
        lambda: Screener.open(
            bundle, backend=args.backend, provider=args.provider, settings=settings
        ),
        frames,
        Plan(load_s=60 * args.minutes, rest_s=args.rest_seconds),
        JetsonNodes(),
    )
    row = jetson_row(recording, model=bundle.manifest.name)
    return new_part(
        "jetson",
        [row],
        command=_command(args),
        settings={
            "minutes": args.minutes,
            "rest_seconds": args.rest_seconds,
            "frames": [f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames],
        },
        missing=missing_of(row),
        l4t=_l4t(),
    )


def _command(args: argparse.Namespace) -> str:
    """What measures the same again; folders elsewhere stay unnamed, since the part is passed on."""
    words = ["python3 benchmarks/jetson.py"]
    if args.bundle is not None:
        words.append(f"--bundle {_shown(Path(args.bundle).resolve())}")
    words.append(f"--backend {args.backend}")
    if args.backend == "onnxruntime":
        words.append(f"--provider {args.provider}")
    words += [
        f"--{name} {value}"
        for name, value in (("threads", args.threads), ("precision", args.precision))
        if value is not None
    ]
    words += [f"--minutes {args.minutes:g}", *(["--frames DIR"] if args.frames else [])]
    return " ".join(words)


def _shown(folder: Path) -> str:
    from fundus_benchmarks.results.run_file import ROOT

    root = ROOT.resolve()
    return str(folder.relative_to(root)) if folder.is_relative_to(root) else folder.name


def _l4t() -> str | None:
    """The release of Jetson Linux, such as 36.4.3."""
    try:
        text = _RELEASE.read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return None if found is None else f"{found[1]}.{found[2]}"


if __name__ == "__main__":
    sys.exit(main())
