"""Writes a file whole or not at all.

The content goes to a temporary file beside the target, is flushed to the disk, and takes the
target's name in one step. On any failure or interruption the temporary file is removed and the
target is as it was.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from fundus_runtime.errors import ResultError

__all__ = ["atomic_text", "require_writable"]


def require_writable(path: str | Path, *, force: bool) -> Path:
    """Check, before any work, that a file can be written later.

    Returns:
        The file to write; where `path` is a link, what it leads to.

    Raises:
        ResultError: the file exists and `force` is not given, it is no ordinary file, or its folder
            is missing or cannot be written.
    """
    try:
        return _writable(Path(path).resolve() if Path(path).is_symlink() else Path(path), force)
    except OSError as error:
        raise ResultError(
            f"{path} cannot be written: {error.strerror or error}; choose another name"
        ) from error


def _writable(target: Path, force: bool) -> Path:
    folder = target.parent
    if target.is_dir():
        raise ResultError(f"{target} is a folder; give the name of a file to write")
    if not folder.is_dir():
        raise ResultError(f"the folder {folder} does not exist, so {target.name} cannot be written")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResultError(f"the folder {folder} cannot be written; choose another or its rights")
    if target.exists() and not target.is_file():
        raise ResultError(f"{target} is no ordinary file, so it cannot be replaced; name a file")
    if target.exists() and not force:
        raise ResultError(f"{target} exists already; choose another name or give --force")
    return target


@contextmanager
def atomic_text(
    path: str | Path, *, force: bool, newline: str | None = None, mode: int = 0o666
) -> Iterator[TextIO]:
    """Open a UTF-8 text file that appears under its name only when the block ends well.

    Args:
        path: the file to write.
        force: replace an existing file.
        newline: as for `open`; the csv module wants "".
        mode: rights of the file from its first byte on, less what the umask takes away.

    Raises:
        ResultError: the file cannot be written.
    """
    target = require_writable(path, force=force)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        # ids come from file names, which may hold bytes that are no UTF-8; they go out as they came
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(
            descriptor, "w", encoding="utf-8", errors="surrogateescape", newline=newline
        ) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        require_writable(target, force=force)
        partial.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise ResultError(f"{target} cannot be written: {error}; nothing was written") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # without this a power cut may forget the new name; some file systems cannot do it
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
