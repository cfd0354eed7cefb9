"""Bundles that benchmarks make of a checkpoint, as `fundus-export` makes them, signed and all."""

from __future__ import annotations

import shutil
from pathlib import Path

from fundus_export.commands import export
from fundus_export.errors import ExportError

__all__ = ["write_signed_bundle"]


def write_signed_bundle(folder: Path, checkpoint: Path, *options: str | Path) -> None:
    """Write `<folder>/bundle`, and the key that it is signed with to `<folder>/trusted`.

    Args:
        folder: exists.
        checkpoint: calibrated.
        options: of `fundus-export bundle`, such as the precision.

    Raises:
        ExportError: a command failed; it said why.
    """
    key = folder / "key.pem"
    _run("keygen", "--out", key)
    (folder / "trusted").mkdir()
    shutil.copy(f"{key}.pub", folder / "trusted" / "benchmarks.pub")
    _run(
        *("bundle", "--checkpoint", checkpoint, "--out", folder / "bundle", *options),
        *("--sign-with", key),
    )


def _run(*words: str | Path) -> None:
    status = export.main([str(word) for word in words])
    if status != 0:
        raise ExportError(f"fundus-export {words[0]} ended with status {status}")
