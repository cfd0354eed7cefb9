"""The sampled affinity answers what the exact one does, to within its bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import checker
from small_graphs import Array, Net, drawn, run
from torch import nn

from fundus_export.graph_view import GraphView
from fundus_export.quantise.affinity import SAMPLES, sample_affinities
from fundus_training.models.cafm import CAFM

CHANNELS = 1024
POSITIONS = 5


def affinity(channels: int = CHANNELS, *, swapped: bool = False, axis: int = 2) -> onnx.ModelProto:
    """One eye's channels mixed by the affinity of both eyes' descriptors."""
    shape = ["batch", channels]
    net = Net(own=shape, other=shape, features=[*shape, POSITIONS])
    column = net.op("Unsqueeze", "own", net.constant("last", [2], np.int64), name="column")
    row = net.op("Unsqueeze", "other", net.constant("middle", [1], np.int64), name="row")
    outer = net.op("Mul", *((row, column) if swapped else (column, row)), name="outer")
    weights = net.op("Softmax", outer, name="weights", axis=axis)
    return net.model(net.op("MatMul", weights, "features", name="mixed"))


def feeds(batch: int, span: float, *, channels: int = CHANNELS) -> dict[str, Array]:
    """Descriptors whose spans multiply to `span` squared, and features within 0 and 1."""
    random = np.random.default_rng(3)
    own, other = (random.random((batch, channels)) - 0.3 for _ in range(2))
    features = random.random((batch, channels, POSITIONS))
    values = {"own": span * own, "other": span * other, "features": features}
    return {name: value.astype(np.float32) for name, value in values.items()}


def exactly(own: Array, other: Array, features: Array) -> Array:
    """By the definition, in double precision."""
    outer = own[:, :, None].astype(np.float64) * other[:, None, :]
    weights = np.exp(outer - outer.max(axis=2, keepdims=True))
    return (weights / weights.sum(axis=2, keepdims=True)) @ features


def sampled(model: onnx.ModelProto) -> onnx.ModelProto:
    found = sample_affinities(model)
    checker.check_model(found, full_check=True)
    operators = {node.op_type for node in found.graph.node}
    assert "GatherND" in operators
    assert not any(
        GraphView(found).shape(node.output[0]) == (None, CHANNELS, CHANNELS)
        for node in found.graph.node
    )
    return found


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("span", [0.01, 1.0, 10**0.5, 6.0, 10.0])
def test_the_error_is_within_the_bound(batch: int, span: float) -> None:
    values = feeds(batch, span)
    expected = exactly(**values)
    found = run(sampled(affinity()), values)["mixed"]
    product = np.ptp(values["own"]) * np.ptp(values["other"])
    # features spread over 1; the rest is single precision's
    bound = (product / SAMPLES) ** 2 / 8 + 1e-5 * max(1.0, product)
    assert np.abs(found - expected).max() < bound
    if product > 5:
        assert np.abs(found - expected).max() > 1e-7  # it is sampled indeed


def test_exactly_computed_graphs_agree_with_numpy() -> None:
    values = feeds(2, 2.0)
    found = run(affinity(), values)["mixed"]
    np.testing.assert_allclose(found, exactly(**values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-30, 1e4])
def test_a_descriptor_without_any_span_is_exact(value: float) -> None:
    values = feeds(2, 1.0)
    values["own"] = np.full_like(values["own"], value)
    found = run(sampled(affinity()), values)["mixed"]
    np.testing.assert_allclose(found, exactly(**values), rtol=1e-4, atol=1e-4)


def test_all_that_is_constant_gives_the_mean() -> None:
    values = feeds(1, 1.0)
    values["own"][:], values["other"][:] = 2.0, -1.0
    found = run(sampled(affinity()), values)["mixed"]
    mean = np.broadcast_to(values["features"].mean(axis=1, keepdims=True), found.shape)
    np.testing.assert_allclose(found, mean, rtol=1e-4)


def test_rows_of_one_batch_have_spans_of_their_own() -> None:
    values = feeds(3, 1.0)
    values["own"] *= np.float32([[0.0], [1.0], [5.0]])
    found = run(sampled(affinity()), values)["mixed"]
    np.testing.assert_allclose(found, exactly(**values), atol=2e-5)
    alone = {name: value[2:] for name, value in values.items()}
    np.testing.assert_array_equal(run(sampled(affinity()), alone)["mixed"], found[2:])


@pytest.mark.parametrize("span", [30.0, 1e3, 1e6, 1e15])
def test_whatever_the_span_an_answer_stays_a_mean_of_features(span: float) -> None:
    values = feeds(2, span)
    found = run(sampled(affinity()), values)["mixed"]
    assert np.isfinite(found).all()
    features = values["features"]
    slack = 1e-3
    assert (found >= features.min(axis=1, keepdims=True) - slack).all()
    assert (found <= features.max(axis=1, keepdims=True) + slack).all()


@pytest.mark.parametrize("axis", [2, -1])
def test_the_last_axis_has_two_names(axis: int) -> None:
    values = feeds(1, 1.0)
    found = run(sampled(affinity(axis=axis)), values)["mixed"]
    np.testing.assert_allclose(found, exactly(**values), atol=2e-5)


def shared_softmax() -> onnx.ModelProto:
    model = affinity()
    (product,) = [node for node in model.graph.node if node.name == "mixed"]
    again = onnx.NodeProto()
    again.CopyFrom(product)
    again.name, again.output[0] = "again", "again"
    model.graph.node.append(again)
    model.graph.output.append(onnx.ValueInfoProto(name="again"))
    return model


@pytest.mark.parametrize(
    "model",
    [
        affinity(channels=767),  # as cheap row by row
        affinity(swapped=True),
        affinity(axis=1),  # sums to one along the other axis
        shared_softmax(),
    ],
    ids=["small", "swapped", "axis", "shared"],
)
def test_other_graphs_come_back_as_they_are(model: onnx.ModelProto) -> None:
    assert sample_affinities(model) == model
    assert sample_affinities(model) is not model


class Both(nn.Module):
    """CAFM's exchange between the eyes, of the paper's size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cafm = CAFM(CHANNELS)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.cafm.exchange(left, right)


@pytest.mark.filterwarnings("ignore")  # the exporter's, of its own workings
def test_both_affinities_of_the_models_module_are_sampled() -> None:
    eyes = tuple(torch.rand(2, CHANNELS, 7, 7) for _ in range(2))
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        Both().eval(),
        eyes,
        dynamo=True,
        opset_version=18,
        input_names=["left", "right"],
        dynamic_shapes=({0: batch}, {0: batch}),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    found = sampled(model)
    assert sum(node.op_type == "GatherND" for node in found.graph.node) == 4
    # as behind a ReLU
    left, right = (np.maximum(drawn(2, CHANNELS, 7, 7, seed=seed), 0) for seed in (0, 1))
    values = {"left": left, "right": right}
    expected: dict[str, Any] = run(model, values)
    for name, value in run(found, values).items():
        np.testing.assert_allclose(value, expected[name], atol=3e-3 * np.ptp(left))


def test_names_of_what_stays_are_kept() -> None:
    model = affinity()
    found = sampled(model)
    assert [value.name for value in found.graph.output] == ["mixed"]
    assert {"own", "other", "features"} == {value.name for value in found.graph.input}
    # nodes that nothing reads any more are gone
    assert not {"column", "row", "outer", "weights"} & {node.name for node in found.graph.node}
    assert len({node.name for node in found.graph.node}) == len(found.graph.node)
