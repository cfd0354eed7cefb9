"""Signs bundles, and makes the keys for it: Ed25519, the private half in PEM (PKCS8), mode 0600.

The private key stays on the build host; robots get the public one, `FILE.pub`. What a signature
covers and how it is stored is `fundus_runtime.signature`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fundus_export.errors import ExportError
from fundus_runtime.atomic import atomic_text, require_writable
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import ResultError
from fundus_runtime.manifest import MANIFEST_NAME
from fundus_runtime.signature import (
    SIGNATURE_NAME,
    Signature,
    key_id_of,
    parse_signature,
    signed_message,
)
from fundus_runtime.trusted_keys import (
    KEY_ENDING,
    TRUSTED_KEYS_VARIABLE,
    TrustedKeys,
    user_folder,
)

__all__ = ["SigningKey", "load_signing_key", "sign_bundle", "sign_manifest", "write_key_pair"]

_MAX_KEY_BYTES = 16 * 1024


@dataclass(frozen=True)
class SigningKey:
    """A private key; `source` says where it comes from."""

    private: Ed25519PrivateKey = field(repr=False)
    source: str

    @property
    def public(self) -> bytes:
        """The 32 raw bytes of the public half."""
        return self.private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        """The name of the key, as doctor and the refusals of the runtime show it."""
        return key_id_of(self.public)

    def trusted(self) -> TrustedKeys:
        """This key as the only one that is trusted."""
        return TrustedKeys.of(self.public, self.source)


def sign_manifest(manifest: bytes, key: SigningKey) -> Signature:
    """The signature of a bundle with these bytes as its `manifest.json`."""
    return Signature(key.public, key.private.sign(signed_message(manifest)))


def sign_bundle(folder: Path, key: SigningKey, *, force: bool = False) -> Bundle:
    """Verify every file of a bundle, and write its `signature.json`.

    Args:
        folder: of the bundle.
        key: to sign with.
        force: replace the signature of another key.

    Returns:
        The bundle as it is trusted by whoever trusts the key.

    Raises:
        BundleError: a file or an old signature is not what it should be; nothing was written.
        ExportError: another key has signed it, or it changes while it is signed.
        ResultError: the file cannot be written; the old signature is as it was.
    """
    bundle = Bundle.open(folder, trusted_keys=key.trusted(), require_trust=False)
    target = bundle.path / SIGNATURE_NAME
    try:
        if target.exists() and not force:
            _require_own(target, key)
        manifest = (bundle.path / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise ExportError(f"bundle {folder} cannot be read: {error}; check its rights") from error
    if sha256_hex(manifest) != bundle.sha256:
        raise ExportError(f"{bundle.path} was changed while it was verified; sign it again")
    with atomic_text(target, force=True) as stream:
        stream.write(sign_manifest(manifest, key).to_bytes().decode("ascii"))
    return Bundle.open(folder, trusted_keys=key.trusted(), require_trust=False)


def _require_own(signature: Path, key: SigningKey) -> None:
    signer = parse_signature(signature.read_bytes()).key_id
    if signer != key.key_id:
        raise ExportError(
            f"{signature.parent} is signed with the key {signer}, not with {key.key_id} "
            f"({key.source}); replace that signature with --force"
        )


def write_key_pair(
    out: Path, *, passphrase: bytes | None = None, force: bool = False, trust: bool = False
) -> tuple[SigningKey, list[Path]]:
    """Make a key and write both halves.

    Args:
        out: the private key's file; the public one is `out` with `.pub` added.
        passphrase: to encrypt the private key with; None leaves it as it is.
        force: replace existing files.
        trust: also put the public key among those that this user's commands trust.

    Returns:
        The key and the files that were written, the private one last.

    Raises:
        ExportError: there is no folder of trusted keys to put it into.
        ResultError: a file exists or cannot be written; all are as they were.
        TrustedKeysError: the folder of trusted keys cannot be relied upon.
    """
    key = SigningKey(Ed25519PrivateKey.generate(), str(out))
    public = _public_pem(key)
    files = [(out.with_name(out.name + KEY_ENDING), public, 0o644)]
    for path in (out, files[0][0]):
        require_writable(path, force=force)
    if trust:
        files.insert(0, (_trusted_file(out, key), public, 0o644))
    files.append((out, _private_pem(key, passphrase), 0o600))
    _write_together(files, force=force)
    return key, [path for path, _, _ in files]


def load_signing_key(path: Path, passphrase: Callable[[], bytes]) -> SigningKey:
    """Read a private key.

    Args:
        path: of the PEM file.
        passphrase: asked only where the key is encrypted.

    Raises:
        ExportError: it is no Ed25519 private key, others may read it, or the passphrase is wrong.
    """
    data = _read_private(path)
    encrypted = b"ENCRYPTED PRIVATE KEY" in data
    try:
        key = serialization.load_pem_private_key(data, passphrase() if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise ExportError(
                f"the key {path} cannot be decrypted ({error}); give its own passphrase"
            ) from error
        raise ExportError(
            f"{path} is no private key in PEM, PKCS8 ({error}); make one with fundus-export keygen"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ExportError(
            f"the key {path} is of the kind {type(key).__name__.strip('_')}, expected an Ed25519 "
            "private key; make one with fundus-export keygen"
        )
    return SigningKey(key, str(path))


def _read_private(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ExportError(f"the key {path} is no ordinary file; name the file of a private key")
        if mode & 0o077:
            raise ExportError(
                f"the key {path} has the mode {mode & 0o777:04o}, so that others may use it; if "
                f"nobody has: chmod 600 {path}, else make a new key and withdraw this one"
            )
        with path.open("rb") as stream:
            data = stream.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ExportError(
            f"the key {path} cannot be read: {error.strerror or error}; name the file of a private "
            "key, or make one with fundus-export keygen"
        ) from error
    if len(data) > _MAX_KEY_BYTES:
        raise ExportError(f"{path} is too large for a key; name the file of a private key")
    if b"PUBLIC KEY" in data:
        raise ExportError(f"{path} is a public key; sign with the private one beside it")
    return data


def _private_pem(key: SigningKey, passphrase: bytes | None) -> str:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    ).decode("ascii")


def _public_pem(key: SigningKey) -> str:
    return (
        key.private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode("ascii")
    )


def _trusted_file(out: Path, key: SigningKey) -> Path:
    """Where to put the public key, in a folder that exists and can be relied upon."""
    named = os.environ.get(TRUSTED_KEYS_VARIABLE)
    folder = Path(named) if named else user_folder()
    if folder is None:
        raise ExportError(
            f"this user has no home folder to keep trusted keys in; set ${TRUSTED_KEYS_VARIABLE}"
        )
    try:
        for part in (*reversed(folder.parents), folder):
            if not part.is_dir():
                part.mkdir(mode=0o700)
    except OSError as error:
        raise ExportError(
            f"the folder of trusted keys {folder} cannot be made: {error.strerror or error}; make "
            f"it, or name another in ${TRUSTED_KEYS_VARIABLE}"
        ) from error
    TrustedKeys.from_folder(folder)
    stem = re.sub(r"[^\w.-]", "_", out.stem)
    return folder / f"{stem}-{key.key_id[:16]}{KEY_ENDING}"


def _text_of(path: Path) -> str | None:
    """What a file holds; None where there is none."""
    try:
        return path.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExportError(
            f"{path} cannot be read: {error.strerror or error}; choose another name"
        ) from error


def _write_together(files: Sequence[tuple[Path, str, int]], *, force: bool) -> None:
    """Write files with their modes in this order; where one fails, the others are as they were."""
    written: list[tuple[Path, str | None]] = []
    try:
        for path, text, mode in files:
            before = _text_of(path)
            with atomic_text(path, force=force, mode=mode) as stream:
                stream.write(text)
            written.append((path, before))
    except BaseException:
        for path, before in written:
            if before is None:
                path.unlink(missing_ok=True)
            else:
                with suppress(ResultError), atomic_text(path, force=True, mode=0o644) as stream:
                    stream.write(before)
        raise
