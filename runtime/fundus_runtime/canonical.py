"""Canonical JSON and SHA-256: one byte string, hence one hash, for one meaning.

Keys are sorted, there are no spaces, text is UTF-8, and NaN and infinities are refused because
JSON has no word for them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["canonical_json", "sha256_hex", "sha256_of_file"]

_CHUNK_BYTES = 1 << 20


def canonical_json(obj: Any) -> bytes:
    """Serialise plain values so that equal values give equal bytes.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value is none of JSON's kinds.
    """
    text = json.dumps(
        obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: str | Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
