from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fundus_runtime.trusted_keys as module
from fundus_runtime.errors import TrustedKeysError
from fundus_runtime.signature import key_id_of
from fundus_runtime.trusted_keys import TrustedKeys, user_folder


def public_pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def add_key(folder: Path, name: str = "release.pub") -> str:
    """Put a new key into a folder; its id."""
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    (folder / name).write_bytes(public_pem(key))
    return key_id_of(key.public_key().public_bytes_raw())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: `home` and `etc` below, and no variables."""
    for name in ("FUNDUS_TRUSTED_KEYS", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "MACHINE_FOLDER", tmp_path / "etc" / "trusted-keys")
    return tmp_path


def test_no_folder_means_no_key(machine: Path) -> None:
    keys = TrustedKeys.find()
    assert not keys.sources
    assert keys.folders == ()
    assert keys.absent == (user_folder(), machine / "etc" / "trusted-keys")
    for folder in keys.absent:
        assert str(folder) in keys.in_words()


def test_the_users_and_the_machines_keys_are_united(machine: Path) -> None:
    users = add_key(machine / "home" / ".config" / "fundus-edge" / "trusted-keys")
    etc = add_key(machine / "etc" / "trusted-keys")
    keys = TrustedKeys.find()
    assert users in keys
    assert etc in keys
    assert key_id_of(bytes(32)) not in keys
    assert keys.absent == ()
    assert users in keys.in_words()
    assert str(machine / "etc" / "trusted-keys" / "release.pub") in keys.in_words()


def test_the_variable_names_the_only_folder(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_key(machine / "etc" / "trusted-keys")
    mine = add_key(machine / "mine")
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", str(machine / "mine"))
    assert set(TrustedKeys.find().sources) == {mine}
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", str(machine / "none"))
    with pytest.raises(TrustedKeysError, match=r"none does not exist; .* \$FUNDUS_TRUSTED_KEYS"):
        TrustedKeys.find()
    monkeypatch.setenv("FUNDUS_TRUSTED_KEYS", "")
    assert mine not in TrustedKeys.find()


def test_xdg_names_the_users_folder_when_absolute(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_home = machine / "home" / ".config" / "fundus-edge" / "trusted-keys"
    assert user_folder() == at_home
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine / "xdg"))
    key = add_key(machine / "xdg" / "fundus-edge" / "trusted-keys")
    assert set(TrustedKeys.find().sources) == {key}
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert user_folder() == at_home


def test_a_relative_home_is_none(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # else whoever fills the working directory would add a key
    monkeypatch.setenv("HOME", "somewhere")
    assert user_folder() is None
    assert TrustedKeys.find().absent == (machine / "etc" / "trusted-keys",)


def test_other_files_in_the_folder_are_left_alone(machine: Path) -> None:
    key = add_key(machine / "keys")
    (machine / "keys" / "README").write_text("who is who")
    (machine / "keys" / "old").mkdir()
    (machine / "keys" / "release.pub.withdrawn").write_bytes(b"nothing")
    assert set(TrustedKeys.from_folder(machine / "keys").sources) == {key}


def test_a_key_behind_a_link_counts(machine: Path) -> None:
    key = add_key(machine / "store")
    (machine / "keys").mkdir()
    (machine / "keys" / "a.pub").symlink_to(machine / "store" / "release.pub")
    assert key in TrustedKeys.from_folder(machine / "keys")


SOMEBODY = Ed25519PrivateKey.generate()
BAD_KEYS = {
    "private": (private_pem(SOMEBODY), "is a private key, .* remove it"),
    "both halves": (public_pem(SOMEBODY) + private_pem(SOMEBODY), "is a private key"),
    "empty": (b"", "is no public key in PEM"),
    "text": (b"ssh-ed25519 AAAA somebody", "is no public key in PEM"),
    "raw": (SOMEBODY.public_key().public_bytes_raw(), "is no public key in PEM"),
    "cut": (public_pem(SOMEBODY)[:60], "is no public key in PEM"),
    "another kind": (public_pem(ec.generate_private_key(ec.SECP256R1())), "expected an Ed25519"),
    "two": (public_pem(SOMEBODY) * 2, "several keys, expected one a file"),
    "large": (b"#" * 20_000 + public_pem(SOMEBODY), "too large for a key"),
}


@pytest.mark.parametrize("fault", BAD_KEYS)
def test_a_file_that_is_no_such_key_is_refused_by_name(machine: Path, fault: str) -> None:
    content, words = BAD_KEYS[fault]
    add_key(machine / "keys")
    (machine / "keys" / "bad.pub").write_bytes(content)
    with pytest.raises(TrustedKeysError, match=words) as caught:
        TrustedKeys.from_folder(machine / "keys")
    assert str(machine / "keys" / "bad.pub") in str(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_without_waiting_for_it(
    machine: Path, make: Callable[[Path], None]
) -> None:
    add_key(machine / "keys")
    make(machine / "keys" / "bad.pub")
    with pytest.raises(TrustedKeysError, match=r"bad\.pub is no ordinary file"):
        TrustedKeys.from_folder(machine / "keys")


def test_dead_and_circular_links_are_refused(machine: Path) -> None:
    add_key(machine / "keys")
    link = machine / "keys" / "bad.pub"
    for target in (machine / "none", link):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(TrustedKeysError, match=r"cannot be read: .*bad\.pub"):
            TrustedKeys.from_folder(machine / "keys")


def test_a_file_in_the_folders_place_is_refused(machine: Path) -> None:
    (machine / "keys").write_bytes(public_pem(SOMEBODY))
    with pytest.raises(TrustedKeysError, match="is no folder"):
        TrustedKeys.from_folder(machine / "keys")


@pytest.mark.parametrize("name", ["above/keys", "above/keys/release.pub", "above"])
def test_what_everybody_may_write_is_refused_with_the_mend(machine: Path, name: str) -> None:
    add_key(machine / "above" / "keys")
    place = machine / name
    place.chmod(place.stat().st_mode | 0o002)
    with pytest.raises(TrustedKeysError, match="everybody may write") as caught:
        TrustedKeys.from_folder(machine / "above" / "keys")
    assert f"chmod o-w {place}" in str(caught.value)
    place.chmod(place.stat().st_mode & ~0o002)
    assert TrustedKeys.from_folder(machine / "above" / "keys").sources


def test_a_sticky_folder_is_safe_above_the_keys_but_not_around_them(machine: Path) -> None:
    # as /tmp: everybody may add a file there, nobody may exchange what is there
    add_key(machine / "above" / "keys")
    (machine / "above").chmod(0o1777)
    assert TrustedKeys.from_folder(machine / "above" / "keys").sources
    (machine / "above" / "keys").chmod(0o1777)
    with pytest.raises(TrustedKeysError, match="everybody may write"):
        TrustedKeys.from_folder(machine / "above" / "keys")


def test_the_target_of_a_link_is_looked_at_too(machine: Path) -> None:
    add_key(machine / "open" / "keys")
    (machine / "open" / "keys").chmod(0o777)
    (machine / "link").symlink_to(machine / "open" / "keys")
    with pytest.raises(TrustedKeysError, match="everybody may write"):
        TrustedKeys.from_folder(machine / "link")
    (machine / "keys").mkdir()
    (machine / "keys" / "a.pub").symlink_to(machine / "open" / "keys" / "release.pub")
    with pytest.raises(TrustedKeysError, match="everybody may write"):
        TrustedKeys.from_folder(machine / "keys")


def test_a_group_of_its_own_may_write(machine: Path) -> None:
    # umask 002 is common where every user has a group of their own
    key = add_key(machine / "keys")
    (machine / "keys").chmod(0o775)
    (machine / "keys" / "release.pub").chmod(0o664)
    assert key in TrustedKeys.from_folder(machine / "keys")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_an_error_and_not_an_empty_one(machine: Path) -> None:
    add_key(machine / "keys")
    (machine / "keys").chmod(0)
    with pytest.raises(TrustedKeysError, match="cannot be read"):
        TrustedKeys.from_folder(machine / "keys")
