"""What the commands print: text and JSON that every terminal and pipe can take."""

from __future__ import annotations

import json
import os
import sys

from fundus_runtime.errors import ResultError

__all__ = ["json_text", "print_text"]


def json_text(values: object) -> str:
    """JSON in ASCII alone, so that neither a terminal's encoding nor a file name can break it."""
    return json.dumps(values, indent=2, allow_nan=False)


def print_text(text: str) -> None:
    """Write to standard output at once; what its encoding lacks is written as an escape.

    Raises:
        BrokenPipeError: nobody reads it any more.
        ResultError: it cannot be written.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except OSError as error:
        # what is still buffered would fail again at shutdown
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise ResultError(
            f"standard output cannot be written: {error.strerror}; send it elsewhere"
        ) from error
