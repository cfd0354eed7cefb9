"""Ranges of activations: those of the graph as it is written, from one pass, without NaN."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes
from fundus_export.quantise.feeds import eye_feeds
from fundus_export.quantise.images import Minimum, open_calibration_images
from fundus_export.quantise.ranges import RangeMethod, TensorRange, measure_ranges
from fundus_training.checkpoint import load_checkpoint

SHIPPED = Path(__file__).parents[3] / "bundles" / "edge" / "checkpoint.safetensors"
MINMAX = RangeMethod("minmax")
Array = npt.NDArray[Any]
Feed = dict[str, Array]

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
CHECKED = ("image", "conv", "scaled", "relu", "above", "negative", "below", "dead", "answer")


def graph_of(nodes: Sequence[onnx.NodeProto], *constants: tuple[str, Array]) -> bytes:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(value, name) for name, value in constants]
    graph = helper.make_graph(list(nodes), "graph", [image], [answer], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def graph() -> bytes:
    """A convolution that an optimiser would merge with what follows it."""
    return graph_of(
        [
            helper.make_node("Conv", ["image", "weight"], ["conv"]),
            helper.make_node("Mul", ["conv", "ten"], ["scaled"]),
            helper.make_node("Relu", ["scaled"], ["relu"]),
            helper.make_node("Add", ["relu", "ten"], ["above"]),
            helper.make_node("Neg", ["relu"], ["negative"]),
            helper.make_node("Sub", ["negative", "ten"], ["below"]),
            helper.make_node("Clip", ["negative", "zero"], ["dead"]),
            helper.make_node("Greater", ["relu", "zero"], ["flags"]),
            helper.make_node("Add", ["negative", "ten"], ["answer"]),
        ],
        ("weight", WEIGHT),
        ("ten", np.float32(10)),
        ("zero", np.float32(0)),
    )


def exams(count: int = 9) -> list[Feed]:
    rng = np.random.default_rng(1)
    return [{"image": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def activations(feeds: Sequence[Feed]) -> dict[str, Array]:
    """The same graph in NumPy, in double precision."""
    image = np.concatenate([feed["image"] for feed in feeds])
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(2, 3))
    conv = np.einsum("nchwij,ocij->nohw", windows, WEIGHT, dtype=np.float64)
    relu = np.maximum(10 * conv, 0)
    return {
        "image": image,
        "conv": conv,
        "scaled": 10 * conv,
        "relu": relu,
        "above": relu + 10,
        "negative": -relu,
        "below": -relu - 10,
        "dead": np.zeros(1),
        "answer": 10 - relu,
    }


def measured(
    graph: bytes, feeds: Sequence[Feed], tensors: Sequence[str], method: RangeMethod
) -> dict[str, TensorRange]:
    return measure_ranges(
        graph, lambda: iter(feeds), tensors, method, total=len(feeds), progress=False
    )


def test_min_max_is_what_brute_force_finds(graph: bytes) -> None:
    feeds = exams()
    ranges = measured(graph, feeds, CHECKED, MINMAX)
    assert list(ranges) == list(CHECKED)
    for tensor, values in activations(feeds).items():
        found = ranges[tensor]
        assert found.low == pytest.approx(min(values.min(), 0), rel=1e-5), tensor
        assert found.high == pytest.approx(max(values.max(), 0), rel=1e-5), tensor
        assert found.largest == pytest.approx(np.abs(values).max(), rel=1e-5), tensor


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_a_percentile_is_numpys_to_the_bin(graph: bytes, percentile: float) -> None:
    feeds = exams(40)
    ranges = measured(graph, feeds, CHECKED, RangeMethod("percentile", percentile))
    for tensor, values in activations(feeds).items():
        found = ranges[tensor]
        tolerance = float(np.abs(values).max()) / 2048 + 1e-5
        high = max(0.0, np.percentile(values, percentile, method="inverted_cdf"))
        low = min(0.0, -np.percentile(-values, percentile, method="inverted_cdf"))
        assert found.high == pytest.approx(high, abs=tolerance), tensor
        assert found.low == pytest.approx(low, abs=tolerance), tensor
        assert found.largest == pytest.approx(np.abs(values).max(), rel=1e-5), tensor


def test_zero_lies_in_every_range(graph: bytes) -> None:
    for method in (MINMAX, RangeMethod()):
        ranges = measured(graph, exams(), ("relu", "above", "negative", "below"), method)
        for tensor in ("relu", "above"):
            assert ranges[tensor].low == 0 < ranges[tensor].high == ranges[tensor].magnitude
        for tensor in ("negative", "below"):
            assert ranges[tensor].high == 0 > ranges[tensor].low == -ranges[tensor].magnitude


def test_a_range_does_not_depend_on_what_else_is_measured(graph: bytes) -> None:
    # an optimiser would fold the factor 10 into the weights wherever "conv" is not asked for
    together = measured(graph, exams(), CHECKED, MINMAX)
    for tensor in CHECKED:
        assert measured(graph, exams(), [tensor], MINMAX)[tensor] == together[tensor], tensor


def test_a_tensor_of_zeros_is_told_as_dead(graph: bytes) -> None:
    for method in (MINMAX, RangeMethod()):
        ranges = measured(graph, exams(), ("dead", "relu"), method)
        dead = ranges["dead"]
        assert (dead.low, dead.high, dead.largest, set(dead.means)) == (0.0, 0.0, 0.0, {0.0})
        assert ranges["dead"].dead
        assert not ranges["relu"].dead


def test_an_input_alone_can_be_measured(graph: bytes) -> None:
    feeds = exams()
    (found,) = measured(graph, feeds, ("image",), MINMAX).values()
    assert found.high == max(float(feed["image"].max()) for feed in feeds)


def test_only_one_exam_is_in_memory_at_a_time(graph: bytes) -> None:
    alive: list[weakref.ref[Array]] = []
    most = 0

    def feeds() -> Iterator[Feed]:
        nonlocal most
        for _ in range(20):
            image = np.random.default_rng(2).normal(size=(1, 3, 8, 8)).astype(np.float32)
            alive.append(weakref.ref(image))
            yield {"image": image}
            most = max(most, sum(one() is not None for one in alive))
            del image

    # the input is measured as well, so that keeping activations would keep it
    measure_ranges(graph, feeds, CHECKED, RangeMethod(), total=20, progress=False)
    assert most <= 2


@pytest.mark.parametrize(
    ("operator", "bad"), [("Sqrt", "NaN"), ("Reciprocal", "infinity")], ids=["nan", "infinity"]
)
@pytest.mark.parametrize("method", [MINMAX, RangeMethod()], ids=str)
def test_the_first_tensor_that_is_not_finite_is_named(
    operator: str, bad: str, method: RangeMethod
) -> None:
    graph = graph_of(
        [
            helper.make_node("Identity", ["image"], ["before"]),
            helper.make_node(operator, ["before"], ["broken"]),
            helper.make_node("Mul", ["broken", "broken"], ["answer"]),
        ]
    )
    good, spoilt = np.ones((1, 3, 8, 8), np.float32), np.ones((1, 3, 8, 8), np.float32)
    spoilt[0, 1, 2, 3] = {"NaN": -1.0, "infinity": 0.0}[bad]
    feeds = [{"image": good}, {"image": spoilt}]
    with pytest.raises(ExportError, match=r"'broken' holds NaN or infinity in exam 2.*weights"):
        measured(graph, feeds, ("answer", "broken", "before"), method)


def test_what_cannot_be_measured_is_refused_by_name(graph: bytes) -> None:
    for tensor, words in {
        "nothing": "has no tensor 'nothing'",
        "weight": "'weight' of the graph is a weight",
        "flags": r"'flags' of the graph is tensor\(bool\)",
    }.items():
        with pytest.raises(ExportError, match=words):
            measured(graph, exams(), ("relu", tensor), MINMAX)


def test_no_exam_at_all_is_refused(graph: bytes) -> None:
    with pytest.raises(ExportError, match="there is no exam to measure with"):
        measured(graph, [], ("relu",), MINMAX)


def test_a_feed_that_does_not_fit_the_graph_is_refused(graph: bytes) -> None:
    with pytest.raises(ExportError, match="failed in the graph"):
        measured(graph, [{"image": np.zeros((1, 3, 9, 9))}], ("relu",), MINMAX)
    with pytest.raises(ExportError, match="cannot load the graph"):
        measure_ranges(
            graph_of([helper.make_node("Unheard", ["image"], ["answer"])]),
            lambda: iter(exams()),
            ("answer",),
            MINMAX,
            total=1,
            progress=False,
        )


def test_progress_is_shown_unless_it_is_not_wanted(
    graph: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(graph, exams(), ("relu",), MINMAX)
    assert capsys.readouterr().err == ""
    measure_ranges(graph, lambda: iter(exams()), ("relu",), MINMAX, total=9, describe="head")
    shown = capsys.readouterr()
    assert "head" in shown.err
    assert "9/9" in shown.err
    assert shown.out == ""


def test_a_percentile_needs_more_photographs_than_min_max() -> None:
    percentile, minmax = RangeMethod().minimum, MINMAX.minimum
    assert (percentile.eyes, percentile.pairs) == (64, 32)
    assert (minmax.eyes, minmax.pairs) == (32, 16)
    assert str(minmax) == "calibration by min-max needs at least 32 eyes, 16 pairs among them"
    assert "percentile 99.99 needs at least 64 eyes" in str(percentile)


def test_methods_are_validated() -> None:
    assert RangeMethod("minmax", 99.0) == MINMAX
    assert MINMAX.to_dict() == {"name": "minmax", "percentile": 100.0}
    for percentile in (50, 100.5, float("nan"), -1):
        with pytest.raises(ExportError, match="more than 50 and at most 100"):
            RangeMethod("percentile", percentile)
    with pytest.raises(ExportError, match="expected percentile or minmax"):
        RangeMethod("entropy")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="expected a number"):
        RangeMethod("percentile", "99")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values", [(1.0, 2.0, 3.0), (-1.0, -0.5, 1.0), (-2.0, 0.0, 1.0), (0.0, float("nan"), 1.0)]
)
def test_what_is_no_range_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ExportError, match="are no range"):
        TensorRange(*values)


def test_every_tensor_of_the_shipped_encoder_is_measured_on_real_eyes(
    fundus_data: Path, edge_graphs: GraphBytes
) -> None:
    graph = edge_graphs.encoder
    images = open_calibration_images(
        fundus_data / "odir" / "images",
        load_checkpoint(SHIPPED).spec,
        minimum=Minimum(2, 1),
        limit=4,
        progress=False,
    )
    outputs = _all_outputs(graph)
    ranges = measure_ranges(
        graph, lambda: eye_feeds(graph, images), sorted(outputs), MINMAX, total=4, progress=False
    )
    found = [_run_all(graph, feed, outputs) for feed in eye_feeds(graph, images)]
    assert len(ranges) > 100
    for tensor, one in ranges.items():
        pooled = np.concatenate([values[tensor].ravel() for values in found])
        assert one.low == min(pooled.min(), 0), tensor
        assert one.high == max(pooled.max(), 0), tensor


def _all_outputs(graph: bytes) -> set[str]:
    model = onnx.load_from_string(graph)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    names = {name for node in model.graph.node for name in node.output}
    return {name for name in names if types.get(name) == TensorProto.FLOAT}


def _run_all(graph: bytes, feed: Feed, tensors: set[str]) -> dict[str, Array]:
    """Every tensor from one run of its own, by ONNX Runtime's ordinary optimised session."""
    model = onnx.load_from_string(graph)
    wanted = sorted(tensors - {value.name for value in model.graph.output})
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = sorted(tensors)
    return dict(zip(names, session.run(names, feed), strict=True))
