"""A folded stem answers bit by bit what it did, and only what can be folded is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker
from small_graphs import Net, drawn, ranges_of, run

from fundus_export.dialect_check import check_dialect
from fundus_export.graph_view import GraphView
from fundus_export.quantise.placement import place
from fundus_export.quantise.qdq import insert_pairs
from fundus_export.quantise.scheme import scheme_of
from fundus_export.quantise.stem import fold_stem
from fundus_runtime import _native

STEP: dict[str, Any] = {"strides": [2, 2]}


def quantised(model: onnx.ModelProto, *, raised: tuple[str, ...] = ()) -> onnx.ModelProto:
    """For CPUs, with ranges of drawn images."""
    view, scheme = GraphView(model), scheme_of("int8-cpu")
    placement = place(view, scheme, raised)
    feeds = {name: drawn(2, *view.shape(name)[1:]) for name in view.inputs}
    return insert_pairs(model, placement, ranges_of(model, feeds, placement.tensors), scheme)


def stem(*, kernel: int = 7, channels: int = 3, side: int = 32, **attributes: Any) -> Net:
    """A stem, and a convolution behind it."""
    net = Net(image=["batch", channels, side, side])
    options = {**STEP, **attributes}
    x = net.conv("image", "stem", (64, channels, kernel, kernel), **options)
    end(net, net.conv(net.op("Relu", x, name="x"), "next", (64, 64, 3, 3)), "y")
    return net


def end(net: Net, x: str, name: str) -> None:
    """An output behind further operators, so that `x` itself is quantised."""
    net.op("Neg", net.op("Relu", x), name=name)


def folds(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "SpaceToDepth" for node in model.graph.node)


@pytest.mark.skipif(
    not any(_native.cpu_features().get(name) for name in ("avx512_vnni", "avx_vnni", "asimddp")),
    reason="this processor has no dot product, and saturates sums of neighbours",
)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kernel", [5, 7, 9])
def test_answers_are_the_same_bit_by_bit(kernel: int, channels: int) -> None:
    """By the engine's integer kernels; floats add up in another order."""
    model = quantised(stem(kernel=kernel, channels=channels).model("y"))
    folded = fold_stem(model)
    checker.check_model(folded, full_check=True)
    assert folds(folded) == 1
    # beyond the range, too, and an odd batch
    image = 2 * drawn(3, channels, 32, 32, seed=1)
    expected, found = (run(one, {"image": image}, optimised=True)["y"] for one in (model, folded))
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(found, expected)


def test_it_reads_twelve_channels_with_four_by_four_weights_of_the_same_sum() -> None:
    model = quantised(stem().model("y"))
    before, after = GraphView(model), GraphView(fold_stem(model))
    (weight,) = (
        node.input[0] for node in after.nodes if node.name == "stem.weight_DequantizeLinear"
    )
    assert after.shape("image_blocks") == (None, 12, 16, 16)
    assert after.shape(weight) == (64, 12, 4, 4)
    assert after.element_type(weight) == TensorProto.INT8
    one, other = (view.constant(weight).astype(int) for view in (before, after))
    np.testing.assert_array_equal(np.sort(one[one != 0]), np.sort(other[other != 0]))


def test_it_keeps_the_names_of_inputs_and_outputs_and_the_dialects_rules() -> None:
    model = quantised(stem().model("y"))
    folded = fold_stem(model)
    assert check_dialect(folded, "int8-cpu") == check_dialect(model, "int8-cpu")
    for part in ("input", "output", "initializer"):
        before, after = (list(getattr(one.graph, part)) for one in (model, folded))
        assert [entry.name for entry in before] == [entry.name for entry in after]
    names = [node.name for node in folded.graph.node]
    assert set(names) - {node.name for node in model.graph.node} == {"image_blocks_SpaceToDepth"}
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "net",
    [
        stem(kernel=3),  # gathers little
        stem(kernel=6, pads=[3] * 4),
        stem(strides=[1, 1]),
        stem(strides=[2, 1]),
        stem(pads=[2, 3, 4, 3]),
        stem(dilations=[2, 2]),
        stem(side=33),  # no whole blocks
        stem(channels=8),
    ],
)
def test_what_cannot_be_folded_stays_as_it_is(net: Net) -> None:
    model = quantised(net.model("y"))
    assert "image_quantized" in {name for node in model.graph.node for name in node.output}
    assert fold_stem(model) == model
    assert fold_stem(model) is not model


def test_a_raised_stem_stays_as_it_is() -> None:
    model = quantised(stem().model("y"), raised=("stem",))
    assert fold_stem(model) == model


def test_weights_that_another_convolution_reads_stay_as_they_are() -> None:
    net = stem()
    negative = net.op("Neg", "image")
    end(net, net.op("Conv", negative, "stem.weight", pads=[3] * 4, **STEP), "z")
    model = quantised(net.model("y", "z"))
    readers = GraphView(model).readers("stem.weight_dequantized")
    assert len(readers) == 2
    assert fold_stem(model) == model


def test_an_image_that_another_convolution_reads_in_8_bits_stays_as_it_is() -> None:
    net = stem()
    end(net, net.conv("image", "other", (64, 3, 7, 7)), "z")
    model = quantised(net.model("y", "z"))
    assert len(GraphView(model).readers("image_dequantized")) == 2
    assert fold_stem(model) == model


def test_an_image_that_is_read_in_floating_point_too_is_folded_for_the_stem() -> None:
    net = stem()
    net.op("Neg", "image", name="z")
    model = quantised(net.model("y", "z"))
    folded = fold_stem(model)
    assert folds(folded) == 1
    image = drawn(2, 3, 32, 32)
    np.testing.assert_array_equal(run(folded, {"image": image})["z"], -image)


def test_the_source_is_left_as_it_is() -> None:
    model = quantised(stem().model("y"))
    text = model.SerializeToString(deterministic=True)
    fold_stem(model)
    assert model.SerializeToString(deterministic=True) == text
