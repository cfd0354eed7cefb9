"""Where commands get a key's passphrase from: a variable of the environment, or a person."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from fundus_runtime.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from fundus_export.signing import SigningKey

__all__ = ["add_passphrase_option", "new_passphrase", "open_key"]


def add_passphrase_option(parser: argparse.ArgumentParser) -> None:
    """Add --passphrase-env."""
    parser.add_argument(
        "--passphrase-env",
        metavar="VAR",
        help="environment variable with the private key's passphrase, instead of a prompt",
    )


def open_key(path: Path, variable: str | None) -> SigningKey:
    """A private key; its passphrase comes from `variable` or, where that is None, from a prompt.

    Raises:
        ExportError: the key cannot be used.
        UsageError: the key is encrypted and there is no passphrase.
    """
    from fundus_export.signing import load_signing_key

    def passphrase() -> bytes:
        return _asked(f"passphrase of {path}: ") if variable is None else _named(variable)

    return load_signing_key(path, passphrase)


def new_passphrase(variable: str | None, *, ask: bool) -> bytes | None:
    """The passphrase for a new key; None where none is wanted.

    Raises:
        UsageError: it is empty, or the two that were typed differ.
    """
    if variable is not None:
        return _named(variable)
    if not ask:
        return None
    typed = _asked("passphrase for the new key: ")
    if typed != _asked("the same again: "):
        raise UsageError("the two passphrases differ; nothing was written")
    return typed


def _named(variable: str) -> bytes:
    value = os.environ.get(variable, "")
    if not value:
        raise UsageError(f"--passphrase-env names ${variable}, which is not set or empty; set it")
    return os.fsencode(value)


def _asked(prompt: str) -> bytes:
    import getpass

    if not sys.stdin.isatty():
        raise UsageError("a passphrase is needed, but nobody can be asked; give --passphrase-env")
    try:
        typed = getpass.getpass(prompt)
    except EOFError:
        typed = ""
    if not typed:
        raise UsageError("the passphrase is empty; nothing was written")
    return os.fsencode(typed)
