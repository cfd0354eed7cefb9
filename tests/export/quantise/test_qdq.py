"""The numbers that pairs, weights and biases are written with, by hand and against NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, checker
from small_graphs import (
    Array,
    Net,
    basic_block,
    bottleneck,
    dense_block,
    drawn,
    linear_bottleneck,
    range_of,
    ranges_of,
    run,
    tower,
)

from fundus_export.errors import ExportError
from fundus_export.graph_view import GraphView, attribute
from fundus_export.quantise.placement import Placement, place
from fundus_export.quantise.qdq import insert_pairs
from fundus_export.quantise.ranges import TensorRange
from fundus_export.quantise.scheme import scheme_of

INT8 = ("int8-cpu", "int8-trt", "int8-trt8")
SMALLEST_HALF = 2.0**-14


def quantised(
    model: onnx.ModelProto,
    dialect: str,
    ranges: Mapping[str, TensorRange],
    placement: Placement | None = None,
    **options: Any,
) -> GraphView:
    """With pairs everywhere, or where a placement says."""
    scheme = scheme_of(dialect)
    placement = placement or place(GraphView(model), scheme)
    written = insert_pairs(model, placement, ranges, scheme, **options)
    checker.check_model(written, full_check=True)
    return GraphView(written)


def pointwise(*, bias: Any = (1.0, -2.0)) -> onnx.ModelProto:
    """Two channels to two by one number each; the second row is small."""
    net = Net(x=["batch", 2, 4, 4])
    weight = np.reshape([[1.27, -0.3], [0.05, 0.127]], (2, 2, 1, 1))
    return net.model(net.conv("x", "y", weight=weight, bias=bias))


ON_X = Placement(frozenset({"y"}), {"x": frozenset({("y", 0)})}, {})
AROUND = Placement(frozenset({"y"}), {"x": frozenset({("y", 0)}), "y": frozenset()}, {})


def test_an_unsigned_scale_spans_the_range_and_zero_has_a_number_of_its_own() -> None:
    view = quantised(pointwise(), "int8-cpu", {"x": TensorRange(-0.6, 4.5, 9.0)}, ON_X)
    assert view.constant("x_scale") == np.float32(0.02)
    assert view.constant("x_zero_point") == np.uint8(30)
    # signed: the larger end alone
    for dialect in ("int8-trt", "int8-trt8"):
        view = quantised(pointwise(), dialect, {"x": TensorRange(-0.6, 4.445, 9.0)}, ON_X)
        expected = np.float32(0.035) if dialect == "int8-trt8" else np.float32(np.float16(0.035))
        assert view.constant("x_scale") == expected
        assert view.constant("x_zero_point").dtype == np.int8
        assert view.constant("x_zero_point") == 0


def test_weights_have_a_scale_an_output_channel() -> None:
    view = quantised(pointwise(), "int8-cpu", {"x": TensorRange(0.0, 2.55, 2.55)}, ON_X)
    np.testing.assert_allclose(view.constant("y.weight_scale"), [0.01, 0.001], rtol=1e-6)
    weight = view.constant("y.weight_quantized")
    assert weight.dtype == np.int8
    np.testing.assert_array_equal(weight.reshape(2, 2), [[127, -30], [50, 127]])
    np.testing.assert_array_equal(view.constant("y.weight_zero_point"), np.zeros(2, np.int8))


def test_a_bias_counts_in_units_of_both_scales() -> None:
    view = quantised(pointwise(), "int8-cpu", {"x": TensorRange(0.0, 2.55, 2.55)}, ON_X)
    np.testing.assert_allclose(view.constant("y_bias_scale"), [1e-4, 1e-5], rtol=1e-6)
    bias = view.constant("y_bias_quantized")
    assert bias.dtype == np.int32
    np.testing.assert_array_equal(bias, [10_000, -200_000])
    # for TensorRT it stays a number
    view = quantised(pointwise(), "int8-trt", {"x": TensorRange(0.0, 2.55, 2.55)}, ON_X)
    np.testing.assert_array_equal(view.constant("y_bias"), np.float32([1.0, -2.0]))


def test_the_bias_makes_up_for_rounded_weights() -> None:
    # 0.504 in steps of 0.01 is 50 steps, and 0.004 is lost
    weight = np.reshape([1.27, 0.504], (1, 2, 1, 1))
    net = Net(x=["batch", 2, 2, 2])
    model = net.model(net.conv("x", "y", weight=weight, bias=[1.0]))
    seen = {"x": TensorRange(0.0, 2.54, 2.54, (1.0, 2.0))}
    view = quantised(model, "int8-trt8", seen, ON_X)
    np.testing.assert_allclose(view.constant("y_bias"), [1.0 + 0.004 * 2.0], rtol=1e-6)
    # of a negative mean
    seen = {"x": TensorRange(-2.54, 2.54, 2.54, (0.0, -2.0))}
    view = quantised(model, "int8-trt8", seen, ON_X)
    np.testing.assert_allclose(view.constant("y_bias"), [1.0 - 0.004 * 2.0], rtol=1e-6)


def test_a_product_without_bias_gets_one_where_means_are_known() -> None:
    model = pointwise(bias=False)
    (node,) = quantised(model, "int8-cpu", {"x": TensorRange(0.0, 1.0, 1.0)}, ON_X).nodes[-1:]
    assert len(node.input) == 2
    seen = {"x": TensorRange(0.0, 1.0, 1.0, (0.3, 0.4))}
    for dialect in INT8:
        (node,) = [n for n in quantised(model, dialect, seen, ON_X).nodes if n.name == "y"]
        assert node.input[2].startswith("y_bias")


def test_on_average_the_answer_is_that_of_exact_weights() -> None:
    net = Net(x=["batch", 64, 8, 8])
    model = net.model(net.conv("x", "y", (32, 64, 1, 1), bias=False))
    x = np.abs(drawn(4, 64, 8, 8)) + 1.0
    seen = range_of(x)
    errors = {}
    for corrected in (True, False):
        ranges = {"x": seen if corrected else TensorRange(seen.low, seen.high, seen.largest)}
        found = run(quantised(model, "int8-trt8", ranges, ON_X).model, {"x": x})["y"]
        errors[corrected] = np.abs((found - run(model, {"x": x})["y"]).mean(axis=(0, 2, 3))).max()
    # what is left stems from rounding this x, of which the calibration knows nothing
    assert errors[True] < 0.15 * errors[False]


def steps(x: Array, scale: Array, zero: Array, kind: Any) -> Array:
    """What comes back from 8 bits."""
    limits = np.iinfo(kind)
    whole = np.clip(np.rint(x / np.float32(scale)) + int(zero), limits.min, limits.max)
    return ((whole - int(zero)) * np.float64(scale)).astype(np.float32)


def convolved(x: Array, weight: Array, node: onnx.NodeProto) -> Array:
    """A convolution by its definition."""
    group = attribute(node, "group") or 1
    stride = (attribute(node, "strides") or [1])[0]
    pad = attribute(node, "pads")[0]
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    side = weight.shape[-1]
    windows = sliding_window_view(padded, (side, side), axis=(2, 3))[:, :, ::stride, ::stride]
    shares = np.split(windows, group, axis=1)
    kernels = np.split(weight.astype(np.float64), group)
    made = [np.einsum("nchwij,ocij->nohw", *pair) for pair in zip(shares, kernels, strict=True)]
    return np.concatenate(made, axis=1)


@pytest.mark.parametrize("dialect", INT8)
@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((8, 6, 1, 1), {}),
        ((8, 6, 3, 3), {"strides": [2, 2]}),
        ((6, 1, 3, 3), {"group": 6}),
        ((8, 3, 3, 3), {"group": 2}),
    ],
)
def test_a_convolution_answers_what_numpy_makes_of_rounded_numbers(
    dialect: str, shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    net = Net(x=["batch", 6, 9, 9])
    model = net.model(net.conv("x", "y", shape, **attributes))
    x = drawn(2, 6, 9, 9)
    view = quantised(model, dialect, {"x": TensorRange(-1.5, 2.5, 4.0, (0.1,) * 6)}, ON_X)
    kind = np.uint8 if dialect == "int8-cpu" else np.int8
    rounded = steps(x, view.constant("x_scale"), view.constant("x_zero_point"), kind)
    # the percentile left values outside: they are held at the ends
    assert rounded.max() < x.max()
    scale = view.constant("y.weight_scale").reshape(-1, 1, 1, 1)
    weight = net.constants["y.weight"]
    whole = np.clip(np.rint(weight / scale), -127, 127)
    assert np.abs(whole).max() == 127
    bias = net.constants["y.bias"] + (weight - whole * scale).sum(axis=(1, 2, 3)) * 0.1
    if dialect == "int8-cpu":
        unit = (scale.ravel() * view.constant("x_scale")).astype(np.float64)
        bias = np.rint(bias / unit) * unit
    (node,) = [node for node in view.nodes if node.name == "y"]
    expected = convolved(rounded, whole * scale, node) + bias.reshape(-1, 1, 1)
    found = run(view.model, {"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dialect", INT8)
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_matrix_product_is_scaled_along_its_outputs(dialect: str, transposed: int) -> None:
    net = Net(x=["batch", 4])
    weight = np.float32([[1.27, 0.0, 0.0635], [-0.5, 2.54, 0.0], [0.0, 0.0, 0.01], [0.3, 0.1, 0.0]])
    stored = net.constant("w", weight.T if transposed else weight)
    bias = net.constant("b", [0.5, 0.25, 0.0])
    model = net.model(net.op("Gemm", "x", stored, bias, name="y", transB=transposed))
    view = quantised(model, dialect, {"x": TensorRange(0.0, 2.54, 2.54)}, ON_X)
    loss = 5e-4 if dialect == "int8-trt" else 1e-6
    np.testing.assert_allclose(view.constant("w_scale"), [0.01, 0.02, 0.0005], rtol=loss)
    (node,) = [node for node in view.nodes if node.output[0] == "w_dequantized"]
    assert attribute(node, "axis") == 1 - transposed
    x = np.float32([[0.0, 2.54, 1.27, 0.02]])
    found = run(view.model, {"x": x})["y"]
    np.testing.assert_allclose(found, run(model, {"x": x})["y"], atol=0.02)


@pytest.mark.parametrize("build", [basic_block, bottleneck, linear_bottleneck, dense_block, tower])
@pytest.mark.parametrize("dialect", INT8)
def test_whole_networks_answer_nearly_what_they_did(build: Any, dialect: str) -> None:
    model = build()
    (value,) = model.graph.input
    feeds = {value.name: drawn(2, *(a.dim_value for a in value.type.tensor_type.shape.dim[1:]))}
    tensors = place(GraphView(model), scheme_of(dialect)).tensors
    view = quantised(model, dialect, ranges_of(model, feeds, tensors))
    expected, found = run(model, feeds)["logits"], run(view.model, feeds)["logits"]
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.06 * np.abs(expected).max())


def test_for_tensorrt_8_pairs_have_three_inputs_and_weights_stay_numbers() -> None:
    seen = {"x": TensorRange(0.0, 2.55, 2.55)}
    view = quantised(pointwise(), "int8-trt8", seen, ON_X)
    pairs = [node for node in view.nodes if "Quantize" in node.op_type or "Dequ" in node.op_type]
    assert Counter(node.op_type for node in pairs) == {"QuantizeLinear": 2, "DequantizeLinear": 2}
    assert all(len(node.input) == 3 for node in pairs)
    assert view.element_type("y.weight") == TensorProto.FLOAT
    assert view.element_type("y.weight_quantized") == TensorProto.INT8
    assert not view.is_constant("y.weight_quantized")
    # the engine rounds as the correction of the bias supposes
    answers = run(view.model, {"x": drawn(1, 2, 4, 4)}, tensors=["y.weight_quantized"])
    stored = quantised(pointwise(), "int8-cpu", seen, ON_X).constant("y.weight_quantized")
    np.testing.assert_array_equal(answers["y.weight_quantized"], stored)


@pytest.mark.parametrize("dialect", INT8)
def test_a_dead_channel_has_a_scale_above_zero_and_answers_its_bias(dialect: str) -> None:
    net = Net(x=["batch", 2, 4, 4])
    weight = np.reshape([[1.0, 2.0], [0.0, 0.0], [1e-30, 0.0]], (3, 2, 1, 1))
    model = net.model(net.conv("x", "y", weight=weight, bias=[0.0, 0.75, -0.5]))
    view = quantised(model, dialect, {"x": TensorRange(-3.0, 3.0, 3.0, (0.1, 0.1))}, ON_X)
    scale = view.constant("y.weight_scale")
    assert (scale >= (SMALLEST_HALF if dialect == "int8-trt" else 1e-12)).all()
    found = run(view.model, {"x": drawn(1, 2, 4, 4)})["y"]
    np.testing.assert_allclose(found[0, 1], 0.75, rtol=1e-6)
    np.testing.assert_allclose(found[0, 2], -0.5, rtol=1e-6)


@pytest.mark.parametrize("dialect", INT8)
def test_a_tensor_that_was_always_zero_has_a_scale_above_zero(dialect: str) -> None:
    view = quantised(pointwise(), dialect, {"x": TensorRange(0.0, 0.0, 0.0, (0.0, 0.0))}, ON_X)
    assert view.constant("x_scale") > 0
    assert view.constant("x_zero_point") == 0
    found = run(view.model, {"x": np.zeros((1, 2, 4, 4), np.float32)})["y"]
    np.testing.assert_allclose(found[0, :, 0, 0], [1.0, -2.0], rtol=1e-6)


def test_a_bias_far_beyond_its_weights_fits_32_bits() -> None:
    model = pointwise(bias=(5e6, -2e9))
    view = quantised(model, "int8-cpu", {"x": TensorRange(0.0, 0.0255, 0.0255, (0.01,) * 2)}, ON_X)
    bias = view.constant("y_bias_quantized").astype(np.int64)
    assert np.abs(bias).max() <= 2**30 + 2**20
    np.testing.assert_allclose(bias * view.constant("y_bias_scale"), [5e6, -2e9], rtol=1e-5)
    # an ordinary bias widens no scale
    ordinary = quantised(pointwise(), "int8-cpu", {"x": TensorRange(0.0, 2.55, 2.55)}, ON_X)
    np.testing.assert_allclose(ordinary.constant("y.weight_scale"), [0.01, 0.001], rtol=1e-6)


def shared() -> onnx.ModelProto:
    """Two convolutions of different inputs with one weight and one bias."""
    net = Net(x=["batch", 16, 16, 16])
    net.conv("x", "a", (16, 16, 3, 3))
    relu = net.op("Relu", "a", name="r")
    net.op("Conv", relu, "a.weight", "a.bias", name="b", pads=[1] * 4)
    return net.model(net.op("Sigmoid", "b", name="y"))


@pytest.mark.parametrize("dialect", INT8)
def test_a_shared_weight_is_written_once_and_each_node_has_a_bias_of_its_own(dialect: str) -> None:
    model = shared()
    feeds = {"x": drawn(1, 16, 16, 16)}
    view = quantised(model, dialect, ranges_of(model, feeds, ["x", "r", "b"]))
    read = {node.name: list(node.input) for node in view.nodes}
    assert read["a"][1] == read["b"][1] == "a.weight_dequantized"
    ending = "_dequantized" if dialect == "int8-cpu" else ""
    assert (read["a"][2], read["b"][2]) == (f"a_bias{ending}", f"b_bias{ending}")
    written = sum(node.output[0] == "a.weight_dequantized" for node in view.nodes)
    assert written == 1
    expected, found = run(model, feeds)["y"], run(view.model, feeds)["y"]
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("dialect", INT8)
def test_raising_one_reader_of_a_shared_weight_leaves_the_other_quantised(dialect: str) -> None:
    model = shared()
    placement = place(GraphView(model), scheme_of(dialect), ["b"])
    ranges = ranges_of(model, {"x": drawn(1, 16, 16, 16)}, ["x", "r", "b"])
    view = quantised(model, dialect, ranges, placement)
    read = {node.name: list(node.input) for node in view.nodes}
    assert read["a"][1] == "a.weight_dequantized"
    assert read["b"][1:] == ["a.weight", "a.bias"]
    np.testing.assert_array_equal(view.constant("a.weight"), GraphView(model).constant("a.weight"))


def test_a_matrix_that_is_read_along_both_axes_is_scaled_along_both() -> None:
    net = Net(x=["batch", 2], z=["batch", 2])
    weight = net.constant("w", [[1.27, 0.0], [0.254, 0.127]])
    net.op("MatMul", "x", weight, name="a")
    net.op("Gemm", "z", weight, name="b", transB=1)
    model = net.model(net.op("Add", "a", "b", name="y"))
    placement = Placement(
        frozenset({"a", "b"}), {"x": frozenset({("a", 0)}), "z": frozenset({("b", 0)})}, {}
    )
    seen = TensorRange(-1.27, 1.27, 1.27)
    view = quantised(model, "int8-trt8", {"x": seen, "z": seen}, placement)
    np.testing.assert_allclose(view.constant("w_scale"), [0.01, 0.001], rtol=1e-6)
    np.testing.assert_allclose(view.constant("w_axis_0_scale"), [0.01, 0.002], rtol=1e-6)
    feeds = {"x": np.float32([[1, 0.5]]), "z": np.float32([[0.3, -1]])}
    np.testing.assert_allclose(
        run(view.model, feeds)["y"], run(model, feeds)["y"], rtol=0.02, atol=0.01
    )


def test_a_pool_writes_in_the_units_of_what_it_reads() -> None:
    model = dense_block()
    feeds = {"image": drawn(1, 3, 16, 16)}
    tensors = place(GraphView(model), scheme_of("int8-cpu")).tensors
    ranges = ranges_of(model, feeds, tensors)
    ranges["pooled"] = TensorRange(0.0, 0.5, 0.5, ranges["pooled"].means)
    view = quantised(model, "int8-cpu", ranges)
    assert view.constant("pooled_scale") == view.constant("every_scale")
    assert view.constant("pooled_zero_point") == view.constant("every_zero_point")


def test_scales_are_halves_where_the_rest_will_be() -> None:
    model = basic_block()
    seen = {name: TensorRange(-1.0, 3.3, 3.3) for name in ("image", "x", "y")}
    view = quantised(model, "int8-trt", seen)
    scales = [t.name for t in view.model.graph.initializer if t.name.endswith("_scale")]
    assert len(scales) == 6
    for name in scales:
        scale = view.constant(name)
        np.testing.assert_array_equal(scale, scale.astype(np.float16).astype(np.float32))
        assert (scale >= SMALLEST_HALF).all()


def test_what_stays_high_has_scales_beyond_what_halves_hold() -> None:
    model = basic_block()
    seen = {
        "image": TensorRange(-1.0, 3.3, 3.3),
        "x": TensorRange(0.0, 1e9, 1e9),
        "y": TensorRange(0.0, 1e-6, 1e-6),
    }
    wide = {"conv1", "conv2", "added"}
    view = quantised(model, "int8-trt", seen, wide=wide)
    np.testing.assert_allclose(view.constant("x_scale"), 1e9 / 127, rtol=1e-6)
    np.testing.assert_allclose(view.constant("y_scale"), 1e-6 / 127, rtol=1e-6)
    weight = GraphView(model).constant("conv1.weight")
    exact = np.abs(weight).max(axis=(1, 2, 3)) / 127
    np.testing.assert_allclose(view.constant("conv1.weight_scale"), exact, rtol=1e-6)
    assert (view.constant("stem.weight_scale") != exact[0]).all()
    image = view.constant("image_scale")
    assert image == image.astype(np.float16).astype(np.float32)


def test_a_missing_range_is_refused() -> None:
    with pytest.raises(ExportError, match=r"no range of the tensor 'x'; .* calibrate again"):
        quantised(pointwise(), "int8-cpu", {"y": TensorRange(0.0, 1.0, 1.0)}, AROUND)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused(value: float) -> None:
    net = Net(x=["batch", 1, 2, 2])
    model = net.model(net.conv("x", "y", weight=np.reshape([1.0, value], (2, 1, 1, 1))))
    with pytest.raises(ExportError, match=r"'y\.weight' holds NaN or infinity"):
        quantised(model, "int8-trt", {"x": TensorRange(0.0, 1.0, 1.0)}, ON_X)


@pytest.mark.parametrize("dialect", INT8)
def test_the_graph_that_came_in_is_left_and_names_in_it_are_kept(dialect: str) -> None:
    model = basic_block()
    before = model.SerializeToString(deterministic=True)
    seen = {name: TensorRange(-1.0, 3.0, 3.0) for name in ("image", "x", "y", "conv2")}
    view = quantised(model, dialect, seen)
    assert model.SerializeToString(deterministic=True) == before
    kept = {name for node in model.graph.node for name in node.output}
    assert kept <= {name for node in view.nodes for name in node.output}
    assert {node.name for node in model.graph.node} <= {node.name for node in view.nodes}
    assert len({node.name for node in view.nodes}) == len(view.nodes)
