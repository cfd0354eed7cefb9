"""`fundus-export engine`: build a bundle's TensorRT plans on the device that will run them.

The plans are a cache for this device, beside the bundle. They are kept only when every convolution
and matrix product runs in the precision that the graph gives it, and the engine answers the
bundle's golden pairs as the validated model did; with --data also only within the certificate's
limits. Ctrl-C leaves the previous plans as they were.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundus_runtime.commands.program import run_program
from fundus_training.commands.inputs import positive_int

__all__ = ["add_parser", "main", "run"]


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "engine",
        help="build TensorRT plans on this device",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command alone, as `export/build_engine.py` does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_options(parser)
    args = parser.parse_args(argv)
    return run_program(
        "build_engine", lambda: run(args), when_interrupted="the previous plans are as they were"
    )


def run(args: argparse.Namespace) -> int:
    """Build the plans, or say what would be built, and print the report.

    Raises:
        FundusError: something is missing, or a check failed; the previous plans are as they were.
    """
    from fundus_export.tensorrt.options import EngineOptions
    from fundus_runtime.bundle import Bundle

    _require_onnx()
    options = EngineOptions(
        precision=args.precision,
        max_batch=args.max_batch,
        workspace_mb=args.workspace_mb,
        timing_cache=args.timing_cache,
        optimization_level=args.opt_level,
        tactic_sources=args.tactic_sources,
    )
    bundle = Bundle.open(args.bundle, require_trust=not args.allow_unsigned)
    if args.dry_run:
        from fundus_export.tensorrt.dry_run import dry_run

        print(dry_run(bundle, options, args.data))
        return 0
    return _build(bundle, options, args)


def _require_onnx() -> None:
    from fundus_export.errors import ExportError

    try:
        import onnx  # noqa: F401  # on robots it is installed for this command alone
    except ImportError as error:
        raise ExportError(
            f"onnx is missing ({error}), which graphs are read with; install it: "
            'pip install "fundus-edge[engine]"'
        ) from error


def _build(bundle: Any, options: Any, args: argparse.Namespace) -> int:
    from fundus_export.tensorrt.builder import build_engine
    from fundus_export.tensorrt.checks import prepare_certificate
    from fundus_export.tensorrt.machine import open_machine
    from fundus_export.tensorrt.progress import terminate_as_interrupt
    from fundus_export.tensorrt.strategy import choose_strategy, dialect_of

    with terminate_as_interrupt():
        machine = open_machine()
        certify = None
        if args.data is not None:
            pair = dialect_of(bundle, choose_strategy(machine.features, options.precision))
            certify = prepare_certificate(bundle, pair, args.data, cache_dir=args.cache_dir)
        report = build_engine(bundle, options, machine, certify=certify, force=args.force)
    print(json.dumps(report.to_dict(), indent=1) if args.json else report.in_words())
    return 0


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle")
    parser.add_argument(
        "--precision",
        choices=("fp32", "tf32", "fp16", "int8"),
        required=True,
        help="of convolutions and matrix products; fp32 has TF32 cleared",
    )
    parser.add_argument(
        "--max-batch",
        type=positive_int,
        default=2,
        metavar="N",
        help="largest batch; a pair of eyes is 2 (default: %(default)s)",
    )
    parser.add_argument(
        "--workspace-mb",
        type=positive_int,
        default=1024,
        metavar="N",
        help="memory that a layer may use while it runs (default: %(default)s)",
    )
    parser.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="measured kernels, read and written"
    )
    parser.add_argument(
        "--opt-level", type=int, metavar="N", help="0 builds fast, 5 runs fast (8.6 and later)"
    )
    parser.add_argument(
        "--tactic-sources",
        type=_names,
        metavar="A,B",
        help="where kernels may come from, such as EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="make the certificate on its validation patients"
    )
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where crops are cached")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be built; needs no GPU"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="build from a bundle that nobody vouches for; the runtime loads no such plans",
    )
    parser.add_argument("--force", action="store_true", help="build again what is there already")
    parser.set_defaults(run=run)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("name at least one")
    return names
