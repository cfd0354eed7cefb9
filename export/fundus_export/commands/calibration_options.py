"""The options of `fundus-export bundle` that say how INT8 is made, and that none is without effect.

An option that does nothing for the forms that were asked for is wrong usage: whoever gives one
means something by it. Nothing heavy is imported here, so that this is told at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fundus_export.quantise.scheme import DIALECTS_OF_PRECISION, INT8_DIALECTS
from fundus_runtime.errors import UsageError
from fundus_training.commands.inputs import positive_int

if TYPE_CHECKING:
    from fundus_export.quantise.ranges import RangeMethod

__all__ = [
    "add_calibration_options",
    "calibration_limit",
    "dialects_asked_for",
    "is_calibrated",
    "range_method",
    "require_options_used",
]

_METHOD: Literal["minmax"] = "minmax"
_PERCENTILE, _LIMIT = 99.99, 256
_CALIBRATING = ("--calibration", "--method", "--percentile", "--calibration-limit")


def add_calibration_options(parser: argparse.ArgumentParser) -> None:
    """Add them; None stands for what was not given."""
    group = parser.add_argument_group("calibration of INT8")
    group.add_argument(
        "--calibration", type=Path, metavar="DIR", help="folder of photographs to calibrate on"
    )
    group.add_argument(
        "--method",
        choices=("minmax", "percentile"),
        help=f"how ranges are chosen (default: {_METHOD})",
    )
    group.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help=f"of --method percentile (default: {_PERCENTILE})",
    )
    group.add_argument(
        "--calibration-limit",
        type=positive_int,
        metavar="N",
        help=f"photographs to use at most (default: {_LIMIT})",
    )
    group.add_argument(
        "--recipe",
        type=Path,
        metavar="JSON",
        help="a bundle's graphs/recipe.json, to repeat its calibration and raised layers instead",
    )


def dialects_asked_for(args: argparse.Namespace) -> tuple[str, ...]:
    """Those of --dialect, else those of --precision."""
    return tuple(dict.fromkeys(args.dialect)) or DIALECTS_OF_PRECISION[args.precision]


def is_calibrated(args: argparse.Namespace) -> bool:
    """Whether the forms need measured ranges: INT8 always, FP16 where some are offered."""
    dialects = set(dialects_asked_for(args))
    offered = args.calibration is not None or args.recipe is not None
    return bool(dialects & set(INT8_DIALECTS)) or (offered and "fp16" in dialects)


def range_method(args: argparse.Namespace) -> RangeMethod:
    """How ranges are chosen.

    Raises:
        ExportError: the percentile is none.
    """
    from fundus_export.quantise.ranges import RangeMethod

    percentile = _PERCENTILE if args.percentile is None else args.percentile
    return RangeMethod(args.method or _METHOD, percentile)


def calibration_limit(args: argparse.Namespace) -> int:
    """Photographs to use at most."""
    return int(args.calibration_limit or _LIMIT)


def require_options_used(args: argparse.Namespace) -> None:
    """Refuse options that would do nothing.

    Raises:
        UsageError: there is one; says why, and what to do.
    """
    dialects = dialects_asked_for(args)
    calibrating = _given(args, *_CALIBRATING)
    if not is_calibrated(args) and (idle := calibrating or _given(args, "--recipe")):
        raise UsageError(
            f"{idle[0]} has no effect on {', '.join(dialects)}; leave it out, or ask for INT8 with "
            "--precision int8"
        )
    if args.recipe is not None and calibrating:
        raise UsageError(
            f"{calibrating[0]} has no effect beside --recipe, which holds the ranges that were "
            "measured; give one of the two"
        )
    if args.percentile is not None and args.method != "percentile":
        raise UsageError("--percentile has no effect without --method percentile; add it")
    if args.data is None and (idle := _given(args, "--limits", "--pairs")):
        raise UsageError(f"{idle[0]} has no effect without --data DIR; add it, or leave it out")
    if args.limits is not None and set(dialects) == {"fp32"}:
        raise UsageError(
            "--limits has no effect where fp32 is the only form, which is not certified; leave it "
            "out, or carry other forms too"
        )
    if args.passphrase_env is not None and args.sign_with is None:
        raise UsageError("--passphrase-env has no effect without --sign-with FILE; add it")


def _given(args: argparse.Namespace, *options: str) -> list[str]:
    values = {option: option.removeprefix("--").replace("-", "_") for option in options}
    return [option for option, name in values.items() if getattr(args, name) is not None]
