"""Opens a model bundle: a folder whose manifest lists every other file with its SHA-256.

`Bundle.open` verifies everything before anything is used: first who vouches for the manifest, which
is not even parsed before that is settled, then every file against it. Each file is read once; the
graphs' bytes are kept as they were verified, so that what runs is what was checked, whatever
happens to the disk afterwards.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import BundleError, BundleTamperedError, BundleUntrustedError
from fundus_runtime.manifest import MANIFEST_NAME, FileRecord, GraphPair, Manifest
from fundus_runtime.manifest_parser import parse_manifest
from fundus_runtime.shipped import default_bundle, is_shipped_hash, is_shipped_place
from fundus_runtime.signature import MAX_SIGNATURE_BYTES, SIGNATURE_NAME
from fundus_runtime.trust import Trust, vouch_for
from fundus_runtime.trusted_keys import TrustedKeys

__all__ = ["Bundle"]

_MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: its folder.
        manifest: its description.
        sha256: SHA-256 of `manifest.json`, which names the bundle as a whole.
        trust: `shipped` when this package records that hash as its own bundle's, `signed` when a
            key that this machine trusts signed it. `unsigned` is for the tools of the export: the
            files are whole, but nobody vouches for where they come from.
        signer: id of the trusted key that signed it; None where there is none.
    """

    path: Path
    manifest: Manifest
    sha256: str
    trust: Trust
    signer: str | None
    _graphs: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def open(
        cls,
        path: str | Path | None = None,
        *,
        trusted_keys: TrustedKeys | None = None,
        require_trust: bool = True,
    ) -> Bundle:
        """Verify a bundle's folder and open it.

        Args:
            path: the folder; None for `default_bundle()`.
            trusted_keys: who may vouch for it; None for the keys that this machine trusts.
            require_trust: False on a build host alone, to export, check and sign what nobody
                vouches for yet; a damaged signature is refused even then.

        Raises:
            BundleError: the folder or its manifest is missing, malformed or of another version.
            BundleUntrustedError: nobody vouches for it, or its signature does not fit.
            BundleTamperedError: a file is missing, altered, unknown or a link, or the folder is
                the shipped bundle's and holds another one.
            TrustedKeysError: the trusted keys cannot be relied upon.
        """
        folder = default_bundle() if path is None else Path(path)
        try:
            data = _read_manifest(folder)
            sha256 = sha256_hex(data)
            if require_trust:
                _require_shipped_in_its_place(folder, sha256)
            signature = _read_small(folder, SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
            verdict = vouch_for(folder, data, signature, trusted_keys)
            if require_trust and verdict.doubt is not None:
                raise BundleUntrustedError(verdict.doubt)
            manifest = _parsed(data, folder)
            graphs = _verified_graphs(folder, manifest)
        except OSError as error:
            raise BundleError(
                f"bundle {folder} cannot be read: {error}; check its rights"
            ) from error
        return cls(folder, manifest, sha256, verdict.trust, verdict.signer, graphs)

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


def _read_manifest(folder: Path) -> bytes:
    if not folder.is_dir():
        raise BundleError(f"bundle {folder} is no folder; give the folder with {MANIFEST_NAME}")
    data = _read_small(folder, MANIFEST_NAME, _MAX_MANIFEST_BYTES)
    if data is None:
        raise BundleError(
            f"bundle {folder} has no {MANIFEST_NAME}; give the folder that fundus-export wrote"
        )
    return data


def _read_small(folder: Path, name: str, limit: int) -> bytes | None:
    """A file that is read before anybody vouches for it; None where there is none."""
    file = folder / name
    if not file.exists() and not file.is_symlink():
        return None
    _require_plain_file(file, name, folder)
    with file.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise BundleError(
            f"bundle {folder}: {name} has {file.stat().st_size} bytes, expected at most {limit}; "
            "it is not what fundus-export wrote: copy the bundle again"
        )
    return data


def _require_shipped_in_its_place(folder: Path, sha256: str) -> None:
    if is_shipped_place(folder) and not is_shipped_hash(sha256):
        raise BundleTamperedError(
            f"bundle {folder} is not the one that this package ships: its {MANIFEST_NAME} has the "
            f"SHA-256 {sha256}, which the package does not record; install fundus-edge again, or "
            "keep bundles of your own elsewhere and name them with --bundle"
        )


def _parsed(data: bytes, folder: Path) -> Manifest:
    try:
        return parse_manifest(data)
    except BundleError as error:
        raise BundleError(f"{folder / MANIFEST_NAME}: {error}") from error


def _verified_graphs(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Check every file against the manifest and keep the bytes of the graphs."""
    present = set(_files_of(folder)) - {MANIFEST_NAME, SIGNATURE_NAME}
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
