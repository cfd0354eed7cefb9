"""The graphs are what was asked for: names, opset, inline weights, dynamic batch, same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import fundus_export
from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_training.models import DMSNet
from fundus_training.presets import preset

CONFIG = replace(preset("tiny").model, trunk="mobilenet_v2", num_classes=3)
# Its graphs are written in a third of the time.
SMALL = replace(CONFIG, trunk="resnet18", ccam=False, ciam=False)
SIDES = ("encoder", "head")
# Control flow, shapes computed at run time, pooling and resizing of unknown windows, and training
# operators: engines on the edge refuse these or run them slowly.
UNWANTED = {
    *("If", "Loop", "Scan", "Shape", "Range", "NonZero", "GatherND", "ScatterND", "Resize"),
    *("AdaptiveAveragePool", "BatchNormalization", "Dropout", "Identity", "Einsum", "Expand"),
}


@pytest.fixture(scope="module")
def model() -> DMSNet:
    torch.manual_seed(0)
    return DMSNet(CONFIG)


@pytest.fixture(scope="module")
def graphs(model: DMSNet) -> GraphBytes:
    return export_graphs(model)


def _proto(graphs: GraphBytes, side: str) -> onnx.ModelProto:
    return onnx.load_from_string(getattr(graphs, side))


def _shape(value: onnx.ValueInfoProto) -> list[Any]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_the_opset_is_the_one_that_was_asked_for(graphs: GraphBytes) -> None:
    torch.manual_seed(0)
    small = DMSNet(SMALL)
    older, newer = (export_graphs(small, opset=opset) for opset in (17, 19))
    for exported, opset in ((older, 17), (graphs, 18), (newer, 19)):
        assert exported.opset == opset
        for side in SIDES:
            used = {entry.domain: entry.version for entry in _proto(exported, side).opset_import}
            assert used == {"": opset}
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    of_older, of_newer = (_answers(some, images, np.ones(2, np.float32)) for some in (older, newer))
    for came, expected in zip(of_older, of_newer, strict=True):
        np.testing.assert_allclose(came, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [16, 20])
def test_another_opset_is_refused_before_anything_is_exported(model: DMSNet, opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} was asked for; .* opset 17, 18, 19"):
        export_graphs(model, opset=opset)


def test_names_shapes_and_types_are_the_runtimes(graphs: GraphBytes) -> None:
    encoder, head = (_proto(graphs, side).graph for side in SIDES)
    side, channels, grid = CONFIG.image_size, CONFIG.feature_channels, CONFIG.grid
    batch = _shape(encoder.input[0])[0]
    assert isinstance(batch, str)
    found = {value.name: _shape(value) for value in (*encoder.input, *encoder.output)}
    assert found == {
        "image": [batch, 3, side, side],
        "features": [batch, channels, grid, grid],
        "eye_logits": [batch, 3],
        "eye_maps": [batch, 3, grid, grid],
    }
    batch = _shape(head.input[0])[0]
    assert isinstance(batch, str)
    found = {value.name: _shape(value) for value in (*head.input, *head.output)}
    assert found == {
        "features_left": [batch, channels, grid, grid],
        "features_right": [batch, channels, grid, grid],
        "left_present": [batch],
        "right_present": [batch],
        "logits": [batch, 3],
    }
    kinds = {
        value.type.tensor_type.elem_type
        for graph in (encoder, head)
        for value in (*graph.input, *graph.output)
    }
    assert kinds == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("side", SIDES)
def test_weights_are_inside(graphs: GraphBytes, side: str) -> None:
    weights = _proto(graphs, side).graph.initializer
    assert sum(len(weight.raw_data) for weight in weights) > 1_000_000
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in weights)
    assert not any(weight.external_data for weight in weights)


@pytest.mark.parametrize("side", SIDES)
def test_no_operator_needs_more_than_plain_inference(graphs: GraphBytes, side: str) -> None:
    used = {node.op_type for node in _proto(graphs, side).graph.node}
    assert used & UNWANTED == set()
    assert used & {"Conv", "MatMul", "Gemm"}


def test_the_same_model_gives_the_same_bytes_and_is_left_as_it_is(
    model: DMSNet, graphs: GraphBytes
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    assert export_graphs(model) == graphs
    assert model.training
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("side", SIDES)
def test_nothing_tells_of_the_machine_that_exported(graphs: GraphBytes, side: str) -> None:
    data: bytes = getattr(graphs, side)
    places = {Path.home(), Path.cwd(), Path(torch.__file__).parent}
    places |= {Path(fundus_export.__file__).parents[1]}
    for place in (*map(str, places), "site-packages", ".py", "Traceback", "stack_trace"):
        assert place.encode() not in data


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_gives_pytorchs_numbers(model: DMSNet, graphs: GraphBytes, batch: int) -> None:
    images = np.random.default_rng(batch).normal(size=(batch, 3, 64, 64)).astype(np.float32)
    present = (np.arange(batch) % 2).astype(np.float32)
    model.eval()
    with torch.inference_mode():
        features, eye_logits, eye_maps = model.encode(torch.from_numpy(images))
        ones = torch.ones(batch)
        logits = model.fuse(features, features.flip(0), ones, torch.from_numpy(present))
    assert eye_logits is not None
    assert eye_maps is not None
    # FP32 sums in another order: a few units in the sixth place
    for came, expected in zip(
        _answers(graphs, images, present), (features, eye_logits, eye_maps, logits), strict=True
    ):
        np.testing.assert_allclose(came, expected.numpy(), rtol=1e-4, atol=1e-5)


def _answers(graphs: GraphBytes, images: np.ndarray, right_present: np.ndarray) -> list[Any]:
    """Features, logits and maps of eyes; logits of patients whose right eye is another's."""
    backend = OnnxRuntimeBackend(graphs.encoder, graphs.head, size=64, class_count=3, threads=1)
    try:
        features, eye_logits, eye_maps = backend.encode(images, ["left"] * len(images))
        flipped = np.ascontiguousarray(features[::-1])
        fused = backend.fuse(features, flipped, np.ones(len(images), np.float32), right_present)
    finally:
        backend.close()
    return [features, eye_logits, eye_maps, fused]


def test_eyes_that_are_treated_differently_share_one_graph_that_asks_which_it_sees() -> None:
    torch.manual_seed(0)
    model = DMSNet(replace(SMALL, osim_weights="per_eye", auxiliary_head=False))
    graphs = export_graphs(model)
    encoder = _proto(graphs, "encoder").graph
    batch = _shape(encoder.input[0])[0]
    assert {value.name: _shape(value) for value in (*encoder.input, *encoder.output)} == {
        "image": [batch, 3, 64, 64],
        "is_left": [batch],
        "features": [batch, SMALL.feature_channels, SMALL.grid, SMALL.grid],
    }
    # the trunk once, both eyes' reductions, and a choice between them
    trunk = [module for module in model.trunk.modules() if isinstance(module, torch.nn.Conv2d)]
    reductions = 2 * len(("own", "pooled", "medium", "coarse", "attention"))
    operators = [node.op_type for node in encoder.node]
    assert operators.count("Conv") == len(trunk) + reductions
    assert operators.count("Where") == 1
