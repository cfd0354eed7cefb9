"""How fast this machine could be: its peaks, and the least time of each stage that follows.

    python benchmarks/limits.py
    python benchmarks/limits.py --model edge --seconds 5

Measures the machine's peaks, counts what the graphs of the edge and the ResNet-152 model have to
do, and writes part `limits` of a run. Leave the machine alone meanwhile: a peak is a maximum, so
that a busy moment does no harm, but a busy minute does. On a GPU, where PyTorch or ONNX Runtime
sees one, the same for the dialects of TensorRT.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_benchmarks.results.run_file import default_folder, new_part, write_part
from fundus_runtime.commands.arguments import positive_integer, positive_number

if TYPE_CHECKING:
    from fundus_benchmarks.limits.gpu_peaks import GpuPeaks
    from fundus_benchmarks.limits.peaks import Peaks

_MODELS = ("edge", "paper")
_SECONDS = 20.0
_GPU_DIALECTS = ("fp16", "int8-trt")
_NO_GPU = "neither PyTorch nor ONNX Runtime sees a CUDA GPU"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, count, write the part, print a table."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from fundus_benchmarks.limits.gpu_peaks import find_gpu, measure_gpu
    from fundus_benchmarks.limits.peaks import measure_peaks
    from fundus_runtime.backends.settings import default_threads

    threads = args.threads or default_threads()
    peaks = measure_peaks(threads=threads, seconds=args.seconds)
    device = find_gpu()
    gpu = None if device is None else measure_gpu(device, seconds=args.seconds / 4)
    part = new_part(
        "limits",
        list(_rows(args.model or _MODELS, peaks, gpu)),
        command=_command(args),
        settings={"threads": threads, "seconds": args.seconds},
        missing=_missing(peaks, gpu),
        peaks=peaks.to_dict(),
        peaks_by=peaks.named(),
        gpu_peaks=None if gpu is None else {"by": gpu.by, **gpu.figures},
        measured=[vars(one) for one in peaks.measured],
    )
    path = write_part(part, args.out)
    print(json.dumps(part, indent=1) if args.json else _text(part))
    print(f"wrote {path}", file=sys.stderr)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", choices=_MODELS, help="default: both")
    parser.add_argument(
        "--seconds",
        type=positive_number,
        default=_SECONDS,
        help="of measuring (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=positive_integer, help="default: as many as the runtime takes"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=default_folder(),
        metavar="FOLDER",
        help="of the run's parts (default: build/benchmarks/run)",
    )
    parser.add_argument("--json", action="store_true", help="print the part instead of a table")
    return parser


def _rows(models: Sequence[str], peaks: Peaks, gpu: GpuPeaks | None) -> Iterator[dict[str, Any]]:
    from fundus_benchmarks.contenders.models import fp32_graphs, model_named
    from fundus_benchmarks.limits.stage_limits import (
        cpu_rates,
        crop_bytes,
        gpu_rates,
        preprocessing_row,
        stage_rows,
    )

    yield preprocessing_row(peaks, crop_bytes())
    on_gpu = None if gpu is None else gpu_rates(gpu)
    for name in models:
        model = model_named(name)
        model.trust()
        forms = _forms(model.bundle)
        yield from stage_rows(name, "fp32", fp32_graphs(model), cpu_rates(peaks))
        yield from stage_rows(name, "int8-cpu", forms["int8-cpu"], cpu_rates(peaks))
        if on_gpu is not None:
            for dialect in _GPU_DIALECTS:
                yield from stage_rows(name, dialect, forms[dialect], on_gpu)


def _forms(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    """Encoder and head of a bundle by dialect."""
    from fundus_runtime.bundle import Bundle

    bundle = Bundle.open(folder)
    forms = bundle.manifest.graphs.values()
    return {form.dialect: bundle.graph_bytes(form) for form in forms}


def _missing(peaks: Peaks, gpu: GpuPeaks | None) -> list[dict[str, str]]:
    on_gpu = ({"what": "peaks of a GPU", "why": _NO_GPU},) if gpu is None else gpu.missing
    return [*peaks.missing, *on_gpu]


def _command(args: argparse.Namespace) -> str:
    words = [f"--model {name}" for name in args.model or ()]
    words += [f"--threads {args.threads}"] if args.threads else []
    return " ".join(["python benchmarks/limits.py", *words, f"--seconds {args.seconds:g}"])


def _text(part: Mapping[str, Any]) -> str:
    machine, peaks = part["machine"], part["peaks"]
    lines = [
        f"{machine['device'] or machine['processor']}, {peaks['threads_all']} threads",
        "",
        *(f"  {name:<16} {peaks[name]:9.1f}  {by}" for name, by in part["peaks_by"].items()),
        "",
        f"  {'model':<6} {'dialect':<9} {'stage':<13} {'GOP':>7} {'in INT8':>7} {'weights':>8} "
        f"{'moved':>8} {'work':>8} {'bytes':>8} {'limit':>8}",
        f"  {'':<6} {'':<9} {'':<13} {'':>7} {'':>7} {'MB':>8} {'MB':>8} {'ms':>8} {'ms':>8} "
        f"{'ms':>8}",
    ]
    lines += [_line(row) for row in part["rows"]]
    lines += [f"missing: {one['what']}: {one['why']}" for one in part["missing"]]
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    operations = row["operations"]
    share = f"{row['operations_int8'] / operations:7.0%}" if operations else f"{'':>7}"
    count = f"{operations / 1e9:7.2f}" if operations else f"{'':>7}"
    operations_ms = row["least_ms_operations"]
    least = f"{'':>8}" if operations_ms is None else f"{operations_ms:8.2f}"
    return (
        f"  {row['model'] or '':<6} {row['dialect'] or '':<9} {row['stage']:<13} {count} {share} "
        f"{row['weight_bytes'] / 1e6:8.2f} {row['activation_bytes'] / 1e6:8.2f} {least} "
        f"{row['least_ms_bytes']:8.2f} {row['limit_ms']:8.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
