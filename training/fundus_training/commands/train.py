"""`fundus-train`: fit, evaluate and calibrate DMS-Net, and refit its per-eye output.

Results go to stdout, logs and progress to stderr; the exit status is 0, 1 for a failure with a
reason, 2 for wrong usage, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fundus_runtime.commands.program import run_program
from fundus_runtime.version import __version__
from fundus_training.commands import calibrate, evaluate, eye_head, fit

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-train` with its subcommands."""
    parser = argparse.ArgumentParser(prog="fundus-train", description="Train DMS-Net.")
    parser.add_argument("--version", action="version", version=f"fundus-edge {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (fit, evaluate, calibrate, eye_head):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; see the module's contract for the exit status."""
    args = build_parser().parse_args(argv)
    return run_program(
        "fundus-train", lambda: int(args.run(args)), when_interrupted="finished epochs are kept"
    )


if __name__ == "__main__":
    sys.exit(main())
