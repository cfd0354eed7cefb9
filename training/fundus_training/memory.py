"""Keep glibc from giving memory back to the kernel between the steps of a training on the CPU.

By default glibc maps every large tensor afresh and unmaps it when it is freed, so that each step
faults the same gigabytes in again, zeroed page by page. Measured on 2 busy cores with the preset
`edge`: 3.0 s a step instead of 4 to 6 s. The price is that the process keeps its largest size.
"""

from __future__ import annotations

import ctypes
import logging
import platform
import sys

__all__ = ["keep_freed_memory"]

_LOG = logging.getLogger(__name__)

# Names and numbers of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_NEVER = -1
_GROW_BY_BYTES = 256 * 2**20


def keep_freed_memory() -> bool:
    """Let this process reuse the memory that it frees, from now on.

    Changes speed and size alone, no number. Where the C library is not glibc nothing is changed.

    Returns:
        Whether glibc took the settings.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _GROW_BY_BYTES))
    answers = [mallopt(name, value) for name, value in settings]  # all, even after a refusal
    taken = answers == [1, 1, 1]
    _LOG.debug("glibc keeps freed memory: %s", taken)
    return taken
