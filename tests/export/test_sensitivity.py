"""The search raises as few products as the limits ask for, the worst first, and repeats."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from small_graphs import Net, drawn, ranges_of

from fundus_export.certificate import Certificate
from fundus_export.dialect_check import check_dialect
from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes
from fundus_export.quantise.dialects import measured_tensors, product_names, write_dialect
from fundus_export.quantise.ranges import RangeMethod
from fundus_export.quantise.recipe import PARTS, Recipe
from fundus_export.sensitivity import Probe, SearchResult, raise_until_certified
from fundus_runtime.canonical import sha256_hex

SIDE, CHANNELS, CLASSES = 32, 16, 3
LAYERS = ("stem", "bad", "good1", "good2", "good3")
PRODUCTS = ("Conv", "MatMul", "Gemm")

Certify = Callable[[GraphBytes], Certificate]


def _encoder() -> onnx.ModelProto:
    """Five convolutions; what `bad` reads spans a range in which one step is most of a channel."""
    net = Net(image=["batch", 3, SIDE, SIDE])
    random = np.random.default_rng(3)
    stem = random.normal(size=(CHANNELS, 3, 3, 3)) / 5
    bad = random.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 12
    stem[0] *= 300
    bad[:, 0] /= 300
    x = net.op("Relu", net.conv("image", "stem", weight=stem), name="x0")
    x = net.op("Relu", net.conv(x, "bad", weight=bad), name="x1")
    for number in (1, 2):
        x = net.conv(x, f"good{number}", (CHANNELS, CHANNELS, 3, 3))
        x = net.op("Relu", x, name=f"x{number + 1}")
    x = net.conv(x, "good3", (CHANNELS, CHANNELS, 3, 3), strides=[2, 2])
    x = net.op("Relu", x, name="features")
    mean = net.op("ReduceMean", x, net.constant("axes", [2, 3], np.int64), name="mean", keepdims=0)
    net.op("MatMul", mean, net.matrix("classifier", CHANNELS, CLASSES), name="eye_logits")
    return net.model("features", "eye_logits")


def _head() -> onnx.ModelProto:
    side = SIDE // 2
    net = Net(
        features_left=["batch", CHANNELS, side, side],
        features_right=["batch", CHANNELS, side, side],
        left_present=["batch"],
        right_present=["batch"],
    )
    axes = net.constant("axes", [2, 3], np.int64)
    last = net.constant("last", [1], np.int64)
    parts = []
    for eye in ("left", "right"):
        mean = net.op("ReduceMean", f"features_{eye}", axes, name=f"mean_{eye}", keepdims=0)
        flag = net.op("Unsqueeze", f"{eye}_present", last, name=f"flag_{eye}")
        parts.append(net.op("Mul", mean, flag, name=f"part_{eye}"))
    both = net.op("Add", *parts, name="both")
    net.op("MatMul", both, net.matrix("weight", CHANNELS, CLASSES), name="logits")
    return net.model("logits")


@pytest.fixture(scope="module")
def source() -> GraphBytes:
    return GraphBytes(_encoder().SerializeToString(), _head().SerializeToString(), 18)


@pytest.fixture(scope="module")
def recipe(source: GraphBytes) -> Recipe:
    side = SIDE // 2
    feeds = {
        "encoder": {"image": drawn(4, 3, SIDE, SIDE)},
        "head": {
            "features_left": np.abs(drawn(4, CHANNELS, side, side, seed=1)),
            "features_right": np.abs(drawn(4, CHANNELS, side, side, seed=2)),
            "left_present": np.ones(4, np.float32),
            "right_present": np.ones(4, np.float32),
        },
    }
    tensors = measured_tensors(source)
    return Recipe(
        graphs={part: sha256_hex(getattr(source, part)) for part in PARTS},
        preprocess_sha256="0" * 64,
        images={"sha256": "0" * 64, "files": []},
        method=RangeMethod(),
        ranges={
            part: ranges_of(
                onnx.load_from_string(getattr(source, part)), feeds[part], tensors[part]
            )
            for part in PARTS
        },
    )


@pytest.fixture(scope="module")
def probe() -> Probe:
    pairs = [(drawn(3, SIDE, SIDE, seed=s), drawn(3, SIDE, SIDE, seed=s + 50)) for s in range(3)]
    return Probe(pairs, SIDE, CLASSES)


def quantised_count(graphs: GraphBytes) -> int:
    """Products whose both factors come out of INT8."""
    count = 0
    for part in PARTS:
        nodes = onnx.load_from_string(getattr(graphs, part)).graph.node
        dequantised = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear"}
        dequantised |= {
            n.output[0] for n in nodes if n.op_type in {"Cast"} and n.input[0] in dequantised
        }
        count += sum(n.op_type in PRODUCTS and set(n.input[:2]) <= dequantised for n in nodes)
    return count


class Judge:
    """A stand-in for the certificate: it holds once `least` products are not in INT8."""

    def __init__(self, least: float, *, patients: int = 420) -> None:
        self.least, self.patients = least, patients
        self.seen: list[int] = []

    def __call__(self, graphs: GraphBytes) -> Certificate:
        raised = len(LAYERS) - quantised_count(graphs)
        self.seen.append(raised)
        enough, holds = self.patients >= 400, raised >= self.least
        misses = (() if enough else ("too few patients",)) + (() if holds else ("class decisions",))
        return cast(
            Certificate,
            SimpleNamespace(
                within_limits=not misses,
                misses=misses,
                patients=SimpleNamespace(complete=self.patients),
                limits=SimpleNamespace(patients=400),
            ),
        )


@pytest.fixture
def search(source: GraphBytes, recipe: Recipe, probe: Probe) -> Callable[..., SearchResult]:
    def run(certify: Certify, dialect: str = "int8-trt", **options: Any) -> SearchResult:
        given = {"recipe": recipe, "probe": probe, **options}
        return raise_until_certified(
            source, dialect, given["recipe"], certify, given["probe"], progress=False
        )

    return run


@pytest.mark.parametrize("dialect", ["int8-cpu", "int8-trt", "int8-trt8"])
def test_the_small_models_convolutions_are_in_int8(
    source: GraphBytes, recipe: Recipe, dialect: str
) -> None:
    # what answers the features stays in float on CPUs
    expected = LAYERS[:-1] if dialect == "int8-cpu" else LAYERS
    assert product_names(source, dialect) == {"encoder": expected, "head": ()}
    if dialect != "int8-trt8":  # whose weights are quantised in the graph
        assert quantised_count(write_dialect(source, dialect, recipe)) == len(expected)


def test_what_holds_at_once_stays_as_it_is(search: Any, recipe: Recipe) -> None:
    found = search(judge := Judge(0))
    assert (found.raised, found.looks, judge.seen) == ((), 1, [0])
    assert found.recipe == recipe


@pytest.mark.parametrize(
    ("least", "seen"),
    [
        (1, [0, 1]),
        (2, [0, 1, 2]),
        (3, [0, 1, 2, 4, 3]),
        (4, [0, 1, 2, 4, 3]),
    ],
)
def test_the_fewest_that_hold_are_raised(search: Any, least: int, seen: list[int]) -> None:
    found = search(judge := Judge(least))
    assert judge.seen == seen
    assert len(found.raised) == least
    assert found.looks == len(seen)
    assert len(LAYERS) - quantised_count(found.graphs) == least
    assert found.certificate.within_limits


@pytest.mark.parametrize("dialect", ["int8-cpu", "int8-trt", "int8-trt8"])
def test_the_worst_product_is_raised_first(search: Any, dialect: str) -> None:
    # a judge that counts calls, since int8-trt8 shows its weights otherwise
    verdicts = iter([9, 0])
    found = search(lambda graphs: Judge(next(verdicts))(graphs), dialect)
    assert len(found.raised) == 1
    assert found.raised[0] in {"bad", "stem"} if dialect == "int8-cpu" else found.raised == ("bad",)


def test_the_recipe_holds_what_was_raised_and_repeats_it(search: Any, source: GraphBytes) -> None:
    found = search(Judge(2))
    again = Recipe.from_bytes(found.recipe.to_bytes(), where="the bundle")
    assert again.raised == {"int8-trt": {"encoder": found.raised}}
    assert write_dialect(source, "int8-trt", again) == found.graphs
    # a repeated recipe needs no search
    repeated = search(judge := Judge(2), recipe=again)
    assert (repeated.raised, repeated.graphs, judge.seen) == ((), found.graphs, [2])


def test_another_dialect_of_the_recipe_is_left_alone(
    search: Any, source: GraphBytes, recipe: Recipe
) -> None:
    found = search(Judge(1))
    for dialect in ("int8-cpu", "fp16"):
        assert write_dialect(source, dialect, found.recipe) == write_dialect(
            source, dialect, recipe
        )


def test_the_older_parsers_dialect_inherits_what_was_raised(search: Any, recipe: Recipe) -> None:
    found = search(Judge(1))
    assert found.recipe.raised_in("int8-trt8", "encoder") == found.raised
    own = found.recipe.with_raised("int8-trt8", {})
    assert own.raised_in("int8-trt8", "encoder") == ()


def test_what_it_cost_is_said(search: Any) -> None:
    found = search(Judge(1))
    assert f"1 products in higher precision, {found.raised[0]}: +" in found.cost
    assert "% of all multiplications" in found.cost


def test_what_the_recipe_raised_already_stays_raised(search: Any, recipe: Recipe) -> None:
    before = recipe.with_raised("int8-trt", {"encoder": ("good2",)})
    found = search(judge := Judge(2), recipe=before)
    assert judge.seen == [1, 2]
    assert found.recipe.raised_in("int8-trt", "encoder") == ("good2", "bad")
    assert found.raised == ("bad",)


def test_graphs_with_raised_products_keep_the_rules(search: Any) -> None:
    found = search(Judge(3))
    assert check_dialect(onnx.load_from_string(found.graphs.encoder), "int8-trt") == ()


def test_limits_that_nothing_keeps_are_an_error(search: Any) -> None:
    judge = Judge(99)
    words = "not keep the limits even with 5 products.*class decisions.*--precision fp16"
    with pytest.raises(ExportError, match=words):
        search(judge)
    assert judge.seen == [0, 1, 2, 4, 5]


def test_limits_that_only_no_int8_at_all_keeps_are_an_error(search: Any) -> None:
    judge = Judge(5)
    words = "only with all of its products in higher precision.*nothing in INT8.*--precision fp16"
    with pytest.raises(ExportError, match=words):
        search(judge)
    # not 8: there are five
    assert judge.seen == [0, 1, 2, 4, 5]


def test_too_few_patients_prove_nothing_and_start_no_search(search: Any) -> None:
    found = search(judge := Judge(2, patients=4))
    assert (judge.seen, found.raised) == ([0], ())
    assert not found.certificate.within_limits


def test_without_photographs_to_rank_on_the_recipe_is_judged_as_it_is(search: Any) -> None:
    found = search(judge := Judge(2), probe=None)
    assert (judge.seen, found.raised) == ([0], ())
