"""`fundus-export verify`: check every file of a bundle, and who vouches for it, as a robot does.

The exit status is 1 unless the bundle is whole and trusted.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fundus_runtime.bundle import Bundle
    from fundus_runtime.trusted_keys import TrustedKeys

__all__ = ["add_parser", "run"]

_LOG = logging.getLogger(__name__)


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
        TrustedKeysError: the trusted keys cannot be relied upon.
    """
    from fundus_runtime.commands.output import json_text, print_text
    from fundus_runtime.trusted_keys import TrustedKeys

    keys = TrustedKeys.find() if args.keys is None else TrustedKeys.from_folder(args.keys)
    findings = _verify(args.bundle, keys)
    print_text(json_text(findings) if args.json else _in_words(findings))
    if findings["problem"] is not None and not args.json:
        _LOG.error("fundus-export: %s", findings["problem"])
    return 0 if findings["trusted"] else 1


def _verify(folder: Path, keys: TrustedKeys) -> dict[str, Any]:
    from fundus_runtime.bundle import Bundle
    from fundus_runtime.errors import BundleError, BundleUntrustedError

    problem: str | None = None
    try:
        try:
            bundle = Bundle.open(folder, trusted_keys=keys)
        except BundleUntrustedError as error:
            problem = str(error)
            # what it is, and whether its files are whole, is worth knowing of a stranger's too
            bundle = Bundle.open(folder, trusted_keys=keys, require_trust=False)
    except BundleError as error:
        return _findings(folder, None, str(error))
    return _findings(folder, bundle, problem)


def _findings(folder: Path, bundle: Bundle | None, problem: str | None) -> dict[str, Any]:
    findings: dict[str, Any] = {
        "format": "fundus-edge verification",
        "schema_version": 1,
        "path": str(folder),
        "trusted": bundle is not None and problem is None,
        "problem": problem,
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


def _in_words(findings: dict[str, Any]) -> str:
    if "files" not in findings:
        return f"{findings['path']}: refused"
    return "\n".join(
        [
            f"bundle    {findings['name']} {findings['version']}",
            f"manifest  sha256 {findings['sha256']}",
            f"trust     {findings['trust']}",
            f"signer    {findings['signer'] or 'none that is trusted'}",
            *(f"ok        {name}, {one['bytes']} bytes" for name, one in findings["files"].items()),
        ]
    )
