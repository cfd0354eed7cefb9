"""`fundus-bench`: how long an exam takes on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fundus_runtime.commands.arguments import add_engine_options, path_text, positive_number
from fundus_runtime.commands.output import json_text, print_text
from fundus_runtime.commands.program import run_program
from fundus_runtime.version import __version__

__all__ = ["build_parser", "main"]

PROGRAM = "fundus-bench"


def build_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-bench`."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    latency = commands.add_parser(
        "latency",
        help="stages and whole exams, first result after start, memory, clocks",
        description="Measure whole exams and their stages: a ready pair at once, the wait after "
        "the second eye, a retake, and a fresh process to its first result. Leave the machine "
        "alone meanwhile.",
    )
    latency.add_argument("--bundle", type=path_text, metavar="DIR", help="the model bundle")
    latency.add_argument(
        "--frames",
        type=path_text,
        metavar="DIR",
        help="photographs to measure on (default: ten drawn ones of 2592 x 1944 pixels)",
    )
    latency.add_argument(
        "--seconds",
        type=positive_number,
        default=15.0,
        metavar="N",
        help="of measuring, in all (default: %(default)g)",
    )
    add_engine_options(latency)
    latency.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = build_parser().parse_args(argv)
    return run_program(PROGRAM, lambda: _latency(args), when_interrupted="nothing was measured")


def _latency(args: argparse.Namespace) -> int:
    from fundus_runtime.latency.frames import camera_frames, frames_of
    from fundus_runtime.latency.report import format_latency, measure_latency
    from fundus_runtime.latency.subject import Subject

    frames = camera_frames() if args.frames is None else frames_of(args.frames)
    subject = Subject(args.bundle, args.backend, args.provider, args.threads)
    values = measure_latency(subject, frames, seconds=args.seconds)
    print_text(json_text(values) if args.json else format_latency(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
