"""Writes TensorRT plans into a bundle's cache, whole or not at all.

Plans come under names that their content decides; the report that names them is replaced last and
in one step. So whatever interrupts the writing (Ctrl-C, a full disk, a power cut), a reader finds
the previous plans or the new ones. What no report names any more is removed afterwards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fundus_runtime.atomic import atomic_text
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import PlanError, ResultError
from fundus_runtime.plan_key import PlanKey
from fundus_runtime.plans import (
    GRAPHS,
    PLANS_FORMAT,
    PLANS_SCHEMA_VERSION,
    PLANS_VARIABLE,
    REPORT_NAME,
    graph_hashes,
    plans_folder,
    read_report,
)

__all__ = ["write_plans"]


def write_plans(
    bundle: Bundle, key: PlanKey, plans: Mapping[str, bytes], built: Mapping[str, Any]
) -> Path:
    """Put plans into the cache; the previous ones stay in use until all is on the disk.

    Args:
        bundle: what they were built from.
        key: what they were built for.
        plans: the bytes by `encoder` and `head`.
        built: JSON values for people: how they were built and what was checked.

    Returns:
        The folder that holds them.

    Raises:
        PlanError: they cannot be written; the previous plans are as they were.
    """
    folder = plans_folder(bundle) / key.folder_name
    report = _report(bundle, key, plans, built)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for graph, entry in report["plans"].items():
            _place(folder / entry["file"], plans[graph])
        with atomic_text(folder / REPORT_NAME, force=True) as out:
            json.dump(report, out, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
            out.write("\n")
    except (OSError, ResultError) as error:
        raise PlanError(
            f"the plans cannot be written to {folder}: {error}; the previous ones are as they "
            f"were. Make room or rights, or set ${PLANS_VARIABLE} to a folder with both"
        ) from error
    finally:
        _remove_leftovers(folder)
    return folder


def _report(
    bundle: Bundle, key: PlanKey, plans: Mapping[str, bytes], built: Mapping[str, Any]
) -> dict[str, Any]:
    entries = {}
    for graph in GRAPHS:
        digest = sha256_hex(plans[graph])
        entries[graph] = {
            "file": f"{graph}-{digest[:16]}.plan",
            "sha256": digest,
            "bytes": len(plans[graph]),
        }
    return {
        "format": PLANS_FORMAT,
        "schema_version": PLANS_SCHEMA_VERSION,
        "key": key.to_dict(),
        "graphs": graph_hashes(bundle, key.dialect),
        "plans": entries,
        "built": dict(built),
    }


def _place(target: Path, data: bytes) -> None:
    """Write a plan under its final name, which its content decides, and flush it to the disk."""
    partial = target.with_name(f".{target.name}.partial")
    with partial.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(target)


def _remove_leftovers(folder: Path) -> None:
    """Remove what no report names: of older plans, or of a writing that was interrupted."""
    named: set[str] = set()
    if (folder / REPORT_NAME).exists():
        try:
            named = {entry["file"] for entry in read_report(folder)["plans"].values()}
        except PlanError:  # what it names is not known, so that nothing is known to be left over
            return
    with suppress(OSError):
        for file in folder.iterdir():
            if file.name not in named | {REPORT_NAME}:
                file.unlink()
    for empty in (folder, folder.parent):
        with suppress(OSError):  # only an empty folder goes
            empty.rmdir()
