"""Shared by the commands that run a checkpoint on data: options, and the choice of patients."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fundus_training.checkpoint import Checkpoint
    from fundus_training.data.records import PatientRecord, RecordSet

__all__ = [
    "add_model_and_data",
    "load_matching_records",
    "part_of_records",
    "positive_int",
    "require_device",
    "require_free",
    "whole_number",
]

_LOG = logging.getLogger(__name__)


def whole_number(text: str) -> int:
    """An integer of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive_int(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def add_model_and_data(parser: argparse.ArgumentParser) -> None:
    """Options that name the checkpoint, the data and how to run."""
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the data set's folder"
    )
    parser.add_argument(
        "--bootstrap",
        type=whole_number,
        default=1000,
        metavar="N",
        help="resamples of patients for the intervals, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number, default=0, help="of the resamples (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="where to run, as torch names it (default: %(default)s)"
    )
    parser.add_argument("--batch-size", type=positive_int, default=32, metavar="N")
    parser.add_argument(
        "--cache-dir", type=Path, metavar="DIR", help="where prepared photographs are kept"
    )


def require_device(name: str) -> str:
    """The device, if this machine has it.

    Raises:
        UsageError: torch does not know it, or it is not there.
    """
    import torch

    from fundus_runtime.errors import UsageError

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device {name!r} cannot be used: {reason}; use --device cpu") from error
    return name


def require_free(path: Path, *, force: bool) -> None:
    """Refuse to overwrite a file, and to start long work that ends in a folder that is not there.

    Raises:
        UsageError: the file exists and `force` is not set, or its folder does not exist.
    """
    from fundus_runtime.errors import UsageError

    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"the folder {path.parent} may not be written; choose another")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another name, or overwrite it with --force")


def load_matching_records(data: Path, checkpoint: Checkpoint) -> RecordSet:
    """The data set, if its classes are the checkpoint's.

    Raises:
        DataError: the data cannot be read or has other classes.
    """
    from fundus_training.data.records import load_records
    from fundus_training.errors import ConfigError, DataError

    try:
        return load_records(data, checkpoint.classes)
    except ConfigError as error:
        raise DataError(
            f"{data} does not fit the checkpoint's classes "
            f"({' '.join(checkpoint.classes.letters)}): {error}"
        ) from error


def part_of_records(
    records: RecordSet, checkpoint: Checkpoint, part: Literal["val", "test", "all"]
) -> list[PatientRecord]:
    """The patients of one part of the checkpoint's own split, or every patient of the data set.

    `all` warns when the training saw some of them: figures on those are no evidence.

    Raises:
        DataError: the split names patients that the data set does not have, or none.
    """
    from fundus_training.data.splits import select_part
    from fundus_training.errors import DataError

    if part == "all":
        _say_who_was_seen(records, checkpoint)
        return list(records.records)
    chosen = select_part(records.records, checkpoint.split, part)
    if not chosen:
        raise DataError(
            f"the checkpoint's split has no {part} patients; choose another split, or train with "
            "a share for it"
        )
    return chosen


def _say_who_was_seen(records: RecordSet, checkpoint: Checkpoint) -> None:
    ids = {record.id for record in records.records}
    trained = len(ids & set(checkpoint.split.train))
    tuned = len(ids & set(checkpoint.split.val))
    if trained or tuned:
        _LOG.warning(
            "THESE FIGURES ARE TOO GOOD: by their ids, %d of the %d patients were trained on and "
            "%d served to choose and calibrate the model; use --split test for evidence",
            trained,
            len(ids),
            tuned,
        )
    else:
        _LOG.info("none of the %d patients is in the checkpoint's split: a foreign set", len(ids))
