"""Where pairs stand: on the inputs of products for TensorRT, around what computes on a CPU."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import pytest
from small_graphs import (
    Net,
    basic_block,
    bottleneck,
    dense_block,
    linear_bottleneck,
    tower,
)

from fundus_export.graph_view import GraphView
from fundus_export.quantise.placement import Placement, place, products, weight_axis
from fundus_export.quantise.scheme import scheme_of

CPU, TRT, TRT8 = (scheme_of(f"int8-{engine}") for engine in ("cpu", "trt", "trt8"))
Pairs = dict[str, set[tuple[str, int]]]


def placed(model: onnx.ModelProto, scheme: Any, raised: Collection[str] = ()) -> Placement:
    return place(GraphView(model), scheme, raised)


def pairs(model: onnx.ModelProto, scheme: Any, raised: Collection[str] = ()) -> Pairs:
    return {name: set(readers) for name, readers in placed(model, scheme, raised).pairs.items()}


def large_conv(net: Net, x: str, name: str, *, inputs: int = 16) -> str:
    """A convolution that is worth quantising on 16 x 16 positions."""
    return net.conv(x, name, (16, inputs, 3, 3))


def test_a_residual_blocks_identity_is_read_through_the_pair_of_the_block() -> None:
    assert pairs(basic_block(), TRT) == {
        "image": {("stem", 0)},
        "x": {("conv1", 0), ("added", 1)},
        "y": {("conv2", 0)},
    }


def test_a_downsampling_identity_has_a_pair_of_its_own() -> None:
    # the last convolution of the main branch is what fuses with the addition
    assert pairs(bottleneck(), TRT) == {
        "image": {("stem", 0)},
        "x": {("conv1", 0), ("downsample", 0)},
        "y1": {("conv2", 0)},
        "y2": {("conv3", 0)},
        "downsample": {("added", 1)},
    }


def test_the_identity_is_found_on_either_side_of_the_addition() -> None:
    model = bottleneck()
    (added,) = [node for node in model.graph.node if node.name == "added"]
    added.input[:] = ["downsample", "conv3"]
    assert pairs(model, TRT)["downsample"] == {("added", 0)}


def test_a_linear_bottleneck_has_pairs_on_blocks_inputs_alone() -> None:
    found = pairs(linear_bottleneck(), TRT)
    assert found["project0"] == {("expand1", 0), ("added1", 0)}
    assert found["added1"] == {("expand2", 0), ("added2", 0)}
    assert set(found) == {"image", "project0", "e1", "d1", "added1", "e2", "d2"}


def test_for_tensorrt_a_concatenation_is_read_through_one_pair() -> None:
    assert pairs(dense_block(), TRT) == {
        "image": {("stem", 0)},
        "x": {("conv1", 0)},
        "both": {("conv2", 0)},
        "pooled": {("conv3", 0)},
    }


def test_a_product_whose_convolution_is_raised_takes_the_additions_pair_away() -> None:
    assert pairs(basic_block(), TRT, ["conv2"]) == {
        "image": {("stem", 0)},
        "x": {("conv1", 0)},
    }
    assert placed(basic_block(), TRT, ["conv2"]).quantised == {"stem", "conv1"}


def test_both_dialects_of_tensorrt_have_one_placement() -> None:
    for build in (basic_block, bottleneck, linear_bottleneck, dense_block, tower):
        assert placed(build(), TRT) == placed(build(), TRT8)


def test_matrix_products_are_quantised_on_their_inputs() -> None:
    assert pairs(tower(), TRT) == {
        "tokens": {("first", 0)},
        "x": {("second", 0)},
        "mean": {("hidden", 0)},
    }


def test_on_a_cpu_pairs_stand_behind_the_activation_and_around_the_addition() -> None:
    assert pairs(basic_block(), CPU) == {
        "image": {("stem", 0)},
        "x": {("conv1", 0), ("added", 1)},
        "y": {("conv2", 0)},
        "conv2": {("added", 0)},
    }


def test_on_a_cpu_an_addition_that_no_product_reads_stays_high() -> None:
    # its activation goes into a mean: INT8 would cost accuracy and save nothing
    found = pairs(basic_block(), CPU)
    assert "z" not in found
    # the next block's convolution reads it
    assert pairs(linear_bottleneck(), CPU)["added1"] == {("expand2", 0), ("added2", 0)}


def test_on_a_cpu_concatenations_and_pools_carry_the_8_bits() -> None:
    placement = placed(dense_block(), CPU)
    assert {name: set(readers) for name, readers in placement.pairs.items()} == {
        "image": {("stem", 0)},
        "x": {("conv1", 0), ("both", 0), ("every", 0)},
        "y1": {("both", 1), ("every", 1)},
        "both": {("conv2", 0)},
        "y2": {("every", 2)},
        "every": {("pooled", 0)},
        "pooled": {("conv3", 0)},
        "z": {("mean", 0)},
    }
    # a pool picks numbers: they are already there in its input's units
    assert placement.same_range == {"pooled": "every"}


def test_a_pool_behind_a_pool_has_the_units_of_the_first() -> None:
    net = Net(image=["batch", 16, 32, 32])
    x = net.op("MaxPool", large_conv(net, "image", "a"), name="p", kernel_shape=[2, 2])
    x = net.op("MaxPool", x, name="q", kernel_shape=[2, 2])
    model = net.model(net.op("Sigmoid", large_conv(net, x, "b"), name="y"), "p")
    # p leaves the graph, so that it is no carrier; without that it is
    assert placed(model, CPU).same_range == {}
    del model.graph.output[1]
    assert placed(model, CPU).same_range == {"p": "a", "q": "a"}


def test_a_raised_layer_in_a_dense_block_keeps_its_concatenations_high() -> None:
    found = pairs(dense_block(), CPU, ["conv1"])
    # y1 stays exact: both, and every that holds it, are put together in FP32
    assert "y1" not in found
    assert found["both"] == {("conv2", 0)}
    assert "every" not in found
    assert found["pooled"] == {("conv3", 0)}
    # what was made in INT8 is there in INT8 alone, for everybody
    assert found["x"] == {("conv1", 0), ("both", 0), ("every", 0)}


def test_what_is_made_high_is_exact_for_whoever_computes_high() -> None:
    net = Net(image=["batch", 16, 16, 16])
    net.op("Sigmoid", "image", name="gate")
    net.op("Mul", large_conv(net, "image", "a"), "gate", name="gated")
    net.op("Relu", large_conv(net, "gated", "b"), name="c")
    model = net.model(net.op("Mul", "gated", "c", name="y"))
    assert pairs(model, CPU) == {
        "image": {("a", 0)},
        "a": {("gated", 0)},
        "gated": {("b", 0)},
        "c": {("y", 1)},
    }


def test_a_matrix_product_answers_in_int8_only_to_another() -> None:
    assert pairs(tower(), CPU) == {
        "tokens": {("first", 0)},
        "x": {("second", 0)},
        "mean": {("hidden", 0)},
    }
    net = Net(x=["batch", 256])
    y = net.op("MatMul", "x", net.matrix("first.weight", 256, 256), name="first")
    y = net.op("MatMul", y, net.matrix("second.weight", 256, 256), name="second")
    assert pairs(net.model(net.op("Relu", y, name="y")), CPU) == {
        "x": {("first", 0)},
        "first": {("second", 0)},
    }


@pytest.mark.parametrize("scheme", [CPU, TRT])
def test_small_products_and_those_that_answer_for_the_graph_stay_high(scheme: Any) -> None:
    found = placed(tower(), scheme).quantised
    assert found == {"first", "second", "hidden"}  # not the last, which makes the logits
    assert "logits" not in placed(basic_block(), scheme).quantised
    net = Net(image=["batch", 16, 8, 8])
    small = net.op("Relu", net.conv("image", "small", (16, 16, 1, 1)), name="x")  # 16 thousand
    model = net.model(net.op("Relu", net.conv(small, "large", (64, 16, 3, 3)), name="y"), "x")
    assert "small" not in placed(model, scheme).quantised


def encoder() -> onnx.ModelProto:
    """Features that leave the graph and that another product reads."""
    net = Net(image=["batch", 16, 16, 16])
    features = net.op("Relu", large_conv(net, "image", "conv"), name="features")
    y = net.op("Relu", large_conv(net, features, "more"), name="y")
    axes = net.constant("axes", [2, 3], np.int64)
    return net.model(features, net.op("ReduceMean", y, axes, name="eye_logits", keepdims=0))


def test_features_that_leave_the_graph_are_exact_there_and_quantised_for_their_readers() -> None:
    assert pairs(encoder(), TRT) == {"image": {("conv", 0)}, "features": {("more", 0)}}
    # an integer kernel would need a Q alone behind its activation
    found = placed(encoder(), CPU)
    assert found.quantised == {"more"}
    assert found.pairs == {"features": frozenset({("more", 0)}), "y": {("eye_logits", 0)}}


def test_an_addition_that_answers_for_the_graph_carries_nothing() -> None:
    model = linear_bottleneck()
    model.graph.output.append(onnx.ValueInfoProto(name="added1"))
    assert "added1" not in placed(model, CPU).same_range
    found = pairs(model, CPU)
    assert found["project1"] == {("added1", 1)}
    assert found["added1"] == {("expand2", 0)}


@pytest.mark.parametrize("scheme", [CPU, TRT])
def test_a_tensor_that_a_node_reads_twice_has_one_pair(scheme: Any) -> None:
    net = Net(image=["batch", 16, 16, 16])
    x = net.op("Relu", large_conv(net, "image", "a"), name="x")
    net.op("Mul", x, x, name="square")
    net.op("Add", x, x, name="twice")
    y = net.op("Add", net.op("Relu", large_conv(net, x, "b"), name="c"), "square", name="d")
    model = net.model(net.op("Mul", y, "twice", name="y"))
    found = pairs(model, scheme)
    assert set(found) == {"image", "x"} | ({"c"} if scheme is CPU else set())
    # for TensorRT, only the product reads it through the pair
    everybody = {("square", 0), ("square", 1), ("twice", 0), ("twice", 1), ("b", 0)}
    assert found["x"] == (everybody if scheme is CPU else {("b", 0)})


def test_a_convolution_that_others_read_as_well_is_no_branch_to_fuse() -> None:
    net = Net(image=["batch", 16, 16, 16])
    a = large_conv(net, "image", "a")
    added = net.op("Add", a, "image", name="added")
    model = net.model(net.op("Mul", added, a, name="y"))
    assert pairs(model, TRT) == {"image": {("a", 0)}}


def test_a_constant_or_another_shape_is_no_identity() -> None:
    net = Net(image=["batch", 16, 16, 16], vector=["batch", 16, 1, 1])
    b = net.op("Add", large_conv(net, "image", "a"), "vector", name="b")
    offsets = net.constant("offsets", np.ones((1, 16, 16, 16)))
    c = net.op("Add", large_conv(net, b, "c"), offsets, name="d")
    assert pairs(net.model(net.op("Relu", c, name="y")), TRT) == {
        "image": {("a", 0)},
        "b": {("c", 0)},
    }


def odd_products() -> onnx.ModelProto:
    """Products of forms that INT8 kernels do not take, and two that they do."""
    net = Net(x=["batch", 128], y=["batch", 4, 16, 128], columns=[128, "batch"])
    square = net.matrix("square", 128, 128)
    stack = net.constant("stack", net.random.normal(size=(4, 128, 128)))
    vector = net.constant("vector", np.ones(128))
    one = net.constant("one", 1.0)
    made = [
        net.op("MatMul", "x", square, name="plain"),
        net.op("Gemm", "x", square, vector, name="with_bias"),
        net.op("MatMul", square, square, name="constants"),
        net.op("MatMul", "y", stack, name="stacked"),
        net.op("MatMul", "y", vector, name="with_vector"),
        net.op("Gemm", "columns", square, name="turned", transA=1),
        net.op("Gemm", "x", square, name="halved", alpha=0.5),
        net.op("Gemm", "x", square, vector, name="scaled_bias", beta=2.0),
        net.op("Gemm", "x", square, one, name="one_bias"),
        net.op("Gemm", "x", square, "x", name="computed_bias"),
        net.op("MatMul", square, "columns", name="from_the_left"),
    ]
    return net.model(*[net.op("Relu", name, name=f"{name}.relu") for name in made])


@pytest.mark.parametrize("scheme", [CPU, TRT])
def test_products_of_odd_forms_stay_high(scheme: Any) -> None:
    assert placed(odd_products(), scheme).quantised == {"plain", "with_bias"}


def test_output_channels_are_counted_along_the_right_axis() -> None:
    def axis(operator: str, **attributes: int) -> int:
        return weight_axis(onnx.helper.make_node(operator, ["x", "w"], ["y"], **attributes))

    assert axis("Conv") == 0
    assert axis("MatMul") == 1
    assert axis("Gemm") == 1
    assert axis("Gemm", transB=1) == 0


@pytest.mark.parametrize("build", [basic_block, bottleneck, linear_bottleneck, dense_block, tower])
@pytest.mark.parametrize("scheme", [CPU, TRT])
def test_every_pair_is_named_in_the_order_of_computation(build: Any, scheme: Any) -> None:
    model = build()
    names = [model.graph.input[0].name, *(o for n in model.graph.node for o in n.output)]
    tensors = placed(model, scheme).tensors
    if scheme is CPU:
        assert list(tensors) == [name for name in names if name in tensors]
    assert len(set(tensors)) == len(tensors)
    assert [node.name for node in products(GraphView(model))] == [
        node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")
    ]
