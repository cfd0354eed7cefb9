"""Every trunk exports, to as many operators as it has layers and to none that engines dislike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import onnx
import pytest
import torch
from torch import nn

from fundus_export.graphs import GraphBytes, export_graphs
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
            features = model.encode(torch.rand(4, 3, SIZE, SIZE) * 2 - 1).features
            model.fuse(features, features.flip(0), torch.ones(4), torch.ones(4))
    return model.eval()


def operators(graphs: GraphBytes, part: str) -> Counter[str]:
    graph = onnx.load_from_string(getattr(graphs, part)).graph
    return Counter(node.op_type for node in graph.node)


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
    # five of OSIM's: the map's own share, the global pools', both scales', and the gate; and the
    # auxiliary head, whose logits are the mean of its map
    assert encoder["Conv"] == layers[nn.Conv2d] + 6
    assert encoder["Clip"] == layers[nn.ReLU6]
    assert encoder["MaxPool"] == layers[nn.MaxPool2d]
    assert encoder["MatMul"] <= 4
    assert encoder["Gemm"] == 0
