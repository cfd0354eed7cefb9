"""Who vouches for a bundle: the way from files on the disk to an open bundle or a refusal."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fundus_runtime
import fundus_runtime.bundle as bundle_module
import fundus_runtime.shipped as shipped_module
import fundus_runtime.trusted_keys as trusted_keys_module
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_of_file
from fundus_runtime.commands.screen import main
from fundus_runtime.doctor import examine
from fundus_runtime.errors import (
    BundleError,
    BundleTamperedError,
    BundleUntrustedError,
    TrustedKeysError,
)
from fundus_runtime.screener import Screener
from fundus_runtime.signature import key_id_of, parse_signature
from fundus_runtime.trusted_keys import TrustedKeys

Sign = Callable[..., Path]

FILES = (
    "MODEL_CARD.md",
    "graphs/encoder.onnx",
    "graphs/head.onnx",
    "manifest.json",
    "signature.json",
)
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
STRANGERS_ID = key_id_of(STRANGER.public_key().public_bytes_raw())


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Has the package record a bundle as its own."""

    def record(folder: Path) -> None:
        file = tmp_path / "shipped.json"
        file.write_text(json.dumps({"tiny": sha256_of_file(folder / "manifest.json")}))
        monkeypatch.setattr(shipped_module, "_HASHES", file)

    return record


def flip(file: Path, position: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


def test_a_bundle_signed_with_a_trusted_key_names_its_signer(shared_bundle: Path) -> None:
    bundle = Bundle.open(shared_bundle)
    signature = parse_signature((shared_bundle / "signature.json").read_bytes())
    assert (bundle.trust, bundle.signer) == ("signed", signature.key_id)
    with Screener.open(shared_bundle) as screener:
        assert (screener.bundle.trust, screener.bundle.signer) == ("signed", signature.key_id)


def test_the_flips_below_are_of_every_file(shared_bundle: Path) -> None:
    files = (path for path in shared_bundle.rglob("*") if path.is_file())
    assert sorted(path.relative_to(shared_bundle).as_posix() for path in files) == sorted(FILES)


@pytest.mark.parametrize("require_trust", [True, False])
@pytest.mark.parametrize("where", [0.0, 0.2, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_one_bit_changed_after_signing_is_refused_and_the_file_named(
    bundle_copy: Path, name: str, where: float, require_trust: bool
) -> None:
    file = bundle_copy / name
    position = round(where * (file.stat().st_size - 1))
    for bit in (0, 3, 7):
        flip(file, position, bit)
        with pytest.raises(BundleError, match=re.escape(name)) as caught:
            Bundle.open(bundle_copy, require_trust=require_trust)
        assert isinstance(caught.value, (BundleTamperedError, BundleUntrustedError))
        assert str(bundle_copy) in str(caught.value)
        flip(file, position, bit)
    assert Bundle.open(bundle_copy).trust == "signed"


def test_no_bit_of_the_manifest_can_change_unnoticed(bundle_copy: Path) -> None:
    size = (bundle_copy / "manifest.json").stat().st_size
    for position in range(0, size, 17):
        flip(bundle_copy / "manifest.json", position, position % 8)
        with pytest.raises(BundleUntrustedError, match=r"does not fit manifest\.json"):
            Bundle.open(bundle_copy)
        flip(bundle_copy / "manifest.json", position, position % 8)


def test_an_unsigned_bundle_is_refused_with_the_command_that_signs_it(bundle_copy: Path) -> None:
    (bundle_copy / "signature.json").unlink()
    with pytest.raises(BundleUntrustedError, match="is not signed") as caught:
        Bundle.open(bundle_copy)
    assert f"fundus-export sign {bundle_copy} --key" in str(caught.value)


def test_a_strangers_signature_is_refused_with_both_sides_named(
    bundle_copy: Path, sign_bundle: Sign, trusted_keys: Path
) -> None:
    ours = Bundle.open(bundle_copy).signer
    sign_bundle(bundle_copy, STRANGER)
    with pytest.raises(BundleUntrustedError, match=f"unknown key {STRANGERS_ID}") as caught:
        Bundle.open(bundle_copy)
    assert f"trusted are {ours} ({trusted_keys / 'tests.pub'})" in str(caught.value)


def test_without_trusted_keys_the_refusal_says_where_they_were_looked_for(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUNDUS_TRUSTED_KEYS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(trusted_keys_module, "MACHINE_FOLDER", tmp_path / "etc")
    with pytest.raises(BundleUntrustedError, match="no key is trusted") as caught:
        Bundle.open(bundle_copy)
    assert str(tmp_path / "fundus-edge" / "trusted-keys") in str(caught.value)
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", str(tmp_path / "none"))
    with pytest.raises(TrustedKeysError, match="does not exist"):
        Bundle.open(bundle_copy)


def test_the_callers_keys_replace_those_of_the_machine(
    bundle_copy: Path, sign_bundle: Sign
) -> None:
    strangers = TrustedKeys.of(STRANGER.public_key().public_bytes_raw(), "a stranger")
    with pytest.raises(BundleUntrustedError, match=r"trusted are .* \(a stranger\)"):
        Bundle.open(bundle_copy, trusted_keys=strangers)
    sign_bundle(bundle_copy, STRANGER)
    assert Bundle.open(bundle_copy, trusted_keys=strangers).signer == STRANGERS_ID


def test_the_signature_of_another_bundle_is_refused(
    bundle_copy: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", change=lambda values: values.update(version="9"))
    (bundle_copy / "signature.json").write_bytes((other / "signature.json").read_bytes())
    with pytest.raises(BundleUntrustedError, match="was altered after signing"):
        Bundle.open(bundle_copy)


def test_a_trusted_keys_name_on_a_strangers_signature_is_refused(
    bundle_copy: Path, sign_bundle: Sign
) -> None:
    ours = json.loads((bundle_copy / "signature.json").read_text())
    sign_bundle(bundle_copy, STRANGER)
    strangers = json.loads((bundle_copy / "signature.json").read_text())
    for borrowed in (("key_id",), ("key_id", "public_key")):
        forged = {**strangers, **{key: ours[key] for key in borrowed}}
        (bundle_copy / "signature.json").write_text(json.dumps(forged, indent=1) + "\n")
        with pytest.raises(BundleError, match=r"signature\.json"):
            Bundle.open(bundle_copy)


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 300, b" " * 5000])
def test_a_signature_that_is_none_is_refused_and_not_taken_for_absent(
    bundle_copy: Path, content: bytes
) -> None:
    (bundle_copy / "signature.json").write_bytes(content)
    for require_trust in (True, False):
        with pytest.raises(BundleError, match=r"signature\.json"):
            Bundle.open(bundle_copy, require_trust=require_trust)


def test_a_signature_that_is_no_plain_file_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    file = bundle_copy / "signature.json"
    file.rename(tmp_path / "elsewhere")
    for make in (
        lambda: file.symlink_to(tmp_path / "elsewhere"),
        lambda: file.symlink_to(tmp_path / "none"),
        lambda: os.mkfifo(file),
    ):
        make()
        with pytest.raises(BundleTamperedError, match=r"signature\.json is a"):
            Bundle.open(bundle_copy)
        file.unlink()


def test_nothing_is_read_of_a_bundle_before_somebody_vouches_for_it(
    bundle_copy: Path, sign_bundle: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("read too early")

    for name in ("parse_manifest", "_files_of", "_verified"):
        monkeypatch.setattr(bundle_module, name, fail)
    with pytest.raises(AssertionError, match="too early"):
        Bundle.open(bundle_copy)
    sign_bundle(bundle_copy, STRANGER)
    with pytest.raises(BundleUntrustedError):
        Bundle.open(bundle_copy)
    flip(bundle_copy / "manifest.json", 0, 0)
    with pytest.raises(BundleUntrustedError):
        Bundle.open(bundle_copy)
    (bundle_copy / "signature.json").unlink()
    with pytest.raises(BundleUntrustedError):
        Bundle.open(bundle_copy)


def test_a_shipped_bundle_needs_no_key_for_its_signature(
    bundle_copy: Path, sign_bundle: Sign, ship: Callable[[Path], None]
) -> None:
    ship(bundle_copy)
    signer = parse_signature((bundle_copy / "signature.json").read_bytes()).key_id
    bundle = Bundle.open(bundle_copy)
    assert (bundle.trust, bundle.signer) == ("shipped", signer)
    sign_bundle(bundle_copy, STRANGER)
    bundle = Bundle.open(bundle_copy)
    assert (bundle.trust, bundle.signer) == ("shipped", None)


def test_unreliable_keys_do_not_stop_a_shipped_bundle_but_every_other(
    bundle_copy: Path,
    ship: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", str(folder))
    with pytest.raises(TrustedKeysError, match="everybody may write"):
        Bundle.open(bundle_copy)
    ship(bundle_copy)
    bundle = Bundle.open(bundle_copy)
    assert (bundle.trust, bundle.signer) == ("shipped", None)


def test_a_damaged_signature_stops_even_a_shipped_bundle(
    bundle_copy: Path, ship: Callable[[Path], None]
) -> None:
    ship(bundle_copy)
    file = bundle_copy / "signature.json"
    for position in range(0, file.stat().st_size, 13):
        flip(file, position, position % 8)
        with pytest.raises(BundleError, match=r"signature\.json"):
            Bundle.open(bundle_copy)
        flip(file, position, position % 8)
    assert Bundle.open(bundle_copy).trust == "shipped"


def test_tools_of_the_export_open_what_nobody_vouches_for_yet(
    bundle_copy: Path, sign_bundle: Sign
) -> None:
    sign_bundle(bundle_copy, STRANGER)
    for _ in range(2):
        bundle = Bundle.open(bundle_copy, require_trust=False)
        assert (bundle.trust, bundle.signer) == ("unsigned", None)
        (bundle_copy / "signature.json").unlink(missing_ok=True)
    flip(bundle_copy / "MODEL_CARD.md", 0, 0)
    with pytest.raises(BundleTamperedError, match=r"MODEL_CARD\.md is not the file"):
        Bundle.open(bundle_copy, require_trust=False)


def test_no_module_of_the_runtime_waives_trust() -> None:
    package = Path(str(fundus_runtime.__file__)).parent
    waives = [
        f"{module.name}:{node.lineno}"
        for module in package.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and any(keyword.arg in ("require_trust", None) for keyword in node.keywords)
        and "Bundle" in ast.unparse(node.func)
    ]
    assert waives == []


def test_an_unsigned_bundle_is_refused_on_the_command_line(
    bundle_copy: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle_copy / "signature.json").unlink()
    assert main([*map(str, pair), "--bundle", str(bundle_copy)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "is not signed" in printed.err
    findings = examine(bundle_copy)["bundle"]
    assert findings["usable"] is False
    assert "is not signed" in findings["problem"]


def test_doctor_reports_keys_that_cannot_be_relied_upon(
    shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.pub").write_text("no key")
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", str(tmp_path))
    findings = examine(shared_bundle)
    assert str(tmp_path / "bad.pub") in findings["trusted_keys"]["problem"]
    assert findings["bundle"]["usable"] is False
