"""`fundus-train eye-head`: give a trained model a per-eye output whose heat maps show where.

Its auxiliary head is fitted anew on the training patients of the checkpoint's own split, on the
trunk's map before places mix; nothing else of the model changes. Calibrate the new checkpoint
afterwards.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from fundus_training.commands.inputs import load_matching_records, positive_int, require_free

__all__ = ["add_parser", "run"]

_LOG = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "eye-head",
        help="fit the per-eye output anew so that its heat maps show where",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the data set that it was fitted on"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="new checkpoint")
    parser.add_argument("--batch-size", type=positive_int, default=32, metavar="N")
    parser.add_argument(
        "--cache-dir", type=Path, metavar="DIR", help="where prepared photographs are kept"
    )
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, save and say what comes next.

    Raises:
        FundusError: the checkpoint or the data cannot be used; nothing was written.
    """
    from fundus_training.checkpoint import load_checkpoint, save_checkpoint
    from fundus_training.data.crops import CropStore
    from fundus_training.data.splits import select_part
    from fundus_training.eye_head import with_local_eye_head

    require_free(args.out, force=args.force)
    checkpoint = load_checkpoint(args.checkpoint)
    records = load_matching_records(args.data, checkpoint)
    chosen = select_part(records.records, checkpoint.split, "train")
    store = CropStore.open(chosen, checkpoint.spec, cache_dir=args.cache_dir)
    fitted = with_local_eye_head(checkpoint, chosen, store, batch_size=args.batch_size)
    save_checkpoint(args.out, fitted)
    _LOG.info("wrote %s (%.1f MB)", args.out, args.out.stat().st_size / 1e6)
    print(
        f"{args.out}: per-eye output fitted on the eyes of {len(chosen)} training patients; "
        f"calibrate it: fundus-train calibrate --checkpoint {args.out} --data {args.data}"
    )
    return 0
