from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import BundleTamperedError
from fundus_runtime.signature import Signature, key_id_of, parse_signature, signed_message

MANIFEST = b'{"name": "tiny"}\n'
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()


@pytest.fixture
def signature() -> Signature:
    return Signature(PUBLIC, KEY.sign(signed_message(MANIFEST)))


def test_what_is_written_is_read(signature: Signature) -> None:
    assert parse_signature(signature.to_bytes()) == signature
    assert signature.key_id == key_id_of(PUBLIC) == sha256_hex(PUBLIC)


def test_the_format_is_the_documented_one(signature: Signature) -> None:
    # a change of any of this makes every signature out there worthless
    assert signature.to_bytes().decode("ascii") == (
        "{\n"
        ' "format": "fundus-edge signature",\n'
        ' "schema_version": 1,\n'
        ' "algorithm": "ed25519",\n'
        ' "key_id": "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c",\n'
        ' "public_key": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",\n'
        f' "signature": "{base64.b64encode(signature.signature).decode()}"\n'
        "}\n"
    )
    assert signed_message(b"M") == b"fundus-edge bundle manifest, signature schema 1\0M"


def test_a_signature_fits_the_bytes_that_were_signed_alone(signature: Signature) -> None:
    assert signature.fits(MANIFEST)
    for other in (b"", MANIFEST[:-1], MANIFEST + b"\n", MANIFEST.replace(b"tiny", b"tinz")):
        assert not signature.fits(other)


def test_what_the_key_signs_for_another_purpose_is_no_signature_of_a_bundle() -> None:
    assert not Signature(PUBLIC, KEY.sign(MANIFEST)).fits(MANIFEST)


def test_no_bit_of_the_file_can_change_unnoticed(signature: Signature) -> None:
    data = signature.to_bytes()
    for position in range(8 * len(data)):
        altered = bytearray(data)
        altered[position // 8] ^= 1 << position % 8
        try:
            found = parse_signature(bytes(altered))
        except BundleTamperedError:
            continue
        assert not found.fits(MANIFEST), position


def test_a_truncated_file_is_refused_wherever_it_ends(signature: Signature) -> None:
    data = signature.to_bytes()
    for length in range(len(data)):
        with pytest.raises(BundleTamperedError, match=r"signature\.json .* damaged"):
            parse_signature(data[:length])


def with_value(key: str, value: object) -> Callable[[dict[str, Any]], str]:
    return lambda values: json.dumps({**values, key: value}, indent=1) + "\n"


def without(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda values: json.dumps({k: v for k, v in values.items() if k != key}, indent=1) + "\n"


def spelled(change: Callable[[str], str]) -> Callable[[dict[str, Any]], str]:
    return lambda values: change(json.dumps(values, indent=1) + "\n")


PUBLIC_TEXT = base64.b64encode(PUBLIC).decode()
FAULTS = {
    "unknown key": (with_value("expires", "never"), r"unknown keys \['expires'\]"),
    "missing key": (without("key_id"), r"lacks \['key_id'\]"),
    "format": (with_value("format", "pgp"), "states the format 'pgp'"),
    "newer schema": (with_value("schema_version", 2), "has schema version 2, but .* update"),
    "schema zero": (with_value("schema_version", 0), "states the schema version 0"),
    "schema true": (with_value("schema_version", True), "states the schema version True"),
    "schema text": (with_value("schema_version", "1"), "states the schema version '1'"),
    "algorithm": (with_value("algorithm", "none"), "states the algorithm 'none'"),
    "key id": (with_value("key_id", "0" * 64), "but its public key has the id"),
    "short key": (with_value("public_key", "AAAA"), "public_key of 3 bytes, expected 32"),
    "key no text": (with_value("public_key", 7), "public_key of 0 bytes, expected 32"),
    "short signature": (
        with_value("signature", base64.b64encode(bytes(63)).decode()),
        "signature of 63 bytes, expected 64",
    ),
    "long signature": (
        with_value("signature", base64.b64encode(bytes(65)).decode()),
        "signature of 65 bytes, expected 64",
    ),
    "no signature": (with_value("signature", None), "signature of 0 bytes"),
    "wrong base64": (with_value("signature", "!" * 88), "no base64"),
    "no padding": (with_value("public_key", PUBLIC_TEXT.rstrip("=")), "no base64"),
    "umlaut": (spelled(lambda text: text.replace("ed25519", "ed255ü9")), "not readable as JSON"),
    "blank": (spelled(lambda text: text.replace("{", "{ ")), "not written as fundus-export"),
    "no line end": (spelled(str.rstrip), "not written as fundus-export"),
    "order": (
        spelled(lambda text: json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"),
        "not written as fundus-export",
    ),
    "key twice": (
        spelled(lambda text: text.replace("{\n", '{\n "algorithm": "none",\n')),
        "not written as fundus-export",
    ),
    # the last digit of 32 bytes' base64 has two bits that decoders ignore
    "unused bits": (with_value("public_key", PUBLIC_TEXT[:-2] + "h="), "not written as"),
    "capitals": (
        spelled(lambda text: text.replace(key_id_of(PUBLIC), key_id_of(PUBLIC).upper())),
        "but its public key has the id",
    ),
    "list": (lambda _: "[]", "holds a list"),
    "empty": (lambda _: "", "not readable as JSON"),
    "nested": (lambda _: "[" * 1000, "not readable as JSON"),
    "large": (spelled(lambda text: text + " " * 1000), "more than 1024 bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_anything_else_is_refused(signature: Signature, fault: str) -> None:
    spell, words = FAULTS[fault]
    data = spell(json.loads(signature.to_bytes())).encode("utf-8")
    with pytest.raises(BundleTamperedError, match=words) as caught:
        parse_signature(data)
    assert "signature.json" in str(caught.value)
