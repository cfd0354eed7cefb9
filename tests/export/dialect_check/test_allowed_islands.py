"""Which nodes may stay FP32 is read off the graph and what a calibration saw, nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import checker
from small_graphs import (
    Net,
    basic_block,
    bottleneck,
    dense_block,
    drawn,
    linear_bottleneck,
    ranges_of,
    tower,
)

from fundus_export.dialect_check import UntrustedView, check_dialect
from fundus_export.dialect_check.islands import islands_around, with_pairs
from fundus_export.graph_view import GraphView
from fundus_export.half import to_half
from fundus_export.islands import LARGEST_SAFE, island_of, tensors_to_watch
from fundus_export.opsets import with_opset
from fundus_export.quantise.placement import place, products
from fundus_export.quantise.qdq import insert_pairs
from fundus_export.quantise.ranges import TensorRange
from fundus_export.quantise.scheme import scheme_of

LARGE = 2 * LARGEST_SAFE
NOT_OURS = "graph-interface"


def rules(model: onnx.ModelProto, dialect: str, islands: frozenset[str] = frozenset()) -> set[str]:
    found = check_dialect(model, dialect, islands=islands)
    return {finding.rule for finding in found} - {NOT_OURS}


def quantised(model: onnx.ModelProto, largest: dict[str, float]) -> onnx.ModelProto:
    """For TensorRT, as the quantiser writes it."""
    scheme, view = scheme_of("int8-trt"), GraphView(model)
    placement, island = place(view, scheme), island_of(view, largest)
    ranges = ranges_of(model, {"image": drawn(1, 3, 32, 32)}, placement.tensors)
    paired = insert_pairs(model, placement, ranges, scheme, wide=island)
    paired.opset_import[0].version = 19
    return to_half(paired, island)


def test_without_large_tensors_nothing_may_stay_high() -> None:
    model = basic_block()
    assert islands_around(UntrustedView(model), {}) == set()
    assert islands_around(UntrustedView(model), {"x": LARGEST_SAFE, "z": 1.0}) == set()
    high = to_half(model, {"conv1"})
    assert rules(high, "fp16", islands_around(UntrustedView(high), {"x": 1.0})) == {"type-high"}


@pytest.mark.parametrize("large", ["x", "y1", "y2", "conv3", "downsample", "z"])
@pytest.mark.parametrize("dialect", ["fp16", "int8-trt"])
def test_around_a_large_tensor_what_is_written_is_allowed(large: str, dialect: str) -> None:
    model, seen = bottleneck(), {large: LARGE}
    if dialect == "fp16":
        written = to_half(model, island_of(GraphView(model), seen))
    else:
        written = quantised(model, seen)
    # only large tensors make it so
    broken = {"type-high"} | ({"qdq-scale-type"} if dialect == "int8-trt" else set())
    assert rules(written, dialect) == broken
    assert rules(written, dialect, islands_around(UntrustedView(written), seen)) == set()


@pytest.mark.parametrize("build", [basic_block, bottleneck, linear_bottleneck, dense_block, tower])
def test_writer_and_checker_agree_whatever_is_large_and_raised(build: Any) -> None:
    model, scheme = build(), scheme_of("int8-trt")
    view = GraphView(model)
    watched, names = tensors_to_watch(view), [node.name for node in products(view)]
    random = np.random.default_rng(0)
    for _ in range(8):
        seen = dict.fromkeys(watched, 1.0)
        seen |= dict.fromkeys(random.choice(watched, random.integers(1, 4)), LARGE)
        raised = random.choice(names, random.integers(0, 3)).tolist()
        island, placement = island_of(view, seen), place(view, scheme, raised)
        ranges = dict.fromkeys(placement.tensors, TensorRange(-1.0, 1.0, 1.0))
        paired = insert_pairs(model, placement, ranges, scheme, wide=island)
        typed = {
            "int8-trt": to_half(with_opset(paired, 19), island),
            "fp16": to_half(model, island),
        }
        for dialect, written in typed.items():
            checker.check_model(written, full_check=True)
            assert rules(written, dialect, island) - {"qdq-missing"} == set()
            derived = islands_around(UntrustedView(written), seen)
            assert rules(written, dialect, derived) - {"qdq-missing"} == set()


def test_of_two_islands_the_one_without_a_reason_is_not_allowed() -> None:
    written = to_half(bottleneck(), {"conv1", "y1", "conv2", "conv3"})
    view = UntrustedView(written)
    assert islands_around(view, {"y1": LARGE}) == {"conv1", "y1", "conv2"}
    (finding,) = check_dialect(written, "fp16", islands=islands_around(view, {"y1": LARGE}))[1:]
    assert (finding.node, finding.rule) == ("conv3", "type-high")
    assert islands_around(view, {"y1": LARGE, "conv3": LARGE}) == {"conv1", "y1", "conv2", "conv3"}


def test_a_constant_beyond_half_precision_is_a_reason() -> None:
    net = Net(image=["batch", 3, 8, 8])
    net.conv("image", "a", (4, 3, 3, 3), bias=[1e5, 0, 0, 0])
    net.conv("a", "b", (4, 4, 3, 3))
    model = net.model("b")
    view = UntrustedView(to_half(model, island_of(GraphView(model), {})))
    assert islands_around(view, {}) == {"a"}


def test_nodes_that_share_a_small_constant_are_no_island_for_that() -> None:
    net = Net(image=["batch", 3, 8, 8])
    first = net.relu6(net.conv("image", "a", (4, 3, 3, 3)), "first")
    net.relu6(net.conv(first, "b", (4, 4, 3, 3)), "second")
    written = to_half(net.model("second"), {"a", "first", "second"})
    assert islands_around(UntrustedView(written), {"first": LARGE}) == {"a", "first"}


def test_a_node_is_named_with_the_pairs_that_it_reads_through() -> None:
    view = UntrustedView(quantised(bottleneck(), {}))
    assert with_pairs(view, ["conv2"]) == {
        "conv2",
        *("y1_QuantizeLinear", "y1_DequantizeLinear", "conv2.weight_DequantizeLinear"),
    }
    assert with_pairs(view, ["added"]) == {
        *("added", "downsample_QuantizeLinear", "downsample_DequantizeLinear"),
    }
    assert with_pairs(view, ["z"]) == {"z"}
