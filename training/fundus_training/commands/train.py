"""`fundus-train`: fit, evaluate and calibrate DMS-Net.

Results go to stdout, logs and progress to stderr; the exit status is 0, 1 for a failure with a
reason, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from fundus_runtime.errors import FundusError, UsageError
from fundus_runtime.version import __version__
from fundus_training.commands import calibrate, evaluate, fit

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-train` with its subcommands."""
    parser = argparse.ArgumentParser(prog="fundus-train", description="Train DMS-Net.")
    parser.add_argument("--version", action="version", version=f"fundus-edge {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (fit, evaluate, calibrate):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; see the module's contract for the exit status."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return int(args.run(args))
    except FundusError as error:
        print(f"fundus-train: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("fundus-train: interrupted; finished epochs are kept", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
