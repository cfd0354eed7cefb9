"""The signature of a bundle as a whole: the file `signature.json` beside its manifest.

It is an Ed25519 signature over `signed_message`, a fixed prefix and the exact bytes of
`manifest.json`, which in turn holds the SHA-256 of every other file. The file carries the public
key that made it, so that damage is told from a stranger's signature; whether that key is trusted is
never for the file to say, see `trust`.

Reading is strict: a signature file is exactly what `Signature.to_bytes` writes and nothing else, so
that none of its bits can change unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import BundleTamperedError

__all__ = [
    "MAX_SIGNATURE_BYTES",
    "SIGNATURE_FORMAT",
    "SIGNATURE_NAME",
    "SIGNATURE_SCHEMA_VERSION",
    "Signature",
    "key_id_of",
    "parse_signature",
    "signed_message",
]

SIGNATURE_NAME = "signature.json"
SIGNATURE_FORMAT = "fundus-edge signature"
SIGNATURE_SCHEMA_VERSION = 1
# two to three times of what one has
MAX_SIGNATURE_BYTES = 1024

_ALGORITHM = "ed25519"
_PUBLIC_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_KEYS = {"format", "schema_version", "algorithm", "key_id", "public_key", "signature"}
# what this key signs for another purpose can never be taken for a bundle's signature
_DOMAIN = b"fundus-edge bundle manifest, signature schema 1\0"


def signed_message(manifest: bytes) -> bytes:
    """What is signed: the purpose, and the exact bytes of `manifest.json`."""
    return _DOMAIN + manifest


def key_id_of(public_key: bytes) -> str:
    """The name of a key: SHA-256 of the 32 raw bytes of its public half."""
    return sha256_hex(public_key)


@dataclass(frozen=True)
class Signature:
    """A signature file's content.

    Attributes:
        public_key: 32 raw bytes, of the key that signed.
        signature: 64 bytes.
    """

    public_key: bytes
    signature: bytes

    @property
    def key_id(self) -> str:
        """The name of the key that signed."""
        return key_id_of(self.public_key)

    def fits(self, manifest: bytes) -> bool:
        """Whether the key that it carries signed these bytes of a manifest."""
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_key)
            key.verify(self.signature, signed_message(manifest))
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_bytes(self) -> bytes:
        """The file, ASCII."""
        values = {
            "format": SIGNATURE_FORMAT,
            "schema_version": SIGNATURE_SCHEMA_VERSION,
            "algorithm": _ALGORITHM,
            "key_id": self.key_id,
            "public_key": base64.b64encode(self.public_key).decode("ascii"),
            "signature": base64.b64encode(self.signature).decode("ascii"),
        }
        return (json.dumps(values, indent=1) + "\n").encode("ascii")


def parse_signature(data: bytes) -> Signature:
    """Read the bytes of a `signature.json`.

    Raises:
        BundleTamperedError: they are not what `Signature.to_bytes` writes.
    """
    if len(data) > MAX_SIGNATURE_BYTES:
        raise _damaged(f"has more than {MAX_SIGNATURE_BYTES} bytes")
    values = _object(data)
    _require_version(values)
    if set(values) != _KEYS:
        unknown, missing = sorted(set(values) - _KEYS), sorted(_KEYS - set(values))
        raise _damaged(f"has unknown keys {unknown} and lacks {missing}")
    if values["algorithm"] != _ALGORITHM:
        raise _damaged(f"states the algorithm {values['algorithm']!r}, expected {_ALGORITHM!r}")
    found = Signature(
        _decoded(values, "public_key", _PUBLIC_KEY_BYTES),
        _decoded(values, "signature", _SIGNATURE_BYTES),
    )
    if values["key_id"] != found.key_id:
        raise _damaged(
            f"states the key id {values['key_id']!r}, but its public key has the id {found.key_id}"
        )
    if found.to_bytes() != data:
        # another spelling of the same values: a space, a key twice, unused bits of the base64
        raise _damaged("is not written as fundus-export writes it")
    return found


def _object(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise _damaged(f"is not readable as JSON: {error}") from error
    if not isinstance(values, dict):
        raise _damaged(f"holds a {type(values).__name__}, expected an object")
    return values


def _require_version(values: dict[str, Any]) -> None:
    if values.get("format") != SIGNATURE_FORMAT:
        raise _damaged(f"states the format {values.get('format')!r}, expected {SIGNATURE_FORMAT!r}")
    version = values.get("schema_version")
    if type(version) is int and version > SIGNATURE_SCHEMA_VERSION:
        raise BundleTamperedError(
            f"{SIGNATURE_NAME} has schema version {version}, but this fundus-edge reads "
            f"{SIGNATURE_SCHEMA_VERSION}; update fundus-edge or sign the bundle with this version"
        )
    if type(version) is not int or version != SIGNATURE_SCHEMA_VERSION:
        raise _damaged(
            f"states the schema version {version!r}, expected {SIGNATURE_SCHEMA_VERSION}"
        )


def _decoded(values: dict[str, Any], key: str, size: int) -> bytes:
    text = values[key]
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError) as error:
        raise _damaged(f"holds a {key} that is no base64 ({error})") from error
    if len(data) != size:
        raise _damaged(f"holds a {key} of {len(data)} bytes, expected {size} in base64")
    return data


def _damaged(what: str) -> BundleTamperedError:
    return BundleTamperedError(
        f"{SIGNATURE_NAME} {what}; it is damaged: copy the bundle again, or remove this file and "
        "sign the bundle again"
    )
