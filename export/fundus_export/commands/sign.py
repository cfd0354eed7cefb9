"""`fundus-export sign`: sign a bundle as a whole, after verifying every file of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fundus_export.commands.passphrase import add_passphrase_option, open_key

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser("sign", help="sign a bundle", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key")
    add_passphrase_option(parser)
    parser.add_argument("--force", action="store_true", help="replace the signature of another key")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the signature and say whose it is.

    Raises:
        FundusError: the bundle or the key cannot be used; an old signature is as it was.
    """
    from fundus_export.signing import sign_bundle

    key = open_key(args.key, args.passphrase_env)
    bundle = sign_bundle(args.bundle, key, force=args.force)
    print(
        f"{args.bundle}: bundle {bundle.manifest.name} {bundle.manifest.version}, manifest sha256 "
        f"{bundle.sha256}, signed with the key {key.key_id}"
    )
    return 0
