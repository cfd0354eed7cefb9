"""`fundus-export certify`: count how often each dialect decides otherwise than the PyTorch model.

Judged on the validation patients whose ids the checkpoint stores. Calibration is refitted for each
dialect on one half of them and changes are counted on the other; the certificates, and the
calibrations from all of them, go into the bundle's manifest. The exit status is 1 when a limit is
missed; the certificate is stored all the same and says so.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_training.commands.inputs import require_free, whole_number

if TYPE_CHECKING:
    from fundus_export.certificate import Certificate

__all__ = ["add_parser", "run"]

_LOG = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "certify",
        help="count changed decisions of a bundle's dialects",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="what it was trained on"
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        default="val",
        help="part of the checkpoint's own split; train and all are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--dialect",
        action="append",
        default=[],
        metavar="D",
        help="one of the bundle's dialects; repeatable (default: all of them)",
    )
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where crops are cached")
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the certificates here")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    parser.add_argument(
        "--limits", type=Path, metavar="JSON", help="other limits, by name (default: see docs)"
    )
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=0,
        help="of the halves and the resamples (default: %(default)s)",
    )
    parser.add_argument(
        "--bootstrap",
        type=whole_number,
        default=1000,
        metavar="N",
        help="resamples for the score's interval, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--layer-pairs",
        type=whole_number,
        default=24,
        metavar="N",
        help="pairs to rank the layers' errors on, 0 for no ranking (default: %(default)s)",
    )
    parser.add_argument(
        "--no-write", action="store_true", help="leave the bundle as it is, signed or not"
    )
    parser.add_argument(
        "--drop-signature",
        action="store_true",
        help="remove the signature of a signed bundle, which would no longer fit",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Certify, store, print.

    Raises:
        FundusError: bundle, checkpoint or data cannot be used, or patients are refused; the bundle
            is as it was.
    """
    from fundus_export.certificate.dialects import certify_dialects
    from fundus_export.certificate.in_bundle import require_unsigned, write_certificates
    from fundus_export.certificate.text import text_of_certificates
    from fundus_runtime.bundle import Bundle

    if args.out is not None:
        require_free(args.out, force=args.force)
    bundle = Bundle.open(args.bundle, require_trust=False)
    if not (args.no_write or args.drop_signature):
        require_unsigned(bundle)
    certificates = certify_dialects(
        bundle,
        args.checkpoint,
        args.data,
        dialects=args.dialect,
        split=args.split,
        limits=_limits(args.limits),
        cache_dir=args.cache_dir,
        seed=args.seed,
        resamples=args.bootstrap,
        layer_pairs=args.layer_pairs,
    )
    print(text_of_certificates(tuple(certificates.values())))
    if args.out is not None:
        _write_json(args.out, certificates)
    if not args.no_write:
        sha256 = write_certificates(bundle, certificates, drop_signature=args.drop_signature)
        print(f"\n{args.bundle}: certificates stored, manifest sha256 {sha256}")
    return 0 if all(one.within_limits for one in certificates.values()) else 1


def _limits(path: Path | None) -> Any:
    from fundus_export.certificate import CertificateLimits

    return CertificateLimits() if path is None else CertificateLimits.from_file(path)


def _write_json(path: Path, certificates: Mapping[str, Certificate]) -> None:
    from fundus_runtime.atomic import atomic_text

    plain = {name: one.to_dict() for name, one in certificates.items()}
    with atomic_text(path, force=True) as stream:
        stream.write(json.dumps(plain, indent=1, allow_nan=False) + "\n")
    _LOG.info("wrote %s", path)
