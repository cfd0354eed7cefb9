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
from fundus_training.models import DMSNet, ModelConfig
from fundus_training.presets import preset

CONFIG = replace(preset("tiny").model, trunk="mobilenet_v2", num_classes=3)
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


def test_the_opset_is_the_one_that_was_asked_for(model: DMSNet, graphs: GraphBytes) -> None:
    for exported, opset in ((graphs, 18), (export_graphs(model, opset=20), 20)):
        assert exported.opset == opset
        for side in SIDES:
            used = {entry.domain: entry.version for entry in _proto(exported, side).opset_import}
            assert used == {"": opset}


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
        features, eye_logits = model.encode(torch.from_numpy(images))
        ones = torch.ones(batch)
        logits = model.fuse(features, features.flip(0), ones, torch.from_numpy(present))
    assert eye_logits is not None
    backend = OnnxRuntimeBackend(graphs.encoder, graphs.head, size=64, class_count=3, threads=1)
    try:
        encoded = backend.encode(images)
        flipped = np.ascontiguousarray(encoded.features[::-1])
        fused = backend.fuse(encoded.features, flipped, np.ones(batch, np.float32), present)
    finally:
        backend.close()
    # FP32 sums in another order: a few units in the sixth place
    np.testing.assert_allclose(encoded.features, features.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoded.logits, eye_logits.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fused, logits.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auxiliary_head": False}, "auxiliary_head off"),
        ({"osim_weights": "per_eye"}, "another encoder for each eye"),
        ({"osim_left": False}, "another encoder for each eye"),
    ],
)
def test_models_that_a_bundle_cannot_hold_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    config: ModelConfig = replace(CONFIG, **changes)
    with pytest.raises(ExportError, match=message):
        export_graphs(DMSNet(config))
