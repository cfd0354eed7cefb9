"""Puts certificates, and the calibrations that they certify, into a bundle's manifest.

The folder is a whole bundle at any moment: the new manifest is written and flushed beside the
folder, never in it, where the file would be one that no manifest lists, and takes the old one's
name in one step. A signature goes before that: a bundle without one is valid, one whose signature
does not fit is not.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fundus_export.certificate.certificate import Certificate
from fundus_export.errors import ExportError
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.manifest import MANIFEST_NAME
from fundus_runtime.manifest_parser import parse_manifest
from fundus_runtime.signature import SIGNATURE_NAME

__all__ = ["certified_manifest", "require_unsigned", "write_certificates"]


def require_unsigned(bundle: Bundle) -> None:
    """Refuse to change what is signed.

    Raises:
        ExportError: the bundle has a signature.
    """
    if (bundle.path / SIGNATURE_NAME).exists():
        raise ExportError(
            f"bundle {bundle.path} is signed, and its signature would not fit the certified "
            "manifest; certify with --drop-signature and sign it again, or look without writing: "
            "--no-write"
        )


def write_certificates(
    bundle: Bundle, certificates: Mapping[str, Certificate], *, drop_signature: bool = False
) -> str:
    """Write certificates into the manifest.

    Args:
        bundle: as it was certified.
        certificates: by name of the graphs.
        drop_signature: remove the signature of a signed bundle.

    Returns:
        SHA-256 of the new manifest.

    Raises:
        ExportError: the bundle is signed, was changed meanwhile, or cannot be written; it is as it
            was.
        BundleError: the runtime would refuse the new manifest, which is a fault of the export.
    """
    if not drop_signature:
        require_unsigned(bundle)
    target = bundle.path / MANIFEST_NAME
    try:
        before = target.read_bytes()
        if sha256_hex(before) != bundle.sha256:
            raise ExportError(
                f"bundle {bundle.path} was changed while it was certified; certify it again"
            )
        after = certified_manifest(json.loads(before), certificates)
        parse_manifest(after)
        with _written_beside(bundle.path, after) as made:
            (bundle.path / SIGNATURE_NAME).unlink(missing_ok=True)
            made.replace(target)
    except OSError as error:
        raise ExportError(
            f"{target} cannot be written: {error.strerror or error}; no certificate was stored"
        ) from error
    return sha256_hex(after)


def certified_manifest(values: Mapping[str, Any], certificates: Mapping[str, Certificate]) -> bytes:
    """A manifest's bytes with these certificates in it, others left as they are."""
    graphs = {name: dict(entry) for name, entry in values["graphs"].items()}
    for name, certificate in certificates.items():
        graphs[name].pop("calibration", None)
        if not certificate.refit.kept:
            eye = certificate.eye_calibration
            graphs[name]["calibration"] = {
                "patient": certificate.calibration.to_dict(),
                "eye": None if eye is None else eye.to_dict(),
            }
    stored = dict(values.get("certificates", {}))
    stored |= {name: certificate.to_dict() for name, certificate in certificates.items()}
    text = json.dumps(
        {**values, "graphs": graphs, **({"certificates": stored} if stored else {})},
        indent=1,
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
    )
    return (text + "\n").encode()


@contextmanager
def _written_beside(folder: Path, data: bytes) -> Iterator[Path]:
    """A flushed file beside the folder, on the same disk; gone afterwards, if it was not moved."""
    home = folder.resolve()
    handle, name = tempfile.mkstemp(prefix=f".{home.name}.manifest.", dir=home.parent)
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        made.chmod((folder / MANIFEST_NAME).stat().st_mode & 0o777)
        yield made
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)
