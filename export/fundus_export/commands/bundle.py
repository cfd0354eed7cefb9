"""`fundus-export bundle`: make of a calibrated checkpoint the bundle that a robot receives.

The FP32 graphs are compared with the PyTorch model before anything is written: on the checkpoint's
own validation patients when --data is given, else on the golden pairs. INT8 is calibrated on the
photographs of --calibration, or of the checkpoint's training patients in --data. With --data, every
form is certified on the validation patients, unless fp32 is the only one, and INT8 is raised to
higher precision layer by layer until it decides as the PyTorch model does.

The exit status is 1 where a certificate misses a limit all the same: too few patients, FP16, or a
recipe that is repeated as it is. Such a bundle is written, says so, and is left unsigned.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_export.commands.calibration_options import (
    add_calibration_options,
    require_options_used,
)
from fundus_export.commands.passphrase import add_passphrase_option, open_key
from fundus_training.commands.inputs import load_matching_records, part_of_records, positive_int

if TYPE_CHECKING:
    from fundus_export.bundle_writer import PreparedPairs
    from fundus_export.signing import SigningKey
    from fundus_runtime.bundle import Bundle
    from fundus_training.checkpoint import Checkpoint

__all__ = ["add_parser", "run"]

_LOG = logging.getLogger(__name__)

_PAIRS = 32


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "bundle",
        help="write a bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="bundle's folder")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32")
    parser.add_argument(
        "--dialect",
        action="append",
        default=[],
        choices=("fp32", "fp16", "int8-cpu", "int8-trt", "int8-trt8"),
        help="carry this form instead of those of --precision; repeatable",
    )
    add_calibration_options(parser)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="compare and certify on real pairs of DIR"
    )
    parser.add_argument(
        "--limits", type=Path, metavar="JSON", help="other limits of the certificates, by name"
    )
    parser.add_argument(
        "--pairs",
        type=positive_int,
        metavar="N",
        help=f"how many of them to compare the FP32 graphs on (default: {_PAIRS})",
    )
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where crops are cached")
    parser.add_argument("--name", help="name of the bundle (default: the folder's)")
    parser.add_argument("--bundle-version", default="0.1.0", metavar="V")
    parser.add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="report of `fundus-train evaluate --out`, for manifest and model card; repeatable",
    )
    parser.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="TEXT",
        help="a sentence on the model's origin, for manifest and model card; repeatable",
    )
    parser.add_argument("--sign-with", type=Path, metavar="FILE", help="sign with this private key")
    add_passphrase_option(parser)
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the bundle and print what it is.

    Raises:
        UsageError: an option would be without effect.
        FundusError: the checkpoint, the data or the folder cannot be used; nothing was written.
    """
    require_options_used(args)
    from fundus_export.bundle_writer import BundlePlan, write_bundle
    from fundus_export.commands.form_inputs import form_plan
    from fundus_training.checkpoint import load_checkpoint

    key = None if args.sign_with is None else open_key(args.sign_with, args.passphrase_env)
    checkpoint = load_checkpoint(args.checkpoint)
    plan = BundlePlan(
        name=args.name or args.out.resolve().name,
        bundle_version=args.bundle_version,
        checkpoint=checkpoint,
        checkpoint_bytes=args.checkpoint.read_bytes(),
        pairs=None if args.data is None else _real_pairs(args, checkpoint),
        evaluations=[_report(path, args.checkpoint) for path in args.evaluation],
        notes=args.note,
        forms=form_plan(args, checkpoint),
    )
    bundle = write_bundle(plan, args.out, force=args.force, key=key)
    parity = bundle.manifest.reported["parity"]
    size_mb = sum(entry.bytes for entry in bundle.manifest.files.values()) / 1e6
    print(
        f"{args.out}: bundle {bundle.manifest.name} {bundle.manifest.version}, {size_mb:.1f} MB in "
        f"{len(bundle.manifest.files) + 1} files, manifest sha256 {bundle.sha256}\n"
        f"graphs and PyTorch differ by at most {parity['largest_probability_difference']:.1e} in a "
        f"probability over {parity['pairs']} pairs ({parity['source']})"
    )
    print(_certificates_in_words(bundle, args.out))
    misses = _misses(bundle)
    print(_misses_in_words(args.out, misses) if misses else _signature_in_words(args.out, key))
    return 1 if misses else 0


def _misses(bundle: Bundle) -> dict[str, list[str]]:
    """What certificates miss, in words, by the form's name."""
    certificates = bundle.manifest.reported.get("certificates", {})
    return {name: one["misses"] for name, one in certificates.items() if not one["within_limits"]}


def _misses_in_words(out: Path, misses: Mapping[str, Sequence[str]]) -> str:
    told = "; ".join(f"{name}: {', '.join(missed)}" for name, missed in misses.items())
    return (
        f"NOT WITHIN LIMITS: {told}. The bundle is written and left unsigned; if it is to be used "
        f"all the same: fundus-export sign {shlex.quote(str(out))} --key FILE"
    )


def _certificates_in_words(bundle: Bundle, out: Path) -> str:
    """What each form's certificate says, and how to get one."""
    from fundus_runtime.certificate import certificate_of

    point = bundle.manifest.operating_points.default
    lines = []
    for name, graphs in bundle.manifest.graphs.items():
        size_mb = sum(bundle.manifest.files[file].bytes for file in (graphs.encoder, graphs.head))
        statement = certificate_of(bundle.manifest, graphs, point).statement
        lines.append(f"  {name:<9} {size_mb / 1e6:6.1f} MB  {statement}")
    if not bundle.manifest.reported.get("certificates"):
        lines.append(
            "  certify it on validation patients: "
            f"fundus-export certify {shlex.quote(str(out))} --checkpoint FILE --data DIR"
        )
    return "\n".join(lines)


def _signature_in_words(out: Path, key: SigningKey | None) -> str:
    if key is not None:
        return f"signed with the key {key.key_id}"
    return (
        "not signed: robots will refuse it until you do: "
        f"fundus-export sign {shlex.quote(str(out))} --key FILE"
    )


def _real_pairs(args: argparse.Namespace, checkpoint: Checkpoint) -> PreparedPairs:
    """Preprocessed pairs of the checkpoint's validation patients, both eyes gradable."""
    import numpy as np

    from fundus_export.bundle_writer import PreparedPairs
    from fundus_runtime.preprocess import normalise_crop
    from fundus_training.data.crops import CropStore
    from fundus_training.errors import DataError

    data = load_matching_records(args.data, checkpoint)
    records = part_of_records(data, checkpoint, "val")
    store = CropStore.open(records, checkpoint.spec, cache_dir=args.cache_dir)
    rows = [
        row
        for row in (store.row_of(record.id) for record in records)
        if store.is_gradable(row, "left") and store.is_gradable(row, "right")
    ][: args.pairs or _PAIRS]
    if not rows:
        raise DataError(f"no validation patient of {args.data} has two gradable photographs")
    left, right = (
        np.stack(
            [
                normalise_crop(crop.image, crop.mask, checkpoint.spec)
                for crop in (store.crop(row, eye) for row in rows)
                if crop is not None
            ]
        )
        for eye in ("left", "right")
    )
    return PreparedPairs(left, right, f"validation patients of {args.data.resolve().name}")


def _report(path: Path, checkpoint: Path) -> dict[str, Any]:
    """An evaluation report, if it is of this checkpoint."""
    from fundus_export.errors import ExportError
    from fundus_runtime.canonical import sha256_of_file

    try:
        report = dict(json.loads(path.read_text(encoding="utf-8")))
        recorded = report["checkpoint"]["sha256"]
        _ = report["data"]["patients"], report["patient"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{path} is no report of `fundus-train evaluate --out`: {type(error).__name__}, {error}"
        ) from error
    actual = sha256_of_file(checkpoint)
    if recorded != actual:
        raise ExportError(
            f"{path} reports on a checkpoint {recorded[:12]} but {checkpoint} is {actual[:12]}; "
            "evaluate this checkpoint again"
        )
    return report
