"""How a command ends: exit status 0, 1 for a failure with a reason, 2 for wrong usage, 130.

Results go to standard output, logs and reasons to standard error.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from fundus_runtime.errors import FundusError, UsageError

__all__ = ["INTERRUPTED", "run_program"]

INTERRUPTED = 130


def run_program(name: str, action: Callable[[], int], *, when_interrupted: str) -> int:
    """Run a command and turn what it raises on purpose into a message and an exit status.

    Args:
        name: of the program, for its messages.
        action: the command; returns the exit status.
        when_interrupted: what became of the work at Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status = action()
        sys.stdout.flush()  # here, where a reader that went away can still be told apart
    except FundusError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {when_interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # what is still buffered would fail again at shutdown
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
