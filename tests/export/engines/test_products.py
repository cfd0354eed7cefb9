"""Which products a graph marks with which precision, and what a graph's memory comes to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fundus_export.graph_view import GraphView
from fundus_export.tensorrt.memory import estimate_memory
from fundus_export.tensorrt.products import count_by_precision, float_nodes, products_of

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


def view_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: dict[str, int],
    constants: dict[str, np.ndarray],
    shape: Sequence[int | str] = ("N", 4),
    opset: int = 19,
) -> GraphView:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, kind in inputs.items()],
        [helper.make_empty_tensor_value_info(nodes[-1].output[0])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return GraphView(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


SCALE = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
PAIR = [
    helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
    helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="d"),
]


def marks(view: GraphView) -> dict[str, str]:
    return {product.name: product.precision for product in products_of(view)}


def test_a_product_of_two_dequantised_factors_is_int8() -> None:
    weight = {**SCALE, "w": np.ones((4, 3), np.int8)}
    dequantise = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], name="wd")
    product = helper.make_node("MatMul", ["xd", "wd"], ["y"], name="/m")

    view = view_of([*PAIR, dequantise, product], inputs={"x": FLOAT}, constants=weight)
    assert marks(view) == {"/m": "int8"}


def test_a_weight_may_be_turned_or_retyped_on_its_way() -> None:
    weight = {**SCALE, "w": np.ones((3, 4), np.int8)}
    nodes = [
        *PAIR,
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], name="wd"),
        helper.make_node("Transpose", ["wd"], ["wt"], name="t"),
        helper.make_node("Cast", ["wt"], ["wc"], name="c", to=FLOAT),
        helper.make_node("MatMul", ["xd", "wc"], ["y"], name="/m"),
    ]

    assert marks(view_of(nodes, inputs={"x": FLOAT}, constants=weight)) == {"/m": "int8"}


@pytest.mark.parametrize(("kind", "number"), [(FLOAT, np.float32), (HALF, np.float16)])
def test_any_other_is_of_its_first_factors_type(kind: int, number: type) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="/m")]
    view = view_of(nodes, inputs={"x": kind}, constants={"w": np.ones((4, 3), number)})

    assert marks(view) == {"/m": "fp16" if kind == HALF else "fp32"}


def test_a_quantised_activation_alone_is_no_int8_product() -> None:
    nodes = [*PAIR, helper.make_node("MatMul", ["xd", "w"], ["y"], name="/m")]
    constants = {**SCALE, "w": np.ones((4, 3), np.float32)}

    assert marks(view_of(nodes, inputs={"x": FLOAT}, constants=constants)) == {"/m": "fp32"}


def test_products_of_constants_are_folded_and_left_out() -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["c"], name="/folded"),
        helper.make_node("MatMul", ["x", "c"], ["y"], name=""),
    ]
    constants = {"a": np.ones((4, 2), np.float32), "b": np.ones((2, 3), np.float32)}

    # the parser names a layer after its node's output where the node has no name
    assert marks(view_of(nodes, inputs={"x": FLOAT}, constants=constants)) == {"node_of_y": "fp32"}


def test_nodes_that_move_indices_are_not_told_a_precision() -> None:
    nodes = [
        helper.make_node("Add", ["i", "i"], ["j"], name="/indices"),
        helper.make_node("Cast", ["j"], ["k"], name="/cast", to=FLOAT),
        helper.make_node("Mul", ["x", "k"], ["y"], name="/values"),
    ]

    found = float_nodes(view_of(nodes, inputs={"x": FLOAT, "i": INT64}, constants={}))
    assert found == {"/values": "fp32"}


def test_counts_leave_out_what_there_is_none_of() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="/m")]
    view = view_of(nodes, inputs={"x": FLOAT}, constants={"w": np.ones((4, 3), np.float32)})

    assert count_by_precision(products_of(view)) == {"fp32": 1}


def test_memory_is_counted_while_it_lives() -> None:
    chain = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    chain += [helper.make_node("Relu", ["b"], ["c"]), helper.make_node("Add", ["c", "w"], ["y"])]
    view = view_of(
        chain,
        inputs={"x": FLOAT},
        constants={"w": np.ones((1, 1000), np.float32)},
        shape=("N", 1000),
    )

    one, four = estimate_memory(view, 1), estimate_memory(view, 4)
    assert (one.weights, four.weights) == (4000, 4000)
    assert (one.activations, four.activations) == (8000, 32000)  # what is read and what is written
