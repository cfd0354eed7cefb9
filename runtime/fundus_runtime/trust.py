"""Who vouches for a bundle, decided on two files' bytes before anything else of it is read.

Either this package records the manifest's SHA-256 as its own bundle's, or the manifest is signed
with a key that this machine trusts. There is no third way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import BundleTamperedError, BundleUntrustedError, TrustedKeysError
from fundus_runtime.manifest import MANIFEST_NAME
from fundus_runtime.shipped import is_shipped_hash
from fundus_runtime.signature import SIGNATURE_NAME, Signature, parse_signature
from fundus_runtime.trusted_keys import KEY_ENDING, MACHINE_FOLDER, TrustedKeys

__all__ = ["Trust", "Verdict", "vouch_for"]

Trust = Literal["shipped", "signed", "unsigned"]


@dataclass(frozen=True)
class Verdict:
    """What is known of a bundle's origin.

    Attributes:
        trust: `shipped`, `signed` by a trusted key, or `unsigned`: nobody vouches for it.
        signer: id of the trusted key that signed it; None where there is none.
        doubt: why nobody vouches for it and what to do; None where somebody does.
    """

    trust: Trust
    signer: str | None = None
    doubt: str | None = None


def vouch_for(
    folder: Path, manifest: bytes, signature: bytes | None, keys: TrustedKeys | None = None
) -> Verdict:
    """Decide who vouches for a bundle.

    Args:
        folder: of the bundle, for messages.
        manifest: the bytes of its `manifest.json`.
        signature: the bytes of its `signature.json`, or None where there is none.
        keys: the trusted keys; None for those of this machine.

    Raises:
        BundleTamperedError: the signature is damaged.
        BundleUntrustedError: the signature does not fit the manifest.
        TrustedKeysError: the trusted keys are needed and cannot be relied upon.
    """
    sha256 = sha256_hex(manifest)
    signed = None if signature is None else _intact(folder, manifest, signature)
    if is_shipped_hash(sha256):
        return Verdict("shipped", None if signed is None else _known_signer(signed, keys))
    if signed is None:
        return Verdict(
            "unsigned",
            doubt=f"bundle {folder} is not signed: it has no {SIGNATURE_NAME}, and its "
            f"{MANIFEST_NAME}, SHA-256 {sha256}, is not that of the bundle that this package "
            f"ships; sign it where it was made: fundus-export sign {folder} --key KEY",
        )
    trusted = TrustedKeys.find() if keys is None else keys
    if signed.key_id in trusted:
        return Verdict("signed", signed.key_id)
    return Verdict(
        "unsigned",
        doubt=f"bundle {folder} is signed with the unknown key {signed.key_id}; "
        f"{trusted.in_words()}; if you know the signer by another way, put that public key "
        f"(*{KEY_ENDING}) into {MACHINE_FOLDER}, else do not use this bundle",
    )


def _intact(folder: Path, manifest: bytes, data: bytes) -> Signature:
    """The signature, which at least its own key has made for this manifest."""
    try:
        signature = parse_signature(data)
    except BundleTamperedError as error:
        raise BundleTamperedError(f"bundle {folder}: {error}") from error
    if not signature.fits(manifest):
        raise BundleUntrustedError(
            f"bundle {folder}: {SIGNATURE_NAME} does not fit {MANIFEST_NAME}, so that one of them "
            "was altered after signing; copy the bundle again, or, where the change was meant, "
            f"remove {SIGNATURE_NAME} and sign the bundle again"
        )
    return signature


def _known_signer(signature: Signature, keys: TrustedKeys | None) -> str | None:
    try:
        trusted = TrustedKeys.find() if keys is None else keys
    except TrustedKeysError:
        return None  # its hash vouches for a shipped bundle, whatever the state of the keys
    return signature.key_id if signature.key_id in trusted else None
