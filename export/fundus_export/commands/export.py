"""`fundus-export`: turn checkpoints into what the runtime runs.

Results go to stdout, logs and progress to stderr; the exit status is 0, 1 for a failure with a
reason, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from fundus_export.commands import bundle
from fundus_runtime.errors import FundusError, UsageError
from fundus_runtime.version import __version__

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-export` with its subcommands."""
    parser = argparse.ArgumentParser(prog="fundus-export", description="Export DMS-Net.")
    parser.add_argument("--version", action="version", version=f"fundus-edge {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    bundle.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; see the module's contract for the exit status."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return int(args.run(args))
    except FundusError as error:
        print(f"fundus-export: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("fundus-export: interrupted; nothing was written", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
