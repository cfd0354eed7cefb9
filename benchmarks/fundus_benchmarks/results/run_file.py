"""What one measuring command writes: a part of a run, as JSON that says where it comes from.

Every part has the same frame (`new_part`): when, of which commit, by which command, on which
machine and with which versions it was measured, its `rows`, and under `missing` what could not be
measured and why. `report.py` puts the parts of a run together.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fundus_benchmarks.results.processor import PROCESSOR, processor_identity
from fundus_runtime.atomic import atomic_text
from fundus_runtime.latency.machine import describe_machine

__all__ = [
    "PARTS",
    "ROOT",
    "RUN_FORMAT",
    "RUN_SCHEMA_VERSION",
    "default_folder",
    "machine_name",
    "new_part",
    "read_part",
    "write_part",
]

RUN_FORMAT = "fundus-edge benchmark"
RUN_SCHEMA_VERSION = 1
PARTS = ("latency", "limits", "ratios", "faithfulness", "growth", "jetson")
ROOT = Path(__file__).parents[3]

_PACKAGES = (
    "fundus-edge",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "openvino",
    "simplejpeg",
    "tensorrt",
    "torch",
)


def default_folder() -> Path:
    """Where the parts of a run lie until the report has read them."""
    return ROOT / "build" / "benchmarks" / "run"


def new_part(
    part: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    command: str,
    settings: Mapping[str, Any] | None = None,
    missing: Sequence[Mapping[str, str]] = (),
    **more: Any,
) -> dict[str, Any]:
    """A part's frame around its rows.

    Args:
        part: one of `PARTS`.
        rows: what was measured, JSON-able.
        command: that measures the same again, from the repository's root.
        settings: threads, seconds and what else the figures depend on.
        missing: `what` could not be measured, and `why`.
        more: further keys of this part.

    Raises:
        ValueError: there is no such part.
    """
    if part not in PARTS:
        raise ValueError(f"there is no part {part!r}; it is one of {', '.join(PARTS)}")
    return {
        "format": RUN_FORMAT,
        "schema_version": RUN_SCHEMA_VERSION,
        "part": part,
        "measured_at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "command": command,
        "machine": _machine(),
        "versions": _versions(),
        "settings": dict(settings or {}),
        "rows": [dict(row) for row in rows],
        "missing": [dict(one) for one in missing],
        **more,
    }


def write_part(part: Mapping[str, Any], folder: Path) -> Path:
    """Write a part as `<folder>/<part>.json`; the file is whole or the old one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part['part']}.json"
    with atomic_text(path, force=True) as file:
        file.write(json.dumps(part, indent=1) + "\n")
    return path


def read_part(path: Path) -> dict[str, Any]:
    """A part that was written.

    Raises:
        ValueError: the file is no part of a benchmark, or of another version of the format.
    """
    part = json.loads(path.read_text("utf-8"))
    if not isinstance(part, dict) or part.get("format") != RUN_FORMAT:
        raise ValueError(f"{path} is no part of a benchmark; expected format {RUN_FORMAT!r}")
    if part.get("schema_version") != RUN_SCHEMA_VERSION or part.get("part") not in PARTS:
        raise ValueError(
            f"{path} holds part {part.get('part')!r} of schema version "
            f"{part.get('schema_version')!r}, expected one of {', '.join(PARTS)} of version "
            f"{RUN_SCHEMA_VERSION}; measure again"
        )
    return part


def machine_name(machine: Mapping[str, Any]) -> str:
    """The folder of a machine's results: its device or processor, and how many CPUs it has."""
    words = f"{machine['device'] or machine['processor']} {machine['usable_processors']} cpus"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _machine() -> dict[str, Any]:
    found, identity = describe_machine(), processor_identity()
    untold = [*found["not_available"], *([PROCESSOR] if identity is None else [])]
    return {**found, PROCESSOR: identity, "not_available": untold}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The checkout's commit, `+` behind it where files differ from it; None outside git."""
    try:
        head, changes = (
            subprocess.run(
                ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
            ).stdout.strip()
            for words in (
                ("rev-parse", "--short=12", "HEAD"),
                (
                    "status",
                    "--porcelain",
                    "--untracked-files=no",
                    "--",
                    ".",
                    ":!benchmarks/results",
                ),
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changes else "")
