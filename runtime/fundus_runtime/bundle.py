"""Opens a model bundle: a folder whose manifest lists every other file with its SHA-256.

`Bundle.open` verifies everything before anything is used. Each file is read once; the graphs' bytes
are kept as they were verified, so that what runs is what was checked, whatever happens to the disk
afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import BundleError, BundleTamperedError
from fundus_runtime.manifest import (
    MANIFEST_NAME,
    FileRecord,
    GraphPair,
    Manifest,
    parse_manifest,
)

__all__ = ["BUNDLE_VARIABLE", "Bundle", "Trust", "default_bundle"]

Trust = Literal["shipped", "unsigned"]

BUNDLE_VARIABLE = "FUNDUS_BUNDLE"
SHIPPED_NAME = "edge"
_PACKAGE = Path(__file__).resolve().parent
_SHIPPED_HASHES = _PACKAGE / "shipped.json"
_MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: its folder.
        manifest: its description.
        sha256: SHA-256 of `manifest.json`, which names the bundle as a whole.
        trust: `shipped` when this package records that hash as its own bundle's, else `unsigned`:
            the files are whole, but nobody vouches for where they come from.
    """

    path: Path
    manifest: Manifest
    sha256: str
    trust: Trust
    _graphs: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path | None = None) -> Bundle:
        """Verify a bundle's folder and open it.

        Args:
            path: the folder; None for `default_bundle()`.

        Raises:
            BundleError: the folder or its manifest is missing, malformed or of another version.
            BundleTamperedError: a file is missing, altered, unknown or a link, or the folder is
                the shipped bundle's and holds another one.
        """
        folder = default_bundle() if path is None else Path(path)
        try:
            data = _read_manifest(folder)
            manifest = _parsed(data, folder)
            graphs = _verified_graphs(folder, manifest)
        except OSError as error:
            raise BundleError(
                f"bundle {folder} cannot be read: {error}; check its rights"
            ) from error
        sha256 = sha256_hex(data)
        trust = _trust(manifest.name, sha256)
        if trust != "shipped" and _is_shipped_place(folder):
            raise BundleTamperedError(
                f"bundle {folder} is not the one that this package ships: its {MANIFEST_NAME} has "
                f"the SHA-256 {sha256}, which the package does not record; install fundus-edge "
                "again, or keep bundles of your own elsewhere and name them with --bundle"
            )
        return cls(folder, manifest, sha256, trust, graphs)

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists.

        Raises:
            BundleError: the manifest lists no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"{self.path}: the manifest lists no file {name!r}; it lists "
                f"{', '.join(sorted(self.manifest.files))}"
            )
        return self.path / name

    def graph_bytes(self, graphs: GraphPair) -> tuple[bytes, bytes]:
        """The verified bytes of a form's encoder and head."""
        return self._graphs[graphs.encoder], self._graphs[graphs.head]


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
    places = _shipped_places()
    for place in places:
        if (place / MANIFEST_NAME).is_file():
            return place
    looked = " nor ".join(str(place) for place in places)
    raise BundleError(
        f"no bundle: none was given, ${BUNDLE_VARIABLE} is not set, and the shipped one is neither "
        f"at {looked}; give one with --bundle DIR or set ${BUNDLE_VARIABLE}"
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a folder above that may not be entered
        return False


def _is_shipped_place(folder: Path) -> bool:
    return any(place.exists() and place.samefile(folder) for place in _shipped_places())


def _shipped_places() -> tuple[Path, Path]:
    return (
        _PACKAGE / "bundles" / SHIPPED_NAME,
        _PACKAGE.parent.parent / "bundles" / SHIPPED_NAME,
    )


def _read_manifest(folder: Path) -> bytes:
    if not folder.is_dir():
        raise BundleError(f"bundle {folder} is no folder; give the folder with {MANIFEST_NAME}")
    file = folder / MANIFEST_NAME
    if not file.exists():
        raise BundleError(
            f"bundle {folder} has no {MANIFEST_NAME}; give the folder that fundus-export wrote"
        )
    _require_plain_file(file, MANIFEST_NAME, folder)
    size = file.stat().st_size
    if size > _MAX_MANIFEST_BYTES:
        raise BundleError(
            f"bundle {folder}: {MANIFEST_NAME} has {size} bytes, expected at most "
            f"{_MAX_MANIFEST_BYTES}; it is no manifest"
        )
    return file.read_bytes()


def _parsed(data: bytes, folder: Path) -> Manifest:
    try:
        return parse_manifest(data)
    except BundleError as error:
        raise BundleError(f"{folder / MANIFEST_NAME}: {error}") from error


def _verified_graphs(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Check every file against the manifest and keep the bytes of the graphs."""
    present = set(_files_of(folder))
    present.discard(MANIFEST_NAME)
    if missing := sorted(set(manifest.files) - present):
        raise BundleTamperedError(
            f"bundle {folder} lacks {', '.join(missing)}, which {MANIFEST_NAME} lists; "
            "copy the whole bundle again"
        )
    if unknown := sorted(present - set(manifest.files)):
        raise BundleTamperedError(
            f"bundle {folder} holds {', '.join(unknown)}, which {MANIFEST_NAME} does not list; "
            "remove it or copy the bundle again"
        )
    graph_names = {name for pair in manifest.graphs.values() for name in (pair.encoder, pair.head)}
    graphs = {}
    for name, record in sorted(manifest.files.items()):
        content = _verified(folder, name, record, keep=name in graph_names)
        if content is not None:
            graphs[name] = content
    return graphs


def _files_of(folder: Path) -> Iterator[str]:
    """POSIX names of all files, hidden ones too; links and special files are refused."""
    for base, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(base, name)
            inner = path.relative_to(folder).as_posix()
            if name in files or path.is_symlink():
                _require_plain_file(path, inner, folder)
                yield inner


def _raise(error: OSError) -> None:
    raise error


def _require_plain_file(path: Path, name: str, folder: Path) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "a special file"
        raise BundleTamperedError(
            f"bundle {folder}: {name} is {kind}, but a bundle holds plain files only; "
            "copy the bundle with its files' contents (cp -rL)"
        )


def _verified(folder: Path, name: str, record: FileRecord, *, keep: bool) -> bytes | None:
    digest, size, chunks = hashlib.sha256(), 0, []
    with (folder / name).open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            if keep:
                chunks.append(chunk)
    if (digest.hexdigest(), size) != (record.sha256, record.bytes):
        raise BundleTamperedError(
            f"bundle {folder}: {name} is not the file that {MANIFEST_NAME} lists: it has {size} "
            f"bytes and SHA-256 {digest.hexdigest()}, expected {record.bytes} bytes and "
            f"{record.sha256}; copy the bundle again"
        )
    return b"".join(chunks) if keep else None


def _trust(name: str, sha256: str) -> Trust:
    try:
        shipped = json.loads(_SHIPPED_HASHES.read_text("utf-8"))
    except FileNotFoundError:
        return "unsigned"
    return "shipped" if shipped.get(name) == sha256 else "unsigned"
