"""A file of measured kernels, so that the next build on this device need not measure again.

The file is TensorRT's own form, and TensorRT itself says whether it belongs to this device and
version. One that does not is refused by name, never used in part and never written over.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from fundus_export.errors import ExportError

__all__ = ["load_timing_cache", "save_timing_cache"]


def load_timing_cache(config: Any, path: Path | None, log: Any) -> None:
    """Give a configuration the cache's content, or an empty one to collect in.

    Raises:
        ExportError: the file cannot be read, or was measured on another device or TensorRT.
    """
    data = b"" if path is None else _read(path)
    before = len(log.messages)
    try:
        cache = config.create_timing_cache(data)
    except (TypeError, RuntimeError) as error:  # the bindings' answer to a null pointer
        raise _refused(path, log, before) from error
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise _refused(path, log, before)


def save_timing_cache(config: Any, path: Path | None) -> None:
    """Write what the configuration's cache holds now, whole or not at all.

    Raises:
        ExportError: it cannot be written; the file is as it was.
    """
    cache = config.get_timing_cache()
    if path is None or cache is None:
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as out:
            out.write(bytes(cache.serialize()))
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError as error:
        raise ExportError(
            f"the timing cache {path} cannot be written: {error}; it is as it was. Make room, or "
            "leave --timing-cache out"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    if not path.parent.is_dir():
        raise ExportError(
            f"the folder {path.parent} of the timing cache does not exist; create it first"
        )
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ExportError(f"the timing cache {path} cannot be read: {error}") from error


def _refused(path: Path | None, log: Any, before: int) -> ExportError:
    said = "; ".join(list(log.messages)[before:]) or "it gives no reason"
    return ExportError(
        f"TensorRT refuses the timing cache {path}: {said}. It was measured on another device or "
        "with another TensorRT; name a new file with --timing-cache"
    )
