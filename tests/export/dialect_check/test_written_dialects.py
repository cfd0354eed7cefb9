"""The graphs that the quantiser really writes keep their dialects, and compute in INT8 on a CPU."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from dialect_graphs import DIALECTS

from fundus_export.dialect_check import UntrustedView, check_dialect, raised_layers
from fundus_export.dialect_check.pairs import origin_of, products
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.quantise.dialects import measured_tensors, write_dialect
from fundus_export.quantise.ranges import RangeMethod, measure_ranges
from fundus_export.quantise.recipe import PARTS, Recipe
from fundus_runtime.backends.onnxruntime_session import _CHANGES_THE_MODEL
from fundus_runtime.canonical import sha256_hex
from fundus_training.models import DMSNet, ModelConfig
from fundus_training.presets import preset

TINY = replace(preset("tiny").model, num_classes=3)
# basic blocks, grouped bottlenecks with downsampling convolutions, linear ones; a side that makes
# layers large enough to be worth quantising
CONFIGS = {
    trunk: replace(TINY, trunk=trunk, image_size=128)
    for trunk in ("resnet18", "resnext50_32x4d", "mobilenet_v2")
}
FEEDS = 2

pytestmark = pytest.mark.slow


def feeds(config: ModelConfig, part: str) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(0)
    for _ in range(FEEDS):
        if part == "encoder":
            yield {"image": random.normal(size=(1, 3, *2 * [config.image_size])).astype(np.float32)}
            continue
        shape = (1, config.feature_channels, config.grid, config.grid)
        eyes = {f"features_{eye}": random.random(shape, np.float32) for eye in ("left", "right")}
        yield {**eyes, **{f"{eye}_present": np.ones(1, np.float32) for eye in ("left", "right")}}


def recipe_of(source: GraphBytes, config: ModelConfig) -> Recipe:
    ranges = {
        part: measure_ranges(
            getattr(source, part),
            lambda part=part: feeds(config, part),  # type: ignore[misc]
            tensors,
            RangeMethod("minmax"),
            total=FEEDS,
            progress=False,
        )
        for part, tensors in measured_tensors(source).items()
    }
    graphs = {part: sha256_hex(getattr(source, part)) for part in PARTS}
    return Recipe(graphs, "0" * 64, {"sha256": "0" * 64, "files": []}, RangeMethod(), ranges)


@pytest.fixture(scope="module", params=list(CONFIGS))
def written(request: pytest.FixtureRequest) -> dict[str, GraphBytes]:
    """All dialects of a model with random weights."""
    config = CONFIGS[request.param]
    torch.manual_seed(0)
    source = export_graphs(DMSNet(config))
    recipe = recipe_of(source, config)
    return {dialect: write_dialect(source, dialect, recipe) for dialect in DIALECTS}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_the_quantiser_writes_keeps_its_dialect(
    written: dict[str, GraphBytes], dialect: str
) -> None:
    for part in PARTS:
        model = onnx.load_from_string(getattr(written[dialect], part))
        assert check_dialect(model, dialect, graph=part) == ()
        view = UntrustedView(model)
        weighted = sum(product.has_weight for product in products(view))
        # most of the encoder is quantised, whatever is too small or too near the end is not
        if dialect.startswith("int8") and part == "encoder":
            assert len(raised_layers(view)) < weighted / 2


@pytest.mark.parametrize("part", PARTS)
def test_every_quantised_convolution_becomes_an_integer_kernel(
    written: dict[str, GraphBytes], part: str, tmp_path: Path
) -> None:
    data = getattr(written["int8-cpu"], part)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"], disabled_optimizers=_CHANGES_THE_MODEL
    )
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    made = collections.Counter(node.op_type for node in nodes)
    view = UntrustedView(onnx.load_from_string(data))
    quantised = collections.Counter(
        product.node.op_type
        for product in products(view)
        if product.has_weight and origin_of(view, product.node.input[product.weight]).is_quantised
    )
    assert quantised["Conv"] > 0
    assert made["QLinearConv"] == quantised["Conv"]
    assert made["QLinearMatMul"] + made["MatMulIntegerToFloat"] == quantised["MatMul"]
    assert made["QGemm"] == quantised["Gemm"]
