"""What benchmarks make once lies under `build/benchmarks`, there whole or not at all.

Its name changes with the sources that make it, so that what is kept never goes stale.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from fundus_benchmarks.results.run_file import ROOT

__all__ = ["made_once"]

_KEPT = ROOT / "build" / "benchmarks"
_SOURCES = ("training/fundus_training", "export/fundus_export")

_log = logging.getLogger(__name__)


def made_once(name: str, make: Callable[[Path], None], *, of: tuple[Path, ...] = ()) -> Path:
    """The folder that `make` fills, made now if it is not there.

    Args:
        name: what it starts with.
        make: fills the empty folder that it is given.
        of: files, beside all code of training and export, that decide what comes out.
    """
    folder = _KEPT / f"{name}-{_hash_of(of)}"
    if folder.is_dir():
        return folder
    _log.info("making %s once, under %s", name, folder)
    _KEPT.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=_KEPT))
    try:
        make(making)
        making.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def _hash_of(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    code = (path for source in _SOURCES for path in sorted((ROOT / source).rglob("*.py")))
    for path in (*files, *code):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
