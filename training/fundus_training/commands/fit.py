"""`fundus-train fit`: train DMS-Net on a data set, by a preset or a config file.

The patients are split before anything else; the split's ids are stored in every checkpoint. A run
that was interrupted goes on with --resume and ends with the same numbers.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_training.commands.inputs import positive_int, require_device

if TYPE_CHECKING:
    from fundus_training.fit import FitResult
    from fundus_training.presets import RunConfig

__all__ = ["add_parser", "run"]

_LOG = logging.getLogger(__name__)

_PRESETS = ("paper", "paper-448", "edge", "tiny")


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "fit",
        help="train a model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="data set, or its annotation file")
    parser.add_argument("--preset", choices=_PRESETS, default="edge", help="default: %(default)s")
    parser.add_argument("--config", type=Path, metavar="FILE", help="JSON over the preset's values")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run; it is made")
    parser.add_argument(
        "--init-weights",
        type=Path,
        metavar="FILE",
        help="pretrained trunk, or a checkpoint to go on from",
    )
    parser.add_argument("--epochs", type=positive_int, metavar="N", help="instead of the preset's")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="use N patients")
    parser.add_argument(
        "--classes", metavar="A,B,...", help="label columns of a plain CSV, in this order"
    )
    parser.add_argument(
        "--no-regularisation",
        action="store_true",
        help="augmentation, dropout, decay, smoothing and averaging off: can the model fit at all?",
    )
    former = parser.add_mutually_exclusive_group()
    former.add_argument("--resume", action="store_true", help="go on with the run in --out")
    former.add_argument("--force", action="store_true", help="replace the run in --out")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where crops are cached")
    parser.add_argument("--dump-config", action="store_true", help="print what would run, and stop")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and print where the checkpoints are.

    Raises:
        FundusError: config, data, weights or folder cannot be used as asked.
    """
    from fundus_runtime.errors import UsageError

    if not args.dump_config and (args.data is None or args.out is None):
        raise UsageError("fit needs --data and --out (only --dump-config does without)")

    from fundus_training.data.records import limit_records, load_records
    from fundus_training.fit import Fit
    from fundus_training.memory import keep_freed_memory

    config = _config(args)
    if args.dump_config:
        print(json.dumps(config.to_dict(), indent=2))
        return 0
    _require_usable(args.out, resume=args.resume, force=args.force)
    device = _device(args.device)
    if device == "cpu":
        keep_freed_memory()
    classes = [name.strip() for name in args.classes.split(",")] if args.classes else None
    data = load_records(args.data, classes)
    if args.limit is not None:
        data = limit_records(data, args.limit)
    if args.init_weights is None and not args.resume:
        _LOG.warning("no --init-weights: the trunk starts from random numbers")
    fit = Fit(
        config,
        data,
        args.out,
        device=device,
        init_weights=args.init_weights,
        cache_dir=args.cache_dir,
    )
    result = fit.run(resume=args.resume)
    print(_summary(result, args.data))
    return 0


def _summary(result: FitResult, data: Path) -> str:
    """Where the best checkpoint is, how good it is, and what to do next."""
    best = max(result.history, key=lambda row: row.get("val_score", row["epoch"]))
    words = {"val_macro_auc": "macro AUC", "val_challenge_final": "challenge score"}
    figures = [f"{words[name]} {best[name]:.3f}" for name in words if name in best]
    return (
        f"{result.best} ({result.best.stat().st_size / 1e6:.1f} MB): epoch {best['epoch']:.0f} of "
        f"{len(result.history)}, on the validation patients before calibration: "
        f"{', '.join(figures) or 'no figure is defined'}\n"
        f"next: fundus-train calibrate --checkpoint {result.best} --data {data}"
    )


def _config(args: argparse.Namespace) -> RunConfig:
    from fundus_training.errors import ConfigError
    from fundus_training.presets import RunConfig, preset

    config = preset(args.preset)
    if args.config is not None:
        try:
            values = json.loads(args.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{args.config} cannot be read as JSON: {error}") from error
        config = RunConfig.from_dict(values, base=config)
    if args.epochs is not None:
        config = config.with_train(epochs=args.epochs)
    return config.unregularised() if args.no_regularisation else config


def _device(asked: str) -> str:
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    require_device(asked)
    return asked


def _require_usable(out: Path, *, resume: bool, force: bool) -> None:
    from fundus_runtime.errors import UsageError
    from fundus_training.fit import RUN_FILES

    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is no folder; choose another --out")
    if not (resume or force) and any((out / name).exists() for name in RUN_FILES):
        raise UsageError(
            f"{out} holds a run already; go on with --resume, replace it with --force, "
            "or choose another --out"
        )
