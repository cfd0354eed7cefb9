"""The public keys that this machine trusts to vouch for bundles.

They are Ed25519 public keys in PEM, one a file `*.pub`, in folders that an administrator fills.
`$FUNDUS_TRUSTED_KEYS` names one folder, which then counts alone; else the user's and the machine's
folders are united. Whatever could let somebody else add a key is refused: a file or folder that
everybody may write, and a folder above in which everybody may exchange them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fundus_runtime.errors import TrustedKeysError
from fundus_runtime.signature import key_id_of

__all__ = [
    "KEY_ENDING",
    "MACHINE_FOLDER",
    "TRUSTED_KEYS_VARIABLE",
    "TrustedKeys",
    "public_key_from_pem",
    "user_folder",
]

TRUSTED_KEYS_VARIABLE = "FUNDUS_TRUSTED_KEYS"
MACHINE_FOLDER = Path("/etc/fundus-edge/trusted-keys")
KEY_ENDING = ".pub"

_MAX_KEY_BYTES = 16 * 1024


@dataclass(frozen=True)
class TrustedKeys:
    """Trusted keys and where they come from.

    Attributes:
        sources: where each key was found, by key id.
        folders: the folders that were read.
        absent: the folders that were looked for and are not there.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()

    @classmethod
    def find(cls) -> TrustedKeys:
        """The keys that this machine trusts; see the module's contract for where they lie.

        Raises:
            TrustedKeysError: a folder or a key in it cannot be relied upon.
        """
        if named := os.environ.get(TRUSTED_KEYS_VARIABLE):
            return cls.from_folder(Path(named))
        folders = [folder for folder in (user_folder(), MACHINE_FOLDER) if folder is not None]
        present = [folder for folder in folders if _is_there(folder)]
        sources: dict[str, str] = {}
        for folder in reversed(present):
            sources.update(_keys_in(folder))
        return cls(sources, tuple(present), tuple(f for f in folders if f not in present))

    @classmethod
    def from_folder(cls, folder: Path) -> TrustedKeys:
        """The keys of one folder.

        Raises:
            TrustedKeysError: it is not there, or it or a key in it cannot be relied upon.
        """
        if not _is_there(folder):
            raise TrustedKeysError(
                f"the folder of trusted keys {folder} does not exist; name a folder of public keys "
                f"(*{KEY_ENDING}), or unset ${TRUSTED_KEYS_VARIABLE} if that names it"
            )
        return cls(dict(_keys_in(folder)), (folder,))

    @classmethod
    def of(cls, public_key: bytes, source: str) -> TrustedKeys:
        """One key alone, given as 32 raw bytes."""
        return cls({key_id_of(public_key): source})

    def __contains__(self, key_id: str) -> bool:
        return key_id in self.sources

    def in_words(self) -> str:
        """Which keys are trusted, or where they were looked for in vain."""
        if self.sources:
            return "trusted are " + ", ".join(f"{key} ({at})" for key, at in self.sources.items())
        looked = ", ".join(str(folder) for folder in (*self.folders, *self.absent)) or "nowhere"
        return f"no key is trusted (looked in {looked})"


def user_folder() -> Path | None:
    """The user's own folder of trusted keys, which need not exist; None for a user without a home.

    By the XDG rules a relative `$XDG_CONFIG_HOME` counts as none.
    """
    config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if not config.is_absolute():
        try:
            config = Path.home() / ".config"
        except RuntimeError:
            return None
    return config / "fundus-edge" / "trusted-keys" if config.is_absolute() else None


def public_key_from_pem(data: bytes) -> bytes:
    """The 32 raw bytes of an Ed25519 public key in PEM.

    Raises:
        TrustedKeysError: it is anything else; the message has no subject.
    """
    if b"PRIVATE KEY" in data:
        raise TrustedKeysError(
            "is a private key, which belongs on the build host alone: remove it here, and put the "
            f"{KEY_ENDING} file that fundus-export keygen wrote beside it in its place"
        )
    if data.count(b"-----BEGIN ") > 1:
        raise TrustedKeysError("holds several keys, expected one a file; split it")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustedKeysError(
            f"is no public key in PEM ({error}); copy it again from where it was made"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        kind = type(key).__name__.strip("_")
        raise TrustedKeysError(
            f"is of the kind {kind}, expected an Ed25519 public key; make one with "
            "fundus-export keygen"
        )
    return key.public_bytes_raw()


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError as error:
        raise _unreadable(folder, error) from error


def _keys_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Key ids and files of one folder."""
    try:
        if not folder.is_dir():
            raise TrustedKeysError(f"{folder} is no folder, expected one of trusted keys")
        _require_closed(folder)
        for file in sorted(folder.iterdir()):
            if file.name.endswith(KEY_ENDING):
                yield _key_in(file), str(file)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise _unreadable(folder, error) from error


def _key_in(file: Path) -> str:
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode):
        raise TrustedKeysError(f"the trusted key {file} is no ordinary file; remove it")
    _require_closed(file)
    with file.open("rb") as stream:
        data = stream.read(_MAX_KEY_BYTES + 1)
    if len(data) > _MAX_KEY_BYTES:
        raise TrustedKeysError(f"the trusted key {file} is too large for a key; remove it")
    try:
        return key_id_of(public_key_from_pem(data))
    except TrustedKeysError as error:
        raise TrustedKeysError(f"the trusted key {file} {error}") from error.__cause__


def _require_closed(path: Path) -> None:
    """Refuse what everybody may write, or exchange in a folder above; of a link, its target too."""
    for place in {path.absolute(), path.resolve()}:
        for part in (place, *place.parents):
            mode = part.stat().st_mode
            # in a folder such as /tmp everybody may write, but not exchange what others made
            shared = part != place and mode & stat.S_ISVTX
            if mode & stat.S_IWOTH and not shared:
                raise TrustedKeysError(
                    f"everybody may write to {part}, so that anybody could make {path} vouch for a "
                    f"bundle; look at what it holds, then: chmod o-w {part}"
                )


def _unreadable(folder: Path, error: Exception) -> TrustedKeysError:
    return TrustedKeysError(
        f"the folder of trusted keys {folder} cannot be read: {error}; check its rights"
    )
