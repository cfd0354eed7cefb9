"""Measures a model's activations on calibration photographs and makes a recipe of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fundus_export.graphs import GraphBytes
from fundus_export.quantise.dialects import measured_tensors
from fundus_export.quantise.feeds import eye_feeds, feature_pair_count, feature_pairs
from fundus_export.quantise.images import CalibrationImages
from fundus_export.quantise.range_cache import RangeKey, cache_file, load_or_measure
from fundus_export.quantise.ranges import RangeMethod, TensorRange, measure_ranges
from fundus_export.quantise.recipe import PARTS, Recipe, rounded_ranges
from fundus_runtime.canonical import sha256_hex

__all__ = ["make_recipe"]


def make_recipe(
    source: GraphBytes,
    images: CalibrationImages,
    method: RangeMethod,
    *,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Recipe:
    """Measure encoder and head, and write down with what.

    Args:
        source: the FP32 graphs.
        images: prepared by the checkpoint's own preprocessing.
        method: how ranges are chosen.
        cache_dir: where measured ranges are kept; None keeps none.
        progress: show progress bars on stderr.

    Raises:
        ExportError: an activation is NaN or infinite, or a cached file does not fit.
    """
    tensors = measured_tensors(source)
    ranges = {
        part: rounded_ranges(
            _ranges(source, part, images, method, tensors[part], cache_dir, progress)
        )
        for part in PARTS
    }
    return Recipe(
        graphs={part: sha256_hex(getattr(source, part)) for part in PARTS},
        preprocess_sha256=images.spec.sha256,
        images={
            "sha256": images.sha256,
            "eyes": len(images.files),
            "pairs": len(images.pair_files),
            "files": [{"sha256": file.sha256} for file in images.files],
        },
        method=method,
        ranges=ranges,
    )


def _ranges(
    source: GraphBytes,
    part: str,
    images: CalibrationImages,
    method: RangeMethod,
    tensors: Sequence[str],
    cache_dir: str | Path | None,
    progress: bool,
) -> dict[str, TensorRange]:
    graph = getattr(source, part)
    encoder = source.encoder if part == "head" else None
    key = RangeKey.of(graph, images, method, tensors, encoder=encoder)

    def measure() -> dict[str, TensorRange]:
        return measure_ranges(
            graph,
            lambda: feature_pairs(encoder, images) if encoder else eye_feeds(graph, images),
            tensors,
            method,
            total=len(images.files) if encoder is None else feature_pair_count(images),
            describe=f"calibrating {part}",
            progress=progress,
        )

    path = None if cache_dir is None else cache_file(cache_dir, key)
    return load_or_measure(key, measure, path=path)
