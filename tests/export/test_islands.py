"""What stays FP32 in a graph of FP16: where range demands, in one piece."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from small_graphs import Array, Net, basic_block, bottleneck, drawn, run

from fundus_export.certificate.half_emulation import emulate_half
from fundus_export.graph_view import GraphView
from fundus_export.half import to_half
from fundus_export.islands import LARGEST_SAFE, island_of, tensors_to_watch


def island(model: onnx.ModelProto, largest: Mapping[str, float] | None = None) -> set[str]:
    return set(island_of(GraphView(model), largest or {}))


def as_half(model: onnx.ModelProto, island: set[str], feeds: Mapping[str, Array]) -> Array:
    """What hardware that takes the types at their word would answer."""
    typed = onnx.load_from_string(emulate_half(to_half(model, island).SerializeToString()))
    (answer,) = run(typed, feeds).values()
    return answer


def cosine(epsilon: float = 1e-6) -> onnx.ModelProto:
    """The cosine of the angle between two vectors, by one square root of both norms' product."""
    net = Net(a=["batch", 64], b=["batch", 64])
    axes = net.constant("axes", [1], np.int64)
    a = net.op("Relu", "a", name="a_before")
    b = net.op("Relu", "b", name="b_before")
    sums = []
    for name, left, right in (("ab", a, b), ("aa", a, a), ("bb", b, b)):
        products = net.op("Mul", left, right, name=name)
        sums.append(net.op("ReduceSum", products, axes, name=f"sum_{name}", keepdims=1))
    norms = net.op("Mul", sums[1], sums[2], name="norms")
    sum_ = net.op("Add", norms, net.constant("epsilon", epsilon), name="plus_epsilon")
    divided = net.op("Div", sums[0], net.op("Sqrt", sum_, name="root"), name="cosine")
    return net.model(net.op("Sigmoid", divided, name="gate"))


NORMS = {
    *("aa", "bb", "ab", "sum_aa", "sum_bb", "sum_ab", "norms", "plus_epsilon", "root", "cosine"),
}


# the larger one is no number that would be an island by itself
@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
def test_a_quotient_of_norms_is_one_island_from_the_first_square_on(epsilon: float) -> None:
    assert island(cosine(epsilon)) == NORMS


def test_sums_of_squares_beyond_65504_come_out_as_in_single_precision() -> None:
    model = cosine()
    feeds = {"a": np.abs(drawn(3, 64)) * 100, "b": np.abs(drawn(3, 64, seed=1)) * 100}
    expected = run(model, feeds)["gate"]
    np.testing.assert_allclose(as_half(model, island(model), feeds), expected, rtol=1e-3)
    # with the product of both sums outside, its infinity makes every cosine zero
    broken = as_half(model, island(model) - {"norms"}, feeds)
    np.testing.assert_array_equal(broken, 0.5)


def test_a_graph_of_plain_layers_has_no_island() -> None:
    assert island(basic_block()) == set()
    assert island(basic_block(), {"x": LARGEST_SAFE, "z": 100.0}) == set()


def test_what_makes_and_reads_a_large_tensor_stays_high() -> None:
    # x is large: the convolution before its activation, and both that read it
    assert island(basic_block(), {"x": 2 * LARGEST_SAFE}) == {"stem", "x", "conv1", "added"}


def test_a_large_answer_of_an_addition_holds_for_what_it_adds() -> None:
    found = island(bottleneck(), {"z": 1e6, "x": 1.0, "y2": 1.0})
    # conv1 reads the same tensor as the downsampling convolution, through one pair
    assert found == {"conv3", "downsample", "conv1", "added", "z", "mean"}


def test_what_was_measured_small_is_believed() -> None:
    net = Net(x=["batch", 8])
    net.op("Concat", net.op("Relu", "x", name="a"), net.op("Neg", "x", name="b"), name="c", axis=1)
    model = net.model(net.op("Sigmoid", "c", name="y"))
    assert island(model, {"c": 1e5}) == {"a", "b", "c", "y"}
    assert island(model, {"c": 1e5, "b": 1.0, "x": 1.0}) == {"a", "c", "y"}


def test_moving_a_large_tensor_does_not_make_it_small() -> None:
    net = Net(x=["batch", 8, 4])
    y = net.op("Exp", "x", name="large")
    y = net.op("Reshape", y, net.constant("shape", [0, 32], np.int64), name="moved")
    model = net.model(net.op("Softmax", y, name="y", axis=1))
    assert island(model, {"large": 1e5}) == {"large", "moved", "y"}


def test_numbers_that_half_precision_cannot_write_stay_high() -> None:
    net = Net(x=["batch", 8])
    y = net.op("Add", "x", net.constant("epsilon", 1e-6), name="plus_epsilon")
    y = net.op("Max", y, net.constant("floor", np.full(8, -1e9)), name="masked")
    model = net.model(net.op("Add", y, net.constant("some", np.full(8, 1e-6)), name="y"))
    # a small bias among others is no epsilon
    assert island(model) == {"plus_epsilon", "masked"}


def test_a_convolution_with_a_single_tiny_bias_is_no_island() -> None:
    net = Net(x=["batch", 4, 8, 8])
    gate = net.conv("x", "gate", (1, 4, 1, 1), bias=[1e-7])
    assert island(net.model(net.op("Sigmoid", gate, name="y"))) == set()


def test_products_of_one_weight_stay_high_together() -> None:
    net = Net(a=["batch", 8], b=["batch", 8])
    weight = net.matrix("weight", 8, 8)
    for eye in ("a", "b"):
        net.op("Relu", net.op("MatMul", eye, weight, name=f"{eye}1"), name=f"{eye}2")
    model = net.model("a2", "b2")
    assert island(model, {"a2": 1e5}) == {"a1", "a2", "b1"}


def test_whoever_asks_gets_an_island_with_what_shares_its_pairs() -> None:
    found = island_of(GraphView(basic_block()), {}, {"conv1"})
    assert found == {"conv1", "added"}


def test_magnitudes_are_measured_of_what_could_overflow() -> None:
    # not of what an activation cuts off, nor of what only moves
    assert tensors_to_watch(GraphView(bottleneck())) == (
        *("x", "y1", "y2", "conv3", "downsample", "z", "mean", "logits"),
    )
    watched = tensors_to_watch(GraphView(cosine()))
    assert set(watched) >= {"aa", "sum_aa", "norms"}
