"""Every trunk exports, to as many operators as it has layers and to none that engines dislike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from small_graphs import drawn, range_of, run
from torch import nn

from fundus_export.dialect_check import check_dialect
from fundus_export.graph_view import GraphView
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.islands import island_of
from fundus_export.quantise.dialects import measured_tensors, product_names, write_dialect
from fundus_export.quantise.ranges import RangeMethod
from fundus_export.quantise.recipe import PARTS, Recipe
from fundus_export.quantise.scheme import DIALECTS, INT8_DIALECTS
from fundus_runtime.canonical import sha256_hex
from fundus_training.models import DMSNet, folded_copy
from fundus_training.models.trunks import TRUNKS
from fundus_training.presets import preset

# Layers, and OSIM's pools, resizes, sums and gate around them.
ENCODER = {
    *("Add", "Clip", "Concat", "Conv", "Gemm", "MatMul", "MaxPool", "Mul", "ReduceMax"),
    *("ReduceMean", "Relu", "Reshape", "Sigmoid"),
}
HEAD = ENCODER - {"Clip"} | {
    *("Abs", "AveragePool", "Div", "Greater", "Neg", "ReduceSum", "Softmax", "Sqrt", "Sub"),
    *("Transpose", "Unsqueeze", "Where"),
}
SIZE = 64
# downsampling basic blocks and grouped bottlenecks; the other blocks are quantised elsewhere
IN_ALL_DIALECTS = ("resnet34", "resnext50_32x4d")


def model_of(trunk: str) -> DMSNet:
    """With norms that saw pictures, so that activations are of an ordinary size."""
    torch.manual_seed(0)
    model = DMSNet(replace(preset("tiny").model, trunk=trunk, image_size=SIZE, num_classes=3))
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches from the first on
    with torch.no_grad():
        for _ in range(3):
            features, _ = model.encode(torch.rand(4, 3, SIZE, SIZE) * 2 - 1)
            model.fuse(features, features.flip(0), torch.ones(4), torch.ones(4))
    return model.eval()


def operators(graphs: GraphBytes, part: str) -> Counter[str]:
    graph = onnx.load_from_string(getattr(graphs, part)).graph
    return Counter(node.op_type for node in graph.node)


def recipe_of(source: GraphBytes) -> Recipe:
    """Measured on noise."""
    feeds, ranges = {"image": drawn(1, 3, SIZE, SIZE)}, {}
    for part in PARTS:
        model = onnx.load_from_string(getattr(source, part))
        tensors = measured_tensors(source)[part]
        computed = [tensor for tensor in tensors if tensor not in feeds]
        values = {**feeds, **run(model, feeds, tensors=computed)}
        ranges[part] = {tensor: range_of(values[tensor]) for tensor in tensors}
        if part == "encoder":
            features, ones = run(model, feeds)["features"], np.ones(1, np.float32)
            feeds = {"features_left": features, "features_right": features[:, :, ::-1].copy()}
            feeds |= {"left_present": ones, "right_present": ones}
    graphs = {part: sha256_hex(getattr(source, part)) for part in PARTS}
    return Recipe(graphs, "0" * 64, {"files": []}, RangeMethod("minmax"), ranges)


# the export alone takes about ten seconds each
@pytest.mark.slow
@pytest.mark.parametrize("trunk", TRUNKS)
def test_a_trunk_exports_to_its_layers_and_nothing_else(trunk: str) -> None:
    model = model_of(trunk)
    source = export_graphs(model)
    encoder = operators(source, "encoder")
    assert set(encoder) <= ENCODER
    assert set(operators(source, "head")) <= HEAD
    layers = Counter(type(module) for module in folded_copy(model).trunk.modules())
    assert layers[nn.BatchNorm2d] == 0
    # five of OSIM's: the map's own share, the global pools', both scales', and the gate
    assert encoder["Conv"] == layers[nn.Conv2d] + 5
    assert encoder["Clip"] == layers[nn.ReLU6]
    assert encoder["MaxPool"] == layers[nn.MaxPool2d]
    assert encoder["MatMul"] <= 4
    assert encoder["Gemm"] == 1
    if trunk in IN_ALL_DIALECTS:
        keeps_every_dialect(source)


def keeps_every_dialect(source: GraphBytes) -> None:
    recipe = recipe_of(source)
    for dialect in DIALECTS:
        written = write_dialect(source, dialect, recipe)
        for part in PARTS:
            fp32 = GraphView(onnx.load_from_string(getattr(source, part)))
            islands = island_of(fp32, recipe.largest(part))
            found = onnx.load_from_string(getattr(written, part))
            assert check_dialect(found, dialect, graph=part, islands=islands) == ()
    convolutions = operators(source, "encoder")["Conv"]
    for dialect in INT8_DIALECTS:
        quantised = product_names(source, dialect)["encoder"]
        # depthwise kernels on the last small maps are not worth it
        assert len(quantised) > 0.6 * convolutions
