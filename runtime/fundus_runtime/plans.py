"""TensorRT plans: a cache of a bundle for one device, kept beside the bundle.

    <bundle folder>.plans/<plan key>/report.json              what was built, with all hashes
                                     encoder-<sha256>.plan
                                     head-<sha256>.plan

Plans are executable. None is handed out before the bundle is trusted, the report fits bundle and
device, and the plan's bytes have the recorded hash; the bytes that were checked are what is
returned. `plan_writer` writes what is read here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import PlanError
from fundus_runtime.plan_key import Device, PlanKey

__all__ = [
    "GRAPHS",
    "PLANS_FORMAT",
    "PLANS_SCHEMA_VERSION",
    "PLANS_VARIABLE",
    "REPORT_NAME",
    "Plans",
    "build_command",
    "built_precisions",
    "found_keys",
    "graph_hashes",
    "plans_folder",
    "read_plans",
    "read_report",
]

PLANS_VARIABLE = "FUNDUS_PLANS"
PLANS_FORMAT = "fundus-edge plans"
PLANS_SCHEMA_VERSION = 1
REPORT_NAME = "report.json"
GRAPHS = ("encoder", "head")

_PLAN_NAME = re.compile(r"(encoder|head)-[0-9a-f]{16}\.plan")
_MAX_REPORT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Plans:
    """Verified plans of one bundle for this device.

    Attributes:
        folder: where they lie.
        key: what they were built for.
        encoder: the encoder's plan.
        head: the head's plan.
        sha256: of each plan, by `encoder` and `head`.
        built: what the builder reported.
    """

    folder: Path
    key: PlanKey
    encoder: bytes = field(repr=False)
    head: bytes = field(repr=False)
    sha256: Mapping[str, str]
    built: Mapping[str, Any] = field(repr=False)


def plans_folder(bundle: Bundle) -> Path:
    """Where a bundle's plans lie: beside it, or in `$FUNDUS_PLANS` where it cannot be written."""
    name = f"{bundle.path.resolve().name}.plans"
    elsewhere = os.environ.get(PLANS_VARIABLE)
    return Path(elsewhere) / name if elsewhere else bundle.path.resolve().with_name(name)


def build_command(bundle: Bundle, precision: str, max_batch: int | None = None) -> str:
    """The command that builds plans on this device."""
    words = ["fundus-export", "engine", "--bundle", str(bundle.path), "--precision", precision]
    if max_batch is not None:
        words += ["--max-batch", str(max_batch)]
    return shlex.join(words)


def read_plans(
    bundle: Bundle, device: Device, *, precision: str, max_batch: int | None = None
) -> Plans:
    """The plans of a bundle for this device, verified; nothing is deserialised here.

    Args:
        bundle: verified, and trusted by this machine.
        device: this device.
        precision: what is wanted.
        max_batch: the largest batch they were built for; None for those that were built last.

    Raises:
        PlanError: there are none, they were built for another device or another state of the
            bundle, or a file is not the one that was recorded.
    """
    if bundle.trust == "unsigned":
        raise PlanError(
            f"bundle {bundle.path} is unsigned, so that plans built from it are not loaded; sign "
            f"it where it was made: {shlex.join(['fundus-export', 'sign', str(bundle.path)])}"
        )
    root, mismatches = plans_folder(bundle), []
    for folder in _newest_first(root):
        try:
            report = read_report(folder)
            key = _key_of(folder, report)
        except PlanError as error:  # another folder may still hold what is wanted
            mismatches.append(str(error))
            continue
        reason = _mismatch(bundle, key, device, precision, max_batch)
        if reason is None:
            return _verified(bundle, folder, key, report)
        mismatches.append(reason)
    command = build_command(bundle, precision, max_batch)
    if not mismatches:
        raise PlanError(f"there are no plans of {bundle.path} in {root}; build them: {command}")
    raise PlanError(
        f"the plans in {root} do not fit: {'; '.join(mismatches)}. Build them here: {command}"
    )


def found_keys(bundle: Bundle) -> Iterator[PlanKey]:
    """What the plans that lie with a bundle say they are, those that were built last first.

    Nothing else of them is verified, as `read_plans` does; folders without a sound report are left
    out.
    """
    for folder in _newest_first(plans_folder(bundle)):
        with suppress(PlanError):  # told by read_plans, if nothing else fits
            yield _key_of(folder, read_report(folder))


def built_precisions(bundle: Bundle, device: Device) -> tuple[str, ...]:
    """In which precisions there are plans of this bundle for this device, ordered by name."""
    wanted = bundle.sha256, device
    keys = (key for key in found_keys(bundle) if (key.bundle_sha256, key.device) == wanted)
    return tuple(sorted({key.precision for key in keys}))


def read_report(folder: Path) -> dict[str, Any]:
    """The report in a folder of plans.

    Raises:
        PlanError: there is none, or it is malformed.
    """
    report = folder / REPORT_NAME
    try:
        data = _read_plain(report, _MAX_REPORT_BYTES)
        values = json.loads(data.decode("utf-8"))
        if values["format"] != PLANS_FORMAT or values["schema_version"] != PLANS_SCHEMA_VERSION:
            raise ValueError(f"{values['format']!r}, version {values['schema_version']!r}")
        for graph in GRAPHS:
            name = values["plans"][graph]["file"]
            if _PLAN_NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no plan's name")
        return dict(values)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PlanError(
            f"{report} is no report of plans ({type(error).__name__}: {error}); remove {folder} "
            "and build the plans again"
        ) from error


def graph_hashes(bundle: Bundle, dialect: str) -> dict[str, str]:
    """SHA-256 of a dialect's encoder and head, as the manifest records them."""
    pair = bundle.manifest.graphs[dialect]
    files = bundle.manifest.files
    return {"encoder": files[pair.encoder].sha256, "head": files[pair.head].sha256}


def _newest_first(root: Path) -> list[Path]:
    """Folders that hold a report; without one the writing never ended."""
    try:
        reports = [folder / REPORT_NAME for folder in root.iterdir()]
        found = [report for report in reports if report.is_file()]
        found.sort(key=lambda report: report.stat().st_mtime, reverse=True)
    except OSError:
        return []
    return [report.parent for report in found]


def _key_of(folder: Path, report: Mapping[str, Any]) -> PlanKey:
    try:
        return PlanKey.from_dict(report["key"])
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(
            f"{folder / REPORT_NAME} has a malformed key ({error}); remove {folder} and build the "
            "plans again"
        ) from error


def _mismatch(
    bundle: Bundle, key: PlanKey, device: Device, precision: str, max_batch: int | None
) -> str | None:
    """Why plans are not the ones that are wanted, both sides named; None where they are."""
    if key.bundle_sha256 != bundle.sha256:
        return (
            f"some were built from another state of the bundle, manifest "
            f"{key.bundle_sha256[:12]}, but it is {bundle.sha256[:12]}"
        )
    if key.device != device:
        return (
            f"some were built for {key.device.in_words()}, but this device is {device.in_words()}"
        )
    if key.precision != precision:
        return f"some were built for precision {key.precision}, but {precision} is wanted"
    if max_batch not in (None, key.max_batch):
        return f"some were built for batches up to {key.max_batch}, but {max_batch} is wanted"
    return None


def _verified(bundle: Bundle, folder: Path, key: PlanKey, report: Mapping[str, Any]) -> Plans:
    again = build_command(bundle, key.precision, key.max_batch)
    wanted = graph_hashes(bundle, key.dialect) if key.dialect in bundle.manifest.graphs else None
    if report.get("graphs") != wanted:
        raise PlanError(
            f"{folder} was built from graphs {report.get('graphs')}, but those of the bundle's "
            f"dialect {key.dialect} are {wanted}; build the plans again: {again}"
        )
    found = {}
    for graph in GRAPHS:
        entry = report["plans"][graph]
        found[graph] = _plan(folder / entry["file"], entry, again)
    return Plans(
        folder=folder,
        key=key,
        encoder=found["encoder"],
        head=found["head"],
        sha256={graph: sha256_hex(data) for graph, data in found.items()},
        built=report.get("built", {}),
    )


def _plan(file: Path, entry: Mapping[str, Any], again: str) -> bytes:
    """The bytes of a plan, which have the recorded hash."""
    try:
        size = int(entry["bytes"])
        data = _read_plain(file, size)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(
            f"{file} cannot be read: {error}; build the plans again: {again}"
        ) from error
    if len(data) != size or sha256_hex(data) != entry.get("sha256"):
        raise PlanError(
            f"{file} is not the plan that was built: it has {len(data)} bytes and SHA-256 "
            f"{sha256_hex(data)}, expected {size} and {entry.get('sha256')}. It is not loaded, "
            f"since plans are executable; find out who changed it, then build again: {again}"
        )
    return data


def _read_plain(file: Path, limit: int) -> bytes:
    if not stat.S_ISREG(file.lstat().st_mode):
        raise ValueError(f"{file.name} is no plain file")
    with file.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{file.name} has more than {limit} bytes")
    return data
