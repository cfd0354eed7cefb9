"""`fundus-train evaluate`: how good a checkpoint is on patients that it was kept from.

A data set with labels is judged by the parts of the checkpoint's own split; a folder of pairs with
DR grades (see `data.grades`) by the AUC of the diabetic class.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_training.commands.inputs import (
    add_model_and_data,
    load_matching_records,
    part_of_records,
    require_device,
    require_free,
)

if TYPE_CHECKING:
    from fundus_training.checkpoint import Checkpoint
    from fundus_training.figures import Resampling

__all__ = ["add_parser", "run"]

_LOG = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "evaluate",
        help="figures of a checkpoint on held-out patients, with intervals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_and_data(parser)
    parser.add_argument(
        "--split",
        choices=("val", "test", "all"),
        default="val",
        help="part of the checkpoint's split, or every patient of DIR (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report as JSON")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print.

    Raises:
        FundusError: the checkpoint or the data cannot be used as asked.
    """
    from fundus_training.checkpoint import load_checkpoint
    from fundus_training.figures import Resampling

    if args.out is not None:
        require_free(args.out, force=args.force)
    require_device(args.device)
    start = time.perf_counter()
    checkpoint = load_checkpoint(args.checkpoint)
    resampling = Resampling(args.bootstrap, args.seed)
    report, text = (
        _on_grades(args, checkpoint, resampling)
        if has_dr_grades(args.data)
        else _on_labels(args, checkpoint, resampling)
    )
    report = {"checkpoint": _identity(args.checkpoint, checkpoint), **report}
    as_json = json.dumps(report, indent=2, allow_nan=False)
    if args.out is not None:
        _write(args.out, as_json)
    print(as_json if args.json else text)
    _LOG.info("evaluated in %.1f s", time.perf_counter() - start)
    return 0


def _write(path: Path, as_json: str) -> None:
    from fundus_training.errors import TrainingError
    from fundus_training.files import write_atomically

    try:
        write_atomically(path, f"{as_json}\n".encode())
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error}; choose another --out") from error
    _LOG.info("wrote %s", path)


def has_dr_grades(folder: Path) -> bool:
    """Whether a folder holds pairs with DR grades rather than class labels."""
    from fundus_training.data.tables import column_key, read_columns

    table = folder / "labels.csv"
    if not table.is_file():
        return False
    return column_key("left_dr_grade") in map(column_key, read_columns(table))


def _on_labels(
    args: argparse.Namespace, checkpoint: Checkpoint, resampling: Resampling
) -> tuple[dict[str, Any], str]:
    from fundus_training.checkpoint import build_model
    from fundus_training.evaluate import evaluate
    from fundus_training.predict import predict
    from fundus_training.report_text import text_of_evaluation

    records = load_matching_records(args.data, checkpoint)
    chosen = part_of_records(records, checkpoint, args.split)
    predictions = predict(
        build_model(checkpoint),
        chosen,
        checkpoint.spec,
        cache_dir=args.cache_dir,
        batch_size=args.batch_size,
        device=args.device,
    )
    report = evaluate(
        predictions,
        checkpoint.classes,
        calibration=checkpoint.calibration,
        task=checkpoint.model_config.task,
        resampling=resampling,
    )
    trained_on = {record.id for record in chosen} & set(checkpoint.split.train)
    report["data"] |= {
        "name": args.data.resolve().name,
        "split": args.split,
        "patients_trained_on": len(trained_on),
    }
    names = dict(zip(checkpoint.classes.letters, checkpoint.classes.names, strict=True))
    return report, text_of_evaluation(report, names)


def _on_grades(
    args: argparse.Namespace, checkpoint: Checkpoint, resampling: Resampling
) -> tuple[dict[str, Any], str]:
    from fundus_training.checkpoint import build_model
    from fundus_training.data.grades import load_dr_grades
    from fundus_training.evaluate_grades import evaluate_grades, records_from_grades
    from fundus_training.predict import predict
    from fundus_training.report_text import text_of_grades

    _LOG.info("%s has DR grades: all of its pairs are evaluated, whatever --split", args.data)
    pairs = load_dr_grades(args.data)
    predictions = predict(
        build_model(checkpoint),
        records_from_grades(pairs, checkpoint.classes),
        checkpoint.spec,
        cache_dir=args.cache_dir,
        batch_size=args.batch_size,
        device=args.device,
    )
    report = evaluate_grades(predictions, pairs, checkpoint.classes, resampling=resampling)
    report["data"] |= {"name": args.data.resolve().name}
    return report, text_of_grades(report)


def _identity(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    from fundus_runtime.canonical import sha256_of_file

    return {
        "file": path.name,
        "sha256": sha256_of_file(path),
        "preprocess_sha256": checkpoint.spec.sha256,
        "trunk": checkpoint.model_config.trunk,
    }
