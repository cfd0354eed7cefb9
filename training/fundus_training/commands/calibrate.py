"""`fundus-train calibrate`: give a checkpoint its probabilities and operating points.

Temperature, bias and thresholds of every class are fitted on the validation patients of the
checkpoint's own split, and stored in the checkpoint with a fresh evaluation on these patients.
Without --out the checkpoint itself is replaced, in one step: the file is the old or the new one.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from fundus_training.commands.inputs import (
    add_model_and_data,
    load_matching_records,
    part_of_records,
    require_device,
    require_free,
)

__all__ = ["add_parser", "run"]

_LOG = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit probabilities and operating points on the validation patients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_and_data(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write here and leave the checkpoint as it is"
    )
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    parser.add_argument("--json", action="store_true", help="print what was fitted as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate, save and print.

    Raises:
        FundusError: the checkpoint or the data cannot be used as asked; no file is changed.
    """
    from fundus_training.calibrate import calibrate, calibration_errors
    from fundus_training.checkpoint import (
        build_model,
        load_checkpoint,
        save_checkpoint,
        with_calibration,
    )
    from fundus_training.evaluate import evaluate
    from fundus_training.figures import Resampling
    from fundus_training.predict import predict

    target = args.checkpoint if args.out is None else args.out
    if args.out is not None:
        require_free(args.out, force=args.force)
    require_device(args.device)
    checkpoint = load_checkpoint(args.checkpoint)
    chosen = part_of_records(load_matching_records(args.data, checkpoint), checkpoint, "val")
    predictions = predict(
        build_model(checkpoint),
        chosen,
        checkpoint.spec,
        cache_dir=args.cache_dir,
        batch_size=args.batch_size,
        device=args.device,
    )
    fitted = calibrate(predictions, checkpoint.classes)
    task = checkpoint.model_config.task
    errors = calibration_errors(predictions, fitted, task=task)
    report = evaluate(
        predictions,
        checkpoint.classes,
        calibration=fitted,
        task=task,
        resampling=Resampling(args.bootstrap, args.seed),
    )
    metrics = {**checkpoint.metrics, "validation": report, "calibration_error": errors}
    save_checkpoint(target, with_calibration(checkpoint, fitted, metrics))
    print(_answer({"calibration_error": errors, **fitted.to_dict()}, as_json=args.json))
    size_mb = target.stat().st_size / 1e6
    _LOG.info("wrote %s (%.1f MB) with its calibration", target, size_mb)
    return 0


def _answer(found: dict[str, Any], *, as_json: bool) -> str:
    from fundus_training.report_text import text_of_calibration, text_of_points

    if as_json:
        return json.dumps(found, indent=2, allow_nan=False)
    return "\n".join(
        [
            f"fitted on {found['patients']} {found['fitted_on']} and {found['eyes']} labelled eyes",
            "",
            text_of_calibration(found["calibration_error"]),
            "",
            "Thresholds for patients",
            text_of_points(found["points"]),
        ]
    )
