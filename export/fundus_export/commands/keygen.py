"""`fundus-export keygen`: make a key to sign bundles with.

FILE is the private key, mode 0600: keep it on the build host. FILE.pub is the public one: robots
that have it in their folder of trusted keys open what the private one signs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fundus_export.commands.passphrase import add_passphrase_option, new_passphrase

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "keygen",
        help="make a key to sign with",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="private key")
    parser.add_argument(
        "--passphrase", action="store_true", help="ask for a passphrase to encrypt it with"
    )
    add_passphrase_option(parser)
    parser.add_argument(
        "--trust",
        action="store_true",
        help="also trust the key: for this user, or in $FUNDUS_TRUSTED_KEYS where that is set",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the key pair and say what was written.

    Raises:
        FundusError: a file exists or cannot be written, or there is no passphrase.
    """
    from fundus_export.signing import write_key_pair

    passphrase = new_passphrase(args.passphrase_env, ask=args.passphrase)
    key, files = write_key_pair(args.out, passphrase=passphrase, force=args.force, trust=args.trust)
    *public, private = files
    state = "not encrypted" if passphrase is None else "encrypted"
    print(f"{private}: private key, {state}; keep it on this host")
    for file in reversed(public):
        print(f"{file}: public key")
    print(f"key id {key.key_id}")
    return 0
