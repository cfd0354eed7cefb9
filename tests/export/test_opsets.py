"""Other operator sets: the same numbers, or a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import checker
from small_graphs import Net, basic_block, bottleneck, drawn, linear_bottleneck, run, tower

from fundus_export.errors import ExportError
from fundus_export.graph_view import attribute
from fundus_export.graphs import GraphBytes
from fundus_export.opsets import OPSETS, SOURCE_OPSET, with_opset
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend


def reductions() -> onnx.ModelProto:
    """All that carries axes: reductions that share them, over one and over two, kept or not."""
    net = Net(x=["batch", 4, 6, 6])
    both = net.constant("both", [2, 3], np.int64)
    last = net.constant("last", [-1], np.int64)
    net.op("ReduceMean", "x", both, name="mean", keepdims=0)
    net.op("ReduceMax", "x", both, name="most", keepdims=0)
    net.op("ReduceMin", "x", last, name="least")
    net.op("ReduceSum", "x", last, name="sum", keepdims=0)
    net.op("ReduceMax", "x", name="largest", noop_with_empty_axes=0)
    return net.model("mean", "most", "least", "sum", "largest")


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    return {entry.domain: entry.version for entry in model.opset_import}


@pytest.mark.parametrize("opset", OPSETS)
def test_reductions_answer_the_same_numbers_bit_for_bit(opset: int) -> None:
    model = reductions()
    moved = with_opset(model, opset)
    assert opsets(moved) == {"": opset}
    checker.check_model(moved, full_check=True)
    feeds = {"x": drawn(3, 4, 6, 6)}
    found = run(moved, feeds)
    for name, value in run(model, feeds).items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_in_17_the_axes_are_attributes_again() -> None:
    moved = with_opset(reductions(), 17)
    nodes = {node.name: node for node in moved.graph.node}
    assert {name: (attribute(node, "axes"), len(node.input)) for name, node in nodes.items()} == {
        "mean": ([2, 3], 1),
        "most": ([2, 3], 1),
        "least": ([-1], 1),
        "sum": (None, 2),
        "largest": (None, 1),
    }
    assert [tensor.name for tensor in moved.graph.initializer] == ["last"]
    assert all(attribute(node, "noop_with_empty_axes") in (None, 0) for node in nodes.values())


@pytest.mark.parametrize("build", [basic_block, bottleneck, linear_bottleneck, tower])
def test_whole_networks_answer_the_same_numbers_bit_for_bit(build: Any) -> None:
    model = build()
    (value,) = model.graph.input
    feeds = {value.name: drawn(2, *(a.dim_value for a in value.type.tensor_type.shape.dim[1:]))}
    expected = run(model, feeds, optimised=True)["logits"]
    for opset in (17, 19):
        found = run(with_opset(model, opset), feeds, optimised=True)["logits"]
        np.testing.assert_array_equal(found, expected)


def test_the_edge_model_answers_the_same_numbers_in_17(edge_graphs: GraphBytes) -> None:
    moved = [
        with_opset(onnx.load_from_string(data), 17).SerializeToString()
        for data in (edge_graphs.encoder, edge_graphs.head)
    ]
    answers = []
    for encoder, head in ((edge_graphs.encoder, edge_graphs.head), moved):
        backend = OnnxRuntimeBackend(encoder, head, size=224, class_count=8, threads=1)
        encoded = backend.encode(drawn(2, 3, 224, 224), ("left", "right"))
        flags = np.ones(1, np.float32)
        logits = backend.fuse(encoded.features[:1], encoded.features[1:], flags, flags)
        answers.append((encoded.features, encoded.logits, logits))
        backend.close()
    for found, expected in zip(*answers, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_file_is_of_the_version_that_came_with_its_operator_set() -> None:
    model = basic_block()
    assert {opset: with_opset(model, opset).ir_version for opset in OPSETS} == {
        17: 8,
        18: model.ir_version,
        19: 9,
    }


def test_the_model_is_left_as_it_is() -> None:
    model = reductions()
    before = model.SerializeToString(deterministic=True)
    for opset in OPSETS:
        moved = with_opset(model, opset)
        moved.graph.node[0].name = "other"
    assert model.SerializeToString(deterministic=True) == before


def test_an_operator_that_might_change_its_meaning_is_refused() -> None:
    net = Net(x=["batch", 4])
    model = net.model(net.op("Mish", "x", name="y"))
    with pytest.raises(ExportError, match="between opset 18 and 17: Mish"):
        with_opset(model, 17)


@pytest.mark.parametrize("opset", [16, 20, 0])
def test_an_operator_set_that_nothing_is_known_of_is_refused(opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} was asked for; .* in opset 17, 18, 19"):
        with_opset(basic_block(), opset)


def test_a_graph_of_another_operator_set_is_refused() -> None:
    model = basic_block()
    model.opset_import[0].version = 20
    with pytest.raises(ExportError, match=r"the graph is of opset .*20.*, expected 18"):
        with_opset(model, 17)
    model = basic_block()
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ExportError, match="microsoft"):
        with_opset(model, SOURCE_OPSET)


def test_a_reduction_over_nothing_is_refused() -> None:
    net = Net(x=["batch", 4])
    axes = net.constant("none", np.zeros(0), np.int64)
    model = net.model(net.op("ReduceMax", "x", axes, name="y", noop_with_empty_axes=1))
    with pytest.raises(ExportError, match="y may reduce nothing"):
        with_opset(model, 17)
