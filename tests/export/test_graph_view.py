"""Who makes and who reads a tensor, its value, its shape and its type."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_graphs import Net, basic_block

from fundus_export.graph_edit import drop_unread_constants, replace_nodes
from fundus_export.graph_view import GraphView, attribute, float_attribute, int_attribute


def squares() -> onnx.ModelProto:
    """y = x * x, which is an output, and z = y + 1."""
    net = Net(x=["batch", 4])
    y = net.op("Mul", "x", "x", name="y")
    return net.model(y, net.op("Add", y, net.constant("one", [1.0]), name="z"))


def test_makers_and_readers_of_a_tensor() -> None:
    view = GraphView(squares())
    made = view.producer("y")
    assert made is not None
    assert made.op_type == "Mul"
    assert [(node.name, index) for node, index in view.readers("x")] == [("y", 0), ("y", 1)]
    assert [(node.name, index) for node, index in view.readers("y")] == [("z", 0)]
    assert view.producer("x") is None
    assert view.producer("one") is None
    assert view.readers("z") == []
    assert view.inputs == ("x",)
    assert view.outputs == ("y", "z")


def test_a_tensor_that_leaves_the_graph_or_is_read_twice_has_no_sole_reader() -> None:
    view = GraphView(squares())
    assert view.is_output("y")
    assert view.sole_reader("y") is None
    assert view.sole_reader("x") is None
    reader = GraphView(basic_block()).sole_reader("conv1")
    assert reader is not None
    assert reader.name == "y"


def test_constants_have_a_value_a_type_and_a_shape() -> None:
    view = GraphView(basic_block())
    assert view.is_constant("conv1.weight")
    assert not view.is_constant("x")
    assert view.constant("conv1.weight").shape == (16, 16, 3, 3)
    assert view.shape("conv1.weight") == (16, 16, 3, 3)
    assert view.element_type("axes") == TensorProto.INT64
    record = view.initializer("conv1.weight")
    assert record is not None
    assert record.name == "conv1.weight"
    assert view.initializer("x") is None


def test_shapes_are_inferred_with_the_batch_free_behind_weights_large_and_small() -> None:
    view = GraphView(basic_block())
    assert view.shape("image") == (None, 3, 16, 16)
    assert view.shape("conv2") == (None, 16, 16, 16)
    assert view.elements("conv2") == 16 * 16 * 16
    assert view.shape("logits") == (None, 3)
    assert view.element_type("logits") == TensorProto.FLOAT
    assert view.shape("nobody's") is None
    assert view.elements("nobody's") == 0
    assert view.element_type("nobody's") == 0


def test_a_shape_that_a_constant_states_is_followed() -> None:
    net = Net(x=["batch", 4, 6])
    flat = net.op("Reshape", "x", net.constant("flat", [0, 24], np.int64), name="y")
    net.op("Greater", flat, net.constant("half", 0.5), name="mask")
    view = GraphView(net.model("y", "mask"))
    assert view.shape("y") == (None, 24)
    assert view.element_type("mask") == TensorProto.BOOL


def test_the_model_is_left_as_it_is() -> None:
    model = basic_block()
    before = model.SerializeToString(deterministic=True)
    GraphView(model)
    assert model.SerializeToString(deterministic=True) == before


def test_attributes_have_defaults() -> None:
    node = helper.make_node("Gemm", ["a", "b"], ["y"], alpha=0.5, transB=1)
    assert attribute(node, "transB") == 1
    assert attribute(node, "beta") is None
    assert int_attribute(node, "transB", 0) == 1
    assert int_attribute(node, "transA", 0) == 0
    assert float_attribute(node, "alpha", 1.0) == 0.5
    assert float_attribute(node, "beta", 1.0) == 1.0


def test_a_graph_takes_its_own_nodes_in_another_order_and_drops_what_nobody_reads() -> None:
    model = squares()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3), "unread"))
    replace_nodes(model.graph, [node for node in model.graph.node if node.name == "y"])
    assert [node.name for node in model.graph.node] == ["y"]
    drop_unread_constants(model.graph)
    assert not model.graph.initializer
