"""Keys and signatures as the commands make them, and as the runtime then judges them."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fundus_export.signing as signing
import fundus_runtime.shipped as shipped_module
from fundus_export.commands import export
from fundus_export.errors import ExportError
from fundus_export.signing import load_signing_key, sign_bundle, write_key_pair
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import BundleError, BundleUntrustedError, ResultError
from fundus_runtime.signature import parse_signature
from fundus_runtime.trusted_keys import TrustedKeys

SIGNATURE = "signature.json"


def run(*words: object) -> int:
    return export.main([str(word) for word in words])


def nobody_asked() -> bytes:
    raise AssertionError("asked for a passphrase that the key does not need")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real bundle that nobody vouches for yet: the shipped one, not recorded as such."""
    monkeypatch.setattr(shipped_module, "_HASHES", tmp_path / "none.json")
    source = next(place for place in shipped_module.shipped_places() if place.is_dir())
    folder = Path(shutil.copytree(source, tmp_path / "bundle"))
    (folder / SIGNATURE).unlink(missing_ok=True)
    return folder


@pytest.fixture
def other_key(tmp_path: Path) -> Path:
    """A key that this machine does not trust."""
    (tmp_path / "other").mkdir()
    write_key_pair(tmp_path / "other" / "key")
    return tmp_path / "other" / "key"


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has a person at the terminal type these answers to what is asked."""

    def types(*answers: str) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        waiting = list(answers)
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(getpass, "getpass", lambda _: waiting.pop(0))

    return types


# keygen


def test_keygen_writes_both_halves_of_one_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "release"
    assert run("keygen", "--out", out) == 0
    key = load_signing_key(out, nobody_asked)
    (tmp_path / "keys").mkdir()
    shutil.copy(tmp_path / "release.pub", tmp_path / "keys")
    assert set(TrustedKeys.from_folder(tmp_path / "keys").sources) == {key.key_id}
    printed = capsys.readouterr().out
    assert key.key_id in printed
    assert "not encrypted" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "release", "release.pub"]


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_private_key_is_the_owners_alone_from_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    seen = []
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        seen.append((target.name, mode_of(path)))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    before = os.umask(umask)
    try:
        assert run("keygen", "--out", tmp_path / "release") == 0
    finally:
        os.umask(before)
    assert dict(seen)["release"] == mode_of(tmp_path / "release") == 0o600
    assert mode_of(tmp_path / "release.pub") == 0o644 & ~umask


@pytest.mark.parametrize("name", ["release", "release.pub"])
def test_keygen_replaces_nothing_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("mine")
    assert run("keygen", "--out", tmp_path / "release") == 1
    assert f"{name} exists already" in capsys.readouterr().err
    assert contents(tmp_path) == {name: b"mine"}
    assert run("keygen", "--out", tmp_path / "release", "--force") == 0
    assert load_signing_key(tmp_path / "release", nobody_asked)


def test_two_at_once_leave_one_pair(tmp_path: Path) -> None:
    failed = []

    def make() -> None:
        try:
            write_key_pair(tmp_path / "release")
        except ResultError:
            failed.append(1)

    workers = [threading.Thread(target=make) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(failed) <= 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "release.pub"]


@pytest.mark.parametrize("fails", ["release", "release.pub"])
def test_a_pair_that_cannot_be_written_whole_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if target.name == fails:
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(ResultError, match="No space left on device"):
        write_key_pair(tmp_path / "release")
    assert contents(tmp_path) == {}
    for name in ("release", "release.pub"):
        (tmp_path / name).write_text(f"the old {name}")
    with pytest.raises(ResultError, match="No space left on device"):
        write_key_pair(tmp_path / "release", force=True)
    old = {name: f"the old {name}".encode() for name in ("release", "release.pub")}
    assert contents(tmp_path) == old


def test_a_key_for_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert run("keygen", "--out", tmp_path / "none" / "release") == 1
    assert contents(tmp_path) == {}


def test_trust_puts_the_public_key_where_this_machine_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    monkeypatch.delenv("FUNDUS_TRUSTED_KEYS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    before = os.umask(0)  # even then nobody else may add a key
    try:
        assert run("keygen", "--out", tmp_path / "release", "--trust") == 0
    finally:
        os.umask(before)
    key = load_signing_key(tmp_path / "release", nobody_asked)
    keys = TrustedKeys.find()
    assert keys.folders[0] == tmp_path / "config" / "fundus-edge" / "trusted-keys"
    assert re.search(r"release-[0-9a-f]{16}\.pub$", keys.sources[key.key_id])
    assert run("sign", bundle, "--key", tmp_path / "release") == 0
    assert Bundle.open(bundle).signer == key.key_id


def test_trust_follows_the_variable_and_keeps_the_keys_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", str(tmp_path / "keys"))
    assert run("keygen", "--out", tmp_path / "release", "--trust") == 0
    assert run("keygen", "--out", tmp_path / "release", "--trust", "--force") == 0
    assert len(TrustedKeys.find().sources) == 2


def test_a_key_is_not_trusted_where_anybody_could_add_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(0o777)
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", str(tmp_path / "keys"))
    assert run("keygen", "--out", tmp_path / "release", "--trust") == 1
    assert "everybody may write" in capsys.readouterr().err
    assert contents(tmp_path) == {}


# passphrases


def test_an_encrypted_key_opens_with_its_passphrase_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
) -> None:
    monkeypatch.setenv("RELEASE_PASSPHRASE", "correct horse")
    named = ("--passphrase-env", "RELEASE_PASSPHRASE")
    assert run("keygen", "--out", tmp_path / "release", *named) == 0
    assert b"ENCRYPTED PRIVATE KEY" in (tmp_path / "release").read_bytes()
    assert "encrypted" in capsys.readouterr().out
    assert run("sign", bundle, "--key", tmp_path / "release", *named) == 0
    (bundle / SIGNATURE).unlink()
    monkeypatch.setenv("RELEASE_PASSPHRASE", "battery staple")
    assert run("sign", bundle, "--key", tmp_path / "release", *named) == 1
    assert "cannot be decrypted" in capsys.readouterr().err
    assert not (bundle / SIGNATURE).exists()


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_without_a_passphrase_is_wrong_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: str | None,
) -> None:
    if value is not None:
        monkeypatch.setenv("RELEASE_PASSPHRASE", value)
    assert run("keygen", "--out", tmp_path / "key", "--passphrase-env", "RELEASE_PASSPHRASE") == 2
    assert "$RELEASE_PASSPHRASE, which is not set or empty" in capsys.readouterr().err
    assert contents(tmp_path) == {}


def test_a_passphrase_is_asked_for_twice_when_made_and_once_when_used(
    tmp_path: Path, bundle: Path, keyboard: Callable[..., None]
) -> None:
    keyboard("schön", "schön")
    assert run("keygen", "--out", tmp_path / "release", "--passphrase") == 0
    keyboard("schön")
    assert run("sign", bundle, "--key", tmp_path / "release") == 0


@pytest.mark.parametrize(
    ("typed", "words"), [(("one", "two"), "passphrases differ"), (("",), "passphrase is empty")]
)
def test_a_mistyped_passphrase_makes_no_key(
    tmp_path: Path,
    keyboard: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    typed: tuple[str, ...],
    words: str,
) -> None:
    keyboard(*typed)
    assert run("keygen", "--out", tmp_path / "release", "--passphrase") == 2
    assert words in capsys.readouterr().err
    assert contents(tmp_path) == {}


def test_without_a_terminal_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\nsecret\n"))
    assert run("keygen", "--out", tmp_path / "release", "--passphrase") == 2
    assert "give --passphrase-env" in capsys.readouterr().err


# private keys that are none, or are no longer private


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_private_key_that_others_may_use_is_refused_with_the_mend(
    bundle: Path, other_key: Path, capsys: pytest.CaptureFixture[str], mode: int
) -> None:
    other_key.chmod(mode)
    assert run("sign", bundle, "--key", other_key) == 1
    assert f"chmod 600 {other_key}" in capsys.readouterr().err
    assert not (bundle / SIGNATURE).exists()


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


BAD_KEYS = {
    "empty": (b"", "is no private key in PEM"),
    "text": (b"the key is under the mat", "is no private key in PEM"),
    "cut": (_pem(Ed25519PrivateKey.generate())[:70], "is no private key in PEM"),
    "cut, encrypted": (
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIG\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "cannot be decrypted",
    ),
    "another kind": (_pem(ec.generate_private_key(ec.SECP256R1())), "expected an Ed25519"),
    "large": (b"#" * 20_000, "too large for a key"),
}


@pytest.mark.parametrize("fault", BAD_KEYS)
def test_a_file_that_is_no_private_key_is_refused(tmp_path: Path, fault: str) -> None:
    content, words = BAD_KEYS[fault]
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(ExportError, match=words) as caught:
        load_signing_key(file, lambda: b"secret")
    assert str(file) in str(caught.value)


def test_the_public_half_does_not_sign(other_key: Path) -> None:
    public = other_key.with_name("key.pub")
    public.chmod(0o600)
    with pytest.raises(ExportError, match="is a public key; sign with the private one"):
        load_signing_key(public, nobody_asked)


def test_missing_keys_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be read: No such file"):
        load_signing_key(tmp_path / "none", nobody_asked)
    with pytest.raises(ExportError, match="is no ordinary file"):
        load_signing_key(tmp_path, nobody_asked)


def test_a_key_is_never_shown(other_key: Path) -> None:
    key = load_signing_key(other_key, nobody_asked)
    secret = key.private.private_bytes_raw()
    assert secret.hex() not in repr(key)
    assert "Private" not in repr(key)


# sign


def test_a_signed_bundle_is_opened_by_whoever_trusts_the_key(
    bundle: Path, signing_key: Path, other_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(bundle)
    assert run("sign", bundle, "--key", signing_key) == 0
    key = load_signing_key(signing_key, nobody_asked)
    opened = Bundle.open(bundle)
    assert (opened.trust, opened.signer) == ("signed", key.key_id)
    printed = capsys.readouterr().out
    assert opened.sha256 in printed
    assert key.key_id in printed
    after = contents(bundle)
    assert after.pop(SIGNATURE)
    assert after == before
    with pytest.raises(BundleUntrustedError, match="unknown key"):
        Bundle.open(bundle, trusted_keys=load_signing_key(other_key, nobody_asked).trusted())


def test_signing_twice_changes_nothing(bundle: Path, signing_key: Path) -> None:
    assert run("sign", bundle, "--key", signing_key) == 0
    before = contents(bundle)
    assert run("sign", bundle, "--key", signing_key) == 0
    assert contents(bundle) == before


def test_another_keys_signature_is_replaced_by_force_alone(
    bundle: Path, signing_key: Path, other_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sign", bundle, "--key", other_key) == 0
    before = (bundle / SIGNATURE).read_bytes()
    assert run("sign", bundle, "--key", signing_key) == 1
    ours, theirs = (load_signing_key(k, nobody_asked).key_id for k in (signing_key, other_key))
    said = capsys.readouterr().err
    assert f"is signed with the key {theirs}, not with {ours}" in said
    assert "--force" in said
    assert (bundle / SIGNATURE).read_bytes() == before
    assert run("sign", bundle, "--key", signing_key, "--force") == 0
    assert Bundle.open(bundle).signer == ours


@pytest.mark.parametrize("name", ["manifest.json", "MODEL_CARD.md", "graphs/head_int8-cpu.onnx"])
def test_a_damaged_bundle_is_not_signed(bundle: Path, signing_key: Path, name: str) -> None:
    if name == "manifest.json":  # any other change of it may be meant, as nobody signed it yet
        (bundle / name).write_bytes((bundle / name).read_bytes()[:-2])
    else:
        flip(bundle / name)
    key = load_signing_key(signing_key, nobody_asked)
    with pytest.raises(BundleError, match=re.escape(name)):
        sign_bundle(bundle, key)
    assert not (bundle / SIGNATURE).exists()


def test_a_bundle_altered_since_it_was_signed_is_not_signed_again_by_mistake(
    bundle: Path, signing_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sign", bundle, "--key", signing_key) == 0
    before = (bundle / SIGNATURE).read_bytes()
    with (bundle / "manifest.json").open("ab") as manifest:
        manifest.write(b"\n")
    for force in ([], ["--force"]):
        assert run("sign", bundle, "--key", signing_key, *force) == 1
        assert "remove signature.json and sign the bundle again" in capsys.readouterr().err
        assert (bundle / SIGNATURE).read_bytes() == before
    (bundle / SIGNATURE).unlink()
    assert run("sign", bundle, "--key", signing_key) == 0
    assert Bundle.open(bundle).trust == "signed"


def test_a_manifest_that_changes_while_it_is_signed_is_refused(
    bundle: Path, signing_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changing(Bundle):
        @classmethod
        def open(cls, *arguments: object, **options: object) -> Bundle:  # type: ignore[override]
            opened = Bundle.open(*arguments, **options)  # type: ignore[arg-type]
            with (bundle / "manifest.json").open("ab") as manifest:
                manifest.write(b"\n")
            return opened

    monkeypatch.setattr(signing, "Bundle", Changing)
    with pytest.raises(ExportError, match="was changed while it was verified"):
        sign_bundle(bundle, load_signing_key(signing_key, nobody_asked))
    assert not (bundle / SIGNATURE).exists()


def test_a_failed_write_keeps_the_old_signature(
    bundle: Path, signing_key: Path, other_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("sign", bundle, "--key", other_key) == 0
    before = contents(bundle)

    def fail(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ResultError, match="No space left on device; nothing was written"):
        sign_bundle(bundle, load_signing_key(signing_key, nobody_asked), force=True)
    assert contents(bundle) == before


FILE_LIMIT = """
import resource, sys
from fundus_export.commands.export import main

resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
sys.exit(main(sys.argv[1:]))
"""


def test_a_file_system_that_takes_no_more_keeps_the_old_signature(
    bundle: Path, signing_key: Path, other_key: Path
) -> None:
    assert run("sign", bundle, "--key", other_key) == 0
    before = contents(bundle)
    words = ["sign", str(bundle), "--key", str(signing_key), "--force"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", FILE_LIMIT, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "signature.json cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(bundle) == before


# verify


def test_verify_shows_what_a_robot_will_say(
    bundle: Path, signing_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sign", bundle, "--key", signing_key) == 0
    capsys.readouterr()
    assert run("verify", bundle) == 0
    printed = capsys.readouterr().out
    opened = Bundle.open(bundle)
    for words in (opened.sha256, str(opened.signer), "trust     signed", opened.manifest.name):
        assert words in printed
    for name in opened.manifest.files:
        assert f"ok        {name}, " in printed
    assert run("verify", bundle, "--json") == 0
    findings = json.loads(capsys.readouterr().out)
    assert (findings["trusted"], findings["problem"]) == (True, None)
    assert (findings["trust"], findings["signer"]) == ("signed", opened.signer)
    assert set(findings["files"]) == set(opened.manifest.files)


def test_verify_of_the_shipped_bundle_needs_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    place = next(place for place in shipped_module.shipped_places() if place.is_dir())
    assert run("verify", place) == 0
    assert "trust     shipped" in capsys.readouterr().out


def test_verify_takes_the_keys_that_are_named(
    bundle: Path, signing_key: Path, other_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sign", bundle, "--key", other_key) == 0
    assert run("verify", bundle) == 1
    said = capsys.readouterr()
    assert "trust     unsigned" in said.out
    assert "unknown key" in said.err
    assert run("verify", bundle, "--keys", other_key.parent) == 0
    assert run("verify", bundle, "--keys", other_key.parent / "none") == 1
    assert "does not exist" in capsys.readouterr().err


def test_verify_of_an_unsigned_bundle_fails_and_still_says_what_it_is(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", bundle, "--json") == 1
    findings = json.loads(capsys.readouterr().out)
    assert findings["trusted"] is False
    assert "is not signed" in findings["problem"]
    assert (findings["name"], findings["trust"], findings["signer"]) == ("edge", "unsigned", None)


@pytest.mark.parametrize("name", ["manifest.json", SIGNATURE, "golden/03_left.png"])
def test_verify_of_an_altered_bundle_fails_and_names_the_file(
    bundle: Path, signing_key: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run("sign", bundle, "--key", signing_key) == 0
    capsys.readouterr()
    flip(bundle / name)
    assert run("verify", bundle) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert name in said.err
    assert run("verify", bundle, "--json") == 1
    findings = json.loads(capsys.readouterr().out)
    assert findings["trusted"] is False
    assert name in findings["problem"]


def test_verify_of_what_is_no_bundle_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", tmp_path) == 1
    assert "has no manifest.json" in capsys.readouterr().err
    assert run("verify", tmp_path / "none", "--json") == 1
    assert json.loads(capsys.readouterr().out)["trusted"] is False


@pytest.mark.parametrize("words", [["keygen"], ["sign"], ["sign", "b"], ["verify"]])
def test_missing_arguments_are_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2


def test_what_sign_writes_is_what_the_runtime_specifies(bundle: Path, signing_key: Path) -> None:
    assert run("sign", bundle, "--key", signing_key) == 0
    signature = parse_signature((bundle / SIGNATURE).read_bytes())
    assert signature.fits((bundle / "manifest.json").read_bytes())
    assert mode_of(bundle / SIGNATURE) & 0o044 == 0o044  # robots run as another user
