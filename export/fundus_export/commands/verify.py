"""`fundus-export verify`: check every file of a bundle, and who vouches for it, as a robot does.

The exit status is 1 unless the bundle is whole and trusted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fundus_runtime.bundle import Bundle
    from fundus_runtime.errors import BundleError
    from fundus_runtime.trusted_keys import TrustedKeys

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "verify",
        help="check a bundle and its signature",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help="folder of trusted public keys (default: those that this machine trusts)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found.

    Raises:
        BundleError: the bundle is not whole or not trusted, unless --json says so in its own way.
        TrustedKeysError: the trusted keys cannot be relied upon.
    """
    from fundus_runtime.commands.output import json_text, print_text
    from fundus_runtime.trusted_keys import TrustedKeys

    keys = TrustedKeys.find() if args.keys is None else TrustedKeys.from_folder(args.keys)
    bundle, refusal = _verify(args.bundle, keys)
    if args.json:
        print_text(json_text(_findings(args.bundle, bundle, refusal)))
        return 0 if refusal is None else 1
    if bundle is not None:
        print_text(_in_words(bundle))
    if refusal is not None:
        raise refusal
    return 0


def _verify(folder: Path, keys: TrustedKeys) -> tuple[Bundle | None, BundleError | None]:
    """The bundle, unless it is damaged, and why a robot refuses it, unless it does not."""
    from fundus_runtime.bundle import Bundle
    from fundus_runtime.errors import BundleError, BundleUntrustedError

    try:
        return Bundle.open(folder, trusted_keys=keys), None
    except BundleUntrustedError as error:
        refusal = error
    except BundleError as error:
        return None, error
    try:
        # what it is, and whether its files are whole, is worth knowing of a stranger's bundle too
        return Bundle.open(folder, trusted_keys=keys, require_trust=False), refusal
    except BundleError as error:
        return None, error


def _findings(folder: Path, bundle: Bundle | None, refusal: BundleError | None) -> dict[str, Any]:
    findings: dict[str, Any] = {
        "format": "fundus-edge verification",
        "schema_version": 1,
        "path": str(folder),
        "trusted": refusal is None,
        "problem": None if refusal is None else str(refusal),
    }
    if bundle is None:
        return findings
    return {
        **findings,
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "sha256": bundle.sha256,
        "trust": bundle.trust,
        "signer": bundle.signer,
        "files": {
            name: {"sha256": record.sha256, "bytes": record.bytes, "ok": True}
            for name, record in sorted(bundle.manifest.files.items())
        },
    }


def _in_words(bundle: Bundle) -> str:
    manifest = bundle.manifest
    return "\n".join(
        [
            f"bundle    {manifest.name} {manifest.version}",
            f"manifest  sha256 {bundle.sha256}",
            f"trust     {bundle.trust}",
            f"signer    {bundle.signer or 'none that is trusted'}",
            *(
                f"ok        {name}, {one.bytes} bytes"
                for name, one in sorted(manifest.files.items())
            ),
        ]
    )
