"""Size and speed of a model's dialects on ONNX Runtime's CPU provider, in one run.

    python benchmarks/export_speed.py --preset paper
    python benchmarks/export_speed.py --checkpoint bundles/edge/checkpoint.safetensors

A preset's model has random weights, with batch norms that have seen rendered fundi, so that
activations have sensible magnitudes; sizes and times do not depend on what the weights mean. Every
graph is held to its dialect's rules before it is timed. FP32 and INT8 take turns, so that a busy
moment of the machine falls on both. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import onnx

from fundus_benchmarks.contenders.models import random_model
from fundus_export.dialect_check import check_dialect
from fundus_export.errors import ExportError
from fundus_export.graph_view import GraphView
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.half import island_of
from fundus_export.quantise.dialects import write_dialect
from fundus_export.quantise.images import Minimum, open_calibration_images
from fundus_export.quantise.measure import make_recipe
from fundus_export.quantise.ranges import RangeMethod
from fundus_export.quantise.recipe import PARTS, Recipe
from fundus_export.quantise.scheme import DIALECTS
from fundus_export.rendered import render_fundus
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend, default_threads
from fundus_runtime.labels import EYES
from fundus_runtime.preprocess import PreprocessSpec
from fundus_training.checkpoint import build_model, load_checkpoint
from fundus_training.models import DMSNet
from fundus_training.presets import PRESETS

_RENDERED_PAIRS = 16
_WARM_UP = 3
Measured = dict[str, float]
_Value = TypeVar("_Value")


def main(argv: Sequence[str] | None = None) -> int:
    """Write, check and time the dialects; print a table, or JSON."""
    args = _parser().parse_args(argv)
    model, spec = _model(args)
    print("exporting", file=sys.stderr)
    source = export_graphs(model)
    recipe = _recipe(source, spec)
    graphs = {name: _checked(source, name, recipe) for name in args.dialect or DIALECTS}
    timed = {name: graphs[name] for name in args.time if name in graphs}
    times = _timed(timed, model, args.threads, args.seconds)
    report = {
        "machine": f"{_processor()}, {args.threads} threads",
        "onnxruntime": version("onnxruntime"),
        "model": args.preset or str(args.checkpoint),
        "sizes_mb": {
            name: {part: len(getattr(one, part)) / 1e6 for part in PARTS}
            for name, one in graphs.items()
        },
        "p50_ms": times,
    }
    print(json.dumps(report, indent=1) if args.json else _text(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", choices=tuple(PRESETS))
    what.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--dialect", action="append", choices=DIALECTS, help="default: all")
    parser.add_argument(
        "--time", nargs="*", default=["fp32", "int8-cpu"], help="default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing, in all")
    parser.add_argument("--json", action="store_true")
    return parser


def _model(args: argparse.Namespace) -> tuple[DMSNet, PreprocessSpec]:
    if args.checkpoint is None:
        return random_model(args.preset)
    checkpoint = load_checkpoint(args.checkpoint)
    return build_model(checkpoint), checkpoint.spec


def _recipe(source: GraphBytes, spec: PreprocessSpec) -> Recipe:
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(_RENDERED_PAIRS):
            for eye in EYES:
                frame = render_fundus(eye, side=288, seed=100 + seed)
                cv2.imwrite(str(Path(folder, f"{seed}_{eye}.png")), frame[:, :, ::-1])
        minimum = Minimum(2 * _RENDERED_PAIRS, _RENDERED_PAIRS)
        images = open_calibration_images(folder, spec, minimum=minimum)
        return make_recipe(source, images, RangeMethod("minmax"))


def _checked(source: GraphBytes, dialect: str, recipe: Recipe) -> GraphBytes:
    print(f"writing {dialect}", file=sys.stderr)
    graphs = write_dialect(source, dialect, recipe)
    for part in PARTS:
        view = GraphView(onnx.load_from_string(getattr(source, part)))
        islands = island_of(view, recipe.largest(part))
        model = onnx.load_from_string(getattr(graphs, part))
        findings = check_dialect(model, dialect, graph=part, islands=islands)
        if findings:
            raise ExportError(f"{dialect}: {len(findings)} findings, the first {findings[0]}")
    return graphs


def _timed(
    graphs: dict[str, GraphBytes], model: DMSNet, threads: int, seconds: float
) -> dict[str, Measured]:
    config = model.config
    backends = {
        name: OnnxRuntimeBackend(
            one.encoder,
            one.head,
            size=config.image_size,
            class_count=config.num_classes,
            threads=threads,
        )
        for name, one in graphs.items()
    }
    rng = np.random.default_rng(0)
    shape = (2, 3, config.image_size, config.image_size)
    images = rng.standard_normal(shape).astype(np.float32)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in backends}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, backend in backends.items():
            samples[name].append(_once(backend, images))
    return {name: _medians(found[_WARM_UP:]) for name, found in samples.items()}


def _once(backend: OnnxRuntimeBackend, images: np.ndarray) -> tuple[float, float]:
    """Milliseconds of the encoder at batch 2 and of the head."""
    present = np.ones(1, np.float32)
    encoded, encoder_ms = _took(lambda: backend.encode(images, EYES))
    left, right = encoded.features[:1], encoded.features[1:]
    _, head_ms = _took(lambda: backend.fuse(left, right, present, present))
    return encoder_ms, head_ms


def _took(call: Callable[[], _Value]) -> tuple[_Value, float]:
    start = time.perf_counter()
    value = call()
    return value, 1e3 * (time.perf_counter() - start)


def _medians(samples: list[tuple[float, float]]) -> Measured:
    encoder, head = np.median(np.array(samples), axis=0)
    both = np.median(np.sum(samples, axis=1))
    return {"encoder": float(encoder), "head": float(head), "both": float(both)}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _text(report: dict[str, object]) -> str:
    sizes, times = report["sizes_mb"], report["p50_ms"]
    assert isinstance(sizes, dict)
    assert isinstance(times, dict)
    whole = sum(sizes["fp32"].values()) if "fp32" in sizes else None
    lines = [f"{report['model']} on {report['machine']}, onnxruntime {report['onnxruntime']}"]
    for name, parts in sizes.items():
        total = sum(parts.values())
        share = "" if whole is None else f" {total / whole:5.1%} of fp32"
        lines.append(
            f"  {name:<9} encoder {parts['encoder']:6.1f} MB, head {parts['head']:5.1f} MB{share}"
        )
    for name, found in times.items():
        lines.append(
            f"  {name:<9} encoder at batch 2 {found['encoder']:7.2f} ms, head {found['head']:6.2f} "
            f"ms, both {found['both']:7.2f} ms (medians)"
        )
    if {"fp32", "int8-cpu"} <= set(times):
        slow, fast = times["fp32"], times["int8-cpu"]
        ratios = ", ".join(f"{part} {slow[part] / fast[part]:.2f}" for part in slow)
        lines.append(f"  int8-cpu is faster by a factor of: {ratios}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
