"""The bundle that this package ships: where it lies, and the hash that vouches for it.

It is also the default bundle, unless `$FUNDUS_BUNDLE` names another.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from fundus_runtime.errors import BundleError
from fundus_runtime.manifest import MANIFEST_NAME

__all__ = [
    "BUNDLE_VARIABLE",
    "default_bundle",
    "is_shipped_hash",
    "is_shipped_place",
    "shipped_places",
]

BUNDLE_VARIABLE = "FUNDUS_BUNDLE"

_NAME = "edge"
_PACKAGE = Path(__file__).resolve().parent
_HASHES = _PACKAGE / "shipped.json"


def default_bundle() -> Path:
    """Folder of the bundle that is used when none is named.

    `$FUNDUS_BUNDLE` first, then the bundle inside the installed package, then `bundles/edge` of the
    source tree that this package runs from.

    Raises:
        BundleError: none of the three is there.
    """
    if named := os.environ.get(BUNDLE_VARIABLE):
        if not _is_folder(Path(named)):
            raise BundleError(
                f"${BUNDLE_VARIABLE} is {named!r}, which is no folder; "
                "set it to a bundle's folder or unset it"
            )
        return Path(named)
    places = shipped_places()
    for place in places:
        if (place / MANIFEST_NAME).is_file():
            return place
    looked = " nor ".join(str(place) for place in places)
    raise BundleError(
        f"no bundle: none was given, ${BUNDLE_VARIABLE} is not set, and the shipped one is neither "
        f"at {looked}; give one with --bundle DIR or set ${BUNDLE_VARIABLE}"
    )


def shipped_places() -> tuple[Path, Path]:
    """Where the shipped bundle may lie: in the installed package, and in its source tree."""
    return (
        _PACKAGE / "bundles" / _NAME,
        _PACKAGE.parent.parent / "bundles" / _NAME,
    )


def is_shipped_place(folder: Path) -> bool:
    """Whether a folder is one of `shipped_places`."""
    return any(place.exists() and place.samefile(folder) for place in shipped_places())


def is_shipped_hash(sha256: str) -> bool:
    """Whether this package records a manifest's SHA-256 as its own bundle's."""
    try:
        shipped = json.loads(_HASHES.read_text("utf-8"))
    except FileNotFoundError:
        return False
    return sha256 in shipped.values()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a folder above that may not be entered
        return False
