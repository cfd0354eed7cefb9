"""`fundus-export`: turn checkpoints into what the runtime runs.

Results go to stdout, logs and progress to stderr; the exit status is 0, 1 for a failure with a
reason, 2 for wrong usage, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fundus_export.commands import bundle, certify, check, engine, keygen, sign, verify
from fundus_runtime.commands.program import run_program
from fundus_runtime.version import __version__

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-export` with its subcommands."""
    parser = argparse.ArgumentParser(prog="fundus-export", description="Export DMS-Net.")
    parser.add_argument("--version", action="version", version=f"fundus-edge {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    bundle.add_parser(subparsers)
    certify.add_parser(subparsers)
    check.add_parser(subparsers)
    engine.add_parser(subparsers)
    keygen.add_parser(subparsers)
    sign.add_parser(subparsers)
    verify.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; see the module's contract for the exit status."""
    args = build_parser().parse_args(argv)
    return run_program(
        "fundus-export", lambda: int(args.run(args)), when_interrupted="nothing was written"
    )


if __name__ == "__main__":
    sys.exit(main())
