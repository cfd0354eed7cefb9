"""Typed FP16: the type of everything is in the graph, inputs and outputs stay FP32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, shape_inference
from small_graphs import Net, basic_block, bottleneck, drawn, linear_bottleneck, run, tower

from fundus_export.certificate.half_emulation import emulate_half
from fundus_export.errors import ExportError
from fundus_export.graph_view import GraphView
from fundus_export.half import to_half

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def typed(model: onnx.ModelProto, island: Collection[str] = ()) -> GraphView:
    """The half graph, whose types fit each other."""
    written = to_half(model, island)
    checker.check_model(written, full_check=True)
    shape_inference.infer_shapes(written, check_type=True, strict_mode=True)
    return GraphView(written)


def casts(view: GraphView) -> Counter[tuple[str, int]]:
    """What is cast to which type."""
    found = [(n.input[0], int(n.attribute[0].i)) for n in view.nodes if n.op_type == "Cast"]
    return Counter(found)


def type_of(view: GraphView, node: str) -> int:
    (found,) = [one for one in view.nodes if one.name == node]
    return view.element_type(found.output[0])


@pytest.mark.parametrize("build", [basic_block, bottleneck, linear_bottleneck, tower])
def test_all_but_inputs_and_outputs_is_half(build: Any) -> None:
    view = typed(build())
    for name in (*view.inputs, *view.outputs):
        assert view.element_type(name) == FULL
    computed = [node for node in view.nodes if node.op_type != "Cast"]
    assert {view.element_type(name) for node in computed for name in node.output} == {HALF}
    weights = {view.element_type(tensor.name) for tensor in view.model.graph.initializer}
    assert weights <= {HALF, TensorProto.INT64}
    assert casts(view) == {(view.inputs[0], HALF): 1, ("logits_fp16", FULL): 1}


@pytest.mark.parametrize("build", [basic_block, bottleneck, linear_bottleneck, tower])
def test_the_answers_are_those_of_single_precision_but_for_rounding(build: Any) -> None:
    model = build()
    (value,) = model.graph.input
    shape = [axis.dim_value or 2 for axis in value.type.tensor_type.shape.dim]
    feeds = {value.name: drawn(*shape)}
    half = onnx.load_from_string(emulate_half(to_half(model, ()).SerializeToString()))
    expected, found = run(model, feeds)["logits"], run(half, feeds)["logits"]
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=5e-3 * np.abs(expected).max())


def test_an_island_is_full_with_one_cast_at_each_shore() -> None:
    view = typed(basic_block(), {"conv2", "added", "z"})
    assert [type_of(view, name) for name in ("y", "conv2", "added", "z", "mean")] == [
        *(HALF, FULL, FULL, FULL, HALF),
    ]
    assert casts(view) == {
        ("image", HALF): 1,
        ("y", FULL): 1,
        ("x", FULL): 1,
        ("z", HALF): 1,
        ("logits_fp16", FULL): 1,
    }
    assert view.element_type("conv2.weight") == FULL
    assert not view.is_constant("conv2.weight_fp16")


def with_an_output_inside() -> onnx.ModelProto:
    """`features` leave the graph and are read by two, as in an encoder."""
    net = Net(image=["batch", 3, 8, 8])
    features = net.op("Relu", net.conv("image", "conv", (4, 3, 3, 3)), name="features")
    axes = net.constant("axes", [2, 3], np.int64)
    net.op("ReduceMean", features, axes, name="mean", keepdims=0)
    net.op("ReduceMax", features, axes, name="most", keepdims=0)
    return net.model(features, net.op("Add", "mean", "most", name="logits"))


@pytest.mark.parametrize(
    ("island", "expected"),
    [
        ((), {("features_fp16", FULL), ("logits_fp16", FULL)}),
        # the output is the cast that an island reads, and the other way round
        (("mean",), {("features_fp16", FULL), ("mean", HALF), ("logits_fp16", FULL)}),
        (("mean", "most", "logits"), {("features_fp16", FULL)}),
        (("conv", "features"), {("features", HALF), ("logits_fp16", FULL)}),
        (("conv", "features", "mean"), {("features", HALF), ("mean", HALF), ("logits_fp16", FULL)}),
    ],
)
def test_an_output_that_is_read_inside_is_cast_once(
    island: tuple[str, ...], expected: set[tuple[str, int]]
) -> None:
    model = with_an_output_inside()
    view = typed(model, island)
    assert view.outputs == ("features", "logits")
    inner = {key: count for key, count in casts(view).items() if key[0] != "image"}
    assert inner == dict.fromkeys(expected, 1)
    for name in ("mean", "most", "logits"):
        assert type_of(view, name) == (FULL if name in island else HALF)
    feeds = {"image": drawn(2, 3, 8, 8)}
    found = run(view.model, feeds)
    for name, value in run(model, feeds).items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, rtol=5e-3, atol=5e-3)


def test_an_input_that_both_sides_read_is_cast_once() -> None:
    net = Net(x=["batch", 4], y=["batch", 4])
    net.op("Add", net.op("Mul", "x", "x", name="a"), net.op("Mul", "x", "y", name="b"), name="z")
    view = typed(net.model("z"), {"a"})
    assert casts(view) == {
        ("x", HALF): 1,
        ("y", HALF): 1,
        ("a", HALF): 1,
        ("z_fp16", FULL): 1,
    }
    (a,) = [node for node in view.nodes if node.name == "a"]
    assert list(a.input) == ["x", "x"]


def test_a_constant_that_both_sides_read_is_there_in_both_types() -> None:
    net = Net(x=["batch", 4])
    scale = net.constant("scale", [1.0, 2.0, 3.0, 4.1])
    net.op("Add", net.op("Mul", "x", scale, name="a"), scale, name="b")
    view = typed(net.model("b"), {"a"})
    np.testing.assert_array_equal(view.constant("scale"), np.float32([1, 2, 3, 4.1]))
    np.testing.assert_array_equal(view.constant("scale_fp16"), np.float16([1, 2, 3, 4.1]))


def test_conversions_and_what_holds_no_numbers_keep_their_meaning() -> None:
    net = Net(x=["batch", 4])
    net.op("Greater", "x", net.constant("half", 0.5), name="mask")
    net.op("Cast", "mask", name="as_number", to=FULL)
    net.op("Cast", "x", name="index", to=TensorProto.INT64)
    net.op("Where", "mask", "x", "as_number", name="y")
    view = typed(net.model("y", "index"), {"index"})
    assert view.element_type("mask") == TensorProto.BOOL
    assert view.element_type("as_number") == HALF
    assert view.element_type("index") == TensorProto.INT64
    full = typed(net.model("y", "index"), {"as_number", "y", "mask", "index"})
    assert full.element_type("as_number") == FULL


def paired(*, island: Collection[str] = ()) -> GraphView:
    """x behind a pair, read by two products, and a quantised weight."""
    net = Net(x=["batch", 8])
    net.constant("scale", 0.125)
    net.constant("zero", 0, np.int8)
    net.constant("scales", np.full(8, 0.25))
    net.constant("zeros", np.zeros(8), np.int8)
    net.constant("weight", np.ones((8, 8)), np.int8)
    net.op("QuantizeLinear", "x", "scale", "zero", name="q")
    net.op("DequantizeLinear", "q", "scale", "zero", name="dq")
    net.op("DequantizeLinear", "weight", "scales", "zeros", name="w", axis=1)
    net.op("Add", net.op("MatMul", "dq", "w", name="a"), net.op("Neg", "dq", name="b"), name="y")
    model = net.model("y")
    model.opset_import[0].version = 19
    return typed(model, island)


def test_pairs_are_of_the_type_of_their_readers() -> None:
    half = paired()
    assert half.element_type("scale_fp16") == HALF
    assert half.element_type("scales_fp16") == HALF
    assert [type_of(half, name) for name in ("dq", "w", "a", "b")] == [HALF] * 4
    full = paired(island={"a", "b"})
    assert [type_of(full, name) for name in ("dq", "w", "a", "b", "y")] == [FULL] * 4 + [HALF]
    assert not full.is_constant("scale_fp16")
    # no conversion between a pair and a product
    for view in (half, full):
        (product,) = [node for node in view.nodes if node.name == "a"]
        assert list(product.input) == ["dq", "w"]


def test_a_constant_beyond_the_range_is_refused() -> None:
    net = Net(x=["batch", 2])
    model = net.model(net.op("Mul", "x", net.constant("large", [1.0, -7e4]), name="y"))
    with pytest.raises(ExportError, match=r"the constant 'large' of y reaches 7e\+04, FP16 ends"):
        to_half(model, ())
    assert to_half(model, {"y"}).graph.initializer[0].name == "large"


def test_the_graph_that_came_in_is_left_as_it_is() -> None:
    model = basic_block()
    before = model.SerializeToString(deterministic=True)
    first = to_half(model, {"conv1"}).SerializeToString(deterministic=True)
    assert to_half(model, {"conv1"}).SerializeToString(deterministic=True) == first
    assert model.SerializeToString(deterministic=True) == before
