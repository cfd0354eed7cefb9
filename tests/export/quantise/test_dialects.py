"""Dialects of the shipped model: rules, size, kernels, answers, bytes, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper, shape_inference
from small_graphs import Array, Net, drawn, fused, range_of, run

from fundus_export.certificate.half_emulation import emulate_half
from fundus_export.dialect_check import check_dialect
from fundus_export.dialect_check.islands import islands_around
from fundus_export.dialect_check.pairs import origin_of
from fundus_export.dialect_check.view import UntrustedView
from fundus_export.errors import ExportError
from fundus_export.graph_view import GraphView
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.islands import LARGEST_SAFE, island_of
from fundus_export.quantise.dialects import measured_tensors, product_names, write_dialect
from fundus_export.quantise.images import CalibrationImages, Minimum, open_calibration_images
from fundus_export.quantise.measure import make_recipe
from fundus_export.quantise.placement import is_worth_it, products
from fundus_export.quantise.ranges import RangeMethod, TensorRange
from fundus_export.quantise.recipe import PARTS, Recipe
from fundus_export.quantise.scheme import DIALECTS, INT8_DIALECTS, precision_of, scheme_of
from fundus_export.rendered import render_fundus
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.labels import EYES
from fundus_training.checkpoint import load_checkpoint
from fundus_training.models import DMSNet, ModelConfig

EDGE = Path(__file__).parents[3] / "bundles" / "edge" / "checkpoint.safetensors"
PAIRS = 4
PRODUCTS = ("Conv", "Gemm", "MatMul")
# what ONNX Runtime makes of float and of quantised products
FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul", "FusedGemm")
Dialects = dict[str, GraphBytes]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> CalibrationImages:
    """Drawn fundi, prepared as the shipped model wants them."""
    folder = tmp_path_factory.mktemp("fundi")
    for pair in range(PAIRS):
        for eye in EYES:
            frame = render_fundus(eye, side=256, seed=2 * pair + (eye == "right"))
            assert cv2.imwrite(str(folder / f"{pair}_{eye}.png"), frame[:, :, ::-1])
    spec = load_checkpoint(EDGE).spec
    return open_calibration_images(folder, spec, minimum=Minimum(2, 1), progress=False)


@pytest.fixture(scope="session")
def recipe(edge_graphs: GraphBytes, photographs: CalibrationImages) -> Recipe:
    return make_recipe(edge_graphs, photographs, RangeMethod(), progress=False)


@pytest.fixture(scope="session")
def edge(edge_graphs: GraphBytes, recipe: Recipe) -> Dialects:
    """The shipped model in all dialects."""
    return {dialect: write_dialect(edge_graphs, dialect, recipe) for dialect in DIALECTS}


def part(graphs: GraphBytes, name: str) -> onnx.ModelProto:
    return onnx.load_from_string(getattr(graphs, name))


def size(graphs: GraphBytes) -> int:
    return len(graphs.encoder) + len(graphs.head)


def answers(graphs: GraphBytes, eyes: Array) -> dict[str, Array]:
    """What both graphs say of pairs of eyes, N x 2 x 3 x S x S, FP16 rounded as on a GPU."""
    encoder, head = (onnx.load_from_string(emulate_half(getattr(graphs, name))) for name in PARTS)
    left, right = (run(encoder, {"image": eyes[:, i]}, optimised=True) for i in (0, 1))
    ones = np.ones(len(eyes), np.float32)
    flags = {"left_present": ones, "right_present": ones}
    features = {"features_left": left["features"], "features_right": right["features"]}
    logits = run(head, {**features, **flags}, optimised=True)["logits"]
    return {"eye_logits": left["eye_logits"], "logits": logits, "features": left["features"]}


@pytest.fixture(scope="session")
def eyes(photographs: CalibrationImages) -> Array:
    return np.stack([np.stack(pair) for pair in photographs.pairs()])


@pytest.fixture(scope="session")
def expected(edge_graphs: GraphBytes, eyes: Array) -> dict[str, Array]:
    return answers(edge_graphs, eyes)


def largest_error(graphs: GraphBytes, eyes: Array, expected: dict[str, Array]) -> float:
    """Of the logits, as a share of their spread."""
    return max(
        float(np.abs(value - expected[name]).max() / np.ptp(expected[name]))
        for name, value in answers(graphs, eyes).items()
        if name != "features"
    )


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_shipped_model_keeps_the_rules_of_every_dialect(
    edge: Dialects, dialect: str, name: str
) -> None:
    assert check_dialect(part(edge[dialect], name), dialect, graph=name) == ()


# Tolerances: FP16 rounds to 11 bits and layers add up; INT8 rounds to 8, one number a tensor.
@pytest.mark.parametrize(
    ("dialect", "tolerance"),
    [("fp32", 0.0), ("fp16", 0.01), ("int8-cpu", 0.15), ("int8-trt", 0.15), ("int8-trt8", 0.15)],
)
def test_the_answers_are_nearly_those_of_single_precision(
    edge: Dialects, eyes: Array, expected: dict[str, Array], dialect: str, tolerance: float
) -> None:
    assert largest_error(edge[dialect], eyes, expected) <= tolerance


def test_both_dialects_of_tensorrt_answer_alike(edge: Dialects, eyes: Array) -> None:
    one, other = answers(edge["int8-trt"], eyes), answers(edge["int8-trt8"], eyes)
    for name, value in one.items():
        # a value on the border between two steps may fall either way and move those behind it
        difference = np.abs(value - other[name])
        assert difference.mean() < 0.01 * np.ptp(other[name]), name


@pytest.mark.parametrize(
    ("dialect", "share"), [("int8-cpu", 0.3), ("int8-trt", 0.3), ("fp16", 0.51)]
)
def test_the_files_are_as_small_as_their_numbers(
    edge: Dialects, edge_graphs: GraphBytes, dialect: str, share: float
) -> None:
    assert size(edge[dialect]) <= share * size(edge_graphs)


def test_each_dialect_has_its_operator_set(edge: Dialects) -> None:
    stated = {"fp32": 18, "fp16": 18, "int8-cpu": 18, "int8-trt": 19, "int8-trt8": 17}
    assert {dialect: graphs.opset for dialect, graphs in edge.items()} == stated
    for dialect, graphs in edge.items():
        for name in PARTS:
            imports = part(graphs, name).opset_import
            assert {entry.domain: entry.version for entry in imports} == {"": stated[dialect]}
    assert [precision_of(dialect) for dialect in DIALECTS] == ["fp32", "fp16", *["int8"] * 3]


def kernels(graphs: GraphBytes, name: str, folder: Path) -> tuple[Counter[str], list[str]]:
    """Counts of ONNX Runtime's operators, and the products that it computes in FP32."""
    nodes = fused(getattr(graphs, name), folder / f"{name}.onnx").graph.node
    high = [node.name for node in nodes if node.op_type in FLOAT_KERNELS]
    return Counter(node.op_type for node in nodes), high


@pytest.mark.parametrize("name", PARTS)
def test_on_a_cpu_every_quantised_product_is_an_integer_kernel(
    edge: Dialects, edge_graphs: GraphBytes, name: str, tmp_path: Path
) -> None:
    view = GraphView(part(edge_graphs, name))
    quantised = set(product_names(edge_graphs, "int8-cpu")[name])
    made, high = kernels(edge["int8-cpu"], name, tmp_path)
    convolutions = [n for n in view.nodes if n.op_type == "Conv" and n.name in quantised]
    assert made["QLinearConv"] == len(convolutions) > 10
    assert not quantised.intersection(high)
    # what is left is small, answers for the graph, or multiplies two computed tensors
    for node in products(view):
        if node.name in high:
            assert not is_worth_it(view, node)


def test_raised_products_are_float_in_every_dialect_and_in_the_kernels(
    edge: Dialects, edge_graphs: GraphBytes, recipe: Recipe, tmp_path: Path
) -> None:
    for dialect in INT8_DIALECTS:
        names = product_names(edge_graphs, dialect)["encoder"]
        raised = (names[3], names[-2])
        raised_recipe = recipe.with_raised(dialect, {"encoder": raised})
        graphs = write_dialect(edge_graphs, dialect, raised_recipe)
        assert check_dialect(part(graphs, "encoder"), dialect) == ()
        assert graphs.head == edge[dialect].head
        view = UntrustedView(part(graphs, "encoder"))
        high = {n.name for n in view.nodes if n.op_type in PRODUCTS and not _is_quantised(view, n)}
        assert high & set(names) == set(raised)
        kind = TensorProto.FLOAT16 if dialect == "int8-trt" else TensorProto.FLOAT
        for node in view.nodes:
            if node.name in raised:
                assert view.element_type(node.input[1]) == kind
        if dialect == "int8-cpu":
            made, float_kernels = kernels(graphs, "encoder", tmp_path)
            assert set(raised) <= set(float_kernels)
            before, _ = kernels(edge[dialect], "encoder", tmp_path)
            assert made["QLinearConv"] == before["QLinearConv"] - 2


def _is_quantised(view: UntrustedView, node: onnx.NodeProto) -> bool:
    return all(origin_of(view, name).is_quantised for name in node.input[:2])


def test_with_every_product_raised_an_int8_dialect_is_a_float_one(
    edge: Dialects, edge_graphs: GraphBytes, recipe: Recipe
) -> None:
    names = product_names(edge_graphs, "int8-trt")
    graphs = write_dialect(edge_graphs, "int8-trt", recipe.with_raised("int8-trt", names))
    for name in PARTS:
        assert not {"QuantizeLinear", "DequantizeLinear"} & {
            node.op_type for node in part(graphs, name).graph.node
        }
    assert abs(size(graphs) / size(edge["fp16"]) - 1) < 0.01


@pytest.mark.parametrize("dialect", ["fp16", "int8-trt"])
def test_types_are_in_the_graph_products_are_half_and_norms_are_not(
    edge: Dialects, edge_graphs: GraphBytes, recipe: Recipe, dialect: str
) -> None:
    for name in PARTS:
        model = part(edge[dialect], name)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        view = GraphView(model)
        island = island_of(GraphView(part(edge_graphs, name)), recipe.largest(name))
        made = {node.name: view.element_type(node.output[0]) for node in view.nodes}
        assert {made[node.name] for node in view.nodes if node.op_type in PRODUCTS} == {
            TensorProto.FLOAT16
        }
        assert {made[one] for one in island} <= {TensorProto.FLOAT}
        for node in view.nodes:
            if node.op_type in ("ReduceSum", "Sqrt", "Div"):
                assert made[node.name] == TensorProto.FLOAT
    assert len(island_of(GraphView(part(edge_graphs, "head")), {})) >= 8


WRITER = """
import sys
from pathlib import Path
from fundus_export.graphs import GraphBytes
from fundus_export.quantise.dialects import write_dialect
from fundus_export.quantise.recipe import Recipe
from fundus_export.quantise.scheme import DIALECTS
from fundus_runtime.canonical import sha256_hex
folder = Path(sys.argv[1])
source = GraphBytes(*((folder / name).read_bytes() for name in ("encoder", "head")), 18)
recipe = Recipe.from_bytes((folder / "recipe.json").read_bytes())
for dialect in DIALECTS:
    graphs = write_dialect(source, dialect, recipe)
    print(dialect, sha256_hex(graphs.encoder), sha256_hex(graphs.head))
"""


def test_the_same_recipe_gives_the_same_bytes_in_another_process(
    edge: Dialects, edge_graphs: GraphBytes, recipe: Recipe, tmp_path: Path
) -> None:
    for name in PARTS:
        (tmp_path / name).write_bytes(getattr(edge_graphs, name))
    (tmp_path / "recipe.json").write_bytes(recipe.to_bytes())
    # another order of every set of names than this process has
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"{dialect} {sha256_hex(graphs.encoder)} {sha256_hex(graphs.head)}"
        for dialect, graphs in edge.items()
    ]


def test_the_source_is_left_as_it_is(edge: Dialects, edge_graphs: GraphBytes) -> None:
    assert edge["fp32"] is edge_graphs
    for name in PARTS:
        again = onnx.load_from_string(getattr(edge_graphs, name))
        assert again.SerializeToString(deterministic=True) == getattr(edge_graphs, name)


def test_all_that_is_quantised_or_could_overflow_is_measured(edge_graphs: GraphBytes) -> None:
    measured = measured_tensors(edge_graphs)
    quantised = {dialect: product_names(edge_graphs, dialect) for dialect in INT8_DIALECTS}
    for name in PARTS:
        assert len(set(measured[name])) == len(measured[name])
        view = GraphView(part(edge_graphs, name))
        sums = [n.output[0] for n in view.nodes if n.op_type in ("Mul", "ReduceSum", "Div")]
        assert set(sums) <= set(measured[name])
        for dialect in INT8_DIALECTS:
            read = {n.input[0] for n in view.nodes if n.name in quantised[dialect][name]}
            assert read <= set(measured[name])


def test_a_stem_is_folded_in_the_encoder_for_cpus_alone() -> None:
    net = Net(image=["batch", 3, 32, 32])
    x = net.op("Relu", net.conv("image", "stem", (64, 3, 7, 7), strides=[2, 2]), name="x")
    y = net.op("Relu", net.conv(x, "conv", (64, 64, 3, 3)), name="y")
    axes = net.constant("axes", [2, 3], np.int64)
    text = net.model(net.op("ReduceMean", y, axes, name="logits", keepdims=0)).SerializeToString()
    source = GraphBytes(text, text, 18)
    recipe = recipe_of(source, drawn(1, 3, 32, 32))
    for dialect in DIALECTS:
        graphs = write_dialect(source, dialect, recipe)
        operators = [{node.op_type for node in part(graphs, name).graph.node} for name in PARTS]
        folded = ["SpaceToDepth" in found for found in operators]
        assert folded == [dialect == "int8-cpu", False], dialect


# --- refusals


def small_source() -> GraphBytes:
    """Stand-ins for both parts, of one convolution each."""
    return GraphBytes(
        *(one.SerializeToString(deterministic=True) for one in (small(), small())), 18
    )


def small() -> onnx.ModelProto:
    net = Net(image=["batch", 16, 16, 16])
    y = net.op("Relu", net.conv("image", "conv", (16, 16, 3, 3)), name="y")
    axes = net.constant("axes", [2, 3], np.int64)
    return net.model(net.op("ReduceMean", y, axes, name="logits", keepdims=0))


def recipe_of(source: GraphBytes, image: Array | None = None) -> Recipe:
    """Measured on one image, or on none at all."""
    image = drawn(1, 16, 16, 16) if image is None else image
    ranges = {}
    for name in PARTS:
        model = part(source, name)
        tensors = measured_tensors(source)[name]
        computed = [tensor for tensor in tensors if tensor != "image"]
        values = {"image": image, **run(model, {"image": image}, tensors=computed)}
        ranges[name] = {tensor: range_of(values[tensor]) for tensor in tensors}
    graphs = {name: sha256_hex(getattr(source, name)) for name in PARTS}
    return Recipe(graphs, "0" * 64, {"sha256": "0" * 64, "files": []}, RangeMethod(), ranges)


def test_a_dialect_that_there_is_not_is_refused() -> None:
    with pytest.raises(ExportError, match="no dialect 'int4'; there is fp32, fp16, int8-cpu"):
        write_dialect(small_source(), "int4")


@pytest.mark.parametrize("dialect", INT8_DIALECTS)
def test_int8_without_ranges_is_refused(dialect: str) -> None:
    with pytest.raises(ExportError, match=f"{dialect} needs measured ranges; .* --calibration"):
        write_dialect(small_source(), dialect)


def test_half_precision_needs_no_recipe() -> None:
    assert write_dialect(small_source(), "fp16").opset == 18


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_recipe_for_other_graphs_is_refused(dialect: str) -> None:
    source = small_source()
    recipe = recipe_of(source)
    other = replace(source, head=_renamed(source.head))
    with pytest.raises(ExportError, match="the recipe was made for the FP32 head"):
        write_dialect(other, dialect, recipe)


def _renamed(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    model.graph.name = "another"
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_weights_that_are_no_numbers_are_refused_in_every_dialect(
    dialect: str, value: float
) -> None:
    model = small()
    for tensor in model.graph.initializer:
        if tensor.name == "conv.bias":
            values = np.array(numpy_helper.to_array(tensor))
            values[3] = value
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    source = replace(small_source(), head=model.SerializeToString(deterministic=True))
    recipe = replace(recipe_of(small_source()), graphs=graphs_of(source))
    with pytest.raises(ExportError, match=r"1 of the 16 numbers in 'conv\.bias' of the head"):
        write_dialect(source, dialect, recipe)


def graphs_of(source: GraphBytes) -> dict[str, str]:
    return {name: sha256_hex(getattr(source, name)) for name in PARTS}


def test_missing_ranges_are_refused() -> None:
    source = small_source()
    recipe = recipe_of(source)
    short = replace(recipe, ranges={**recipe.ranges, "head": {}})
    with pytest.raises(ExportError, match="no range of the tensor 'image'"):
        write_dialect(source, "int8-cpu", short)


def test_raising_what_there_is_not_is_refused() -> None:
    source = small_source()
    recipe = recipe_of(source).with_raised("int8-trt", {"encoder": ("conv", "conv99")})
    assert write_dialect(source, "int8-cpu", recipe)
    with pytest.raises(ExportError, match="raises conv99, but the encoder has no product of that"):
        write_dialect(source, "int8-trt", recipe)


@pytest.mark.parametrize("name", ["", "y"])
def test_nodes_that_cannot_be_told_apart_are_refused(name: str) -> None:
    model = small()
    model.graph.node[0].name = name
    source = replace(small_source(), encoder=model.SerializeToString())
    with pytest.raises(ExportError, match=f"the encoder has several nodes.*{name!r}"):
        write_dialect(source, "fp16")


def test_a_source_of_another_operator_set_is_refused() -> None:
    model = small()
    model.opset_import[0].version = 20
    data = model.SerializeToString(deterministic=True)
    source = GraphBytes(data, data, 20)
    for dialect in INT8_DIALECTS:
        with pytest.raises(ExportError, match="expected 18"):
            write_dialect(source, dialect, recipe_of(source))


@pytest.mark.parametrize("dialect", INT8_DIALECTS)
def test_a_dead_channel_and_a_dead_tensor_pass_every_rule(dialect: str) -> None:
    net = Net(image=["batch", 16, 16, 16])
    dead = net.op("Relu", net.conv("image", "conv", (16, 16, 3, 3), bias=np.full(16, -1e6)))
    net.constants["conv.weight"][5] = 0.0
    y = net.op("Relu", net.conv(dead, "more", (16, 16, 3, 3)), name="y")
    axes = net.constant("axes", [2, 3], np.int64)
    model = net.model(net.op("ReduceMean", y, axes, name="logits", keepdims=0))
    data = model.SerializeToString(deterministic=True)
    source = GraphBytes(data, data, 18)
    recipe = recipe_of(source)
    assert recipe.ranges["encoder"]["relu1"].dead
    written = part(write_dialect(source, dialect, recipe), "encoder")
    image = {"image": drawn(2, 16, 16, 16)}
    expected, found = run(model, image)["logits"], run(written, image, optimised=True)["logits"]
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=1e-3)
    islands = islands_around(UntrustedView(written), recipe.largest("encoder"))
    rules = {one.rule for one in check_dialect(written, dialect, islands=islands)}
    assert rules == {"graph-interface"}  # it is no DMS-Net


# --- what FP16 cannot hold


def exploding(blocks: int = 6) -> onnx.ModelProto:
    """A residual network without norms, whose tensors grow twentyfold a block."""
    net = Net(image=["batch", 16, 16, 16])
    x = net.op("Relu", net.conv("image", "stem", (16, 16, 3, 3)), name="x0")
    for block in range(1, blocks + 1):
        y = net.op("Relu", net.conv(x, f"a{block}", (16, 16, 3, 3), bias=False), name=f"y{block}")
        weight = 30 * net.random.normal(size=(16, 16, 3, 3)) / 12
        y = net.conv(y, f"b{block}", weight=weight, bias=False)
        x = net.op("Relu", net.op("Add", y, x, name=f"sum{block}"), name=f"x{block}")
    axes = net.constant("axes", [2, 3], np.int64)
    mean = net.op("ReduceMean", x, axes, name="mean", keepdims=0)
    scaled = net.op("Mul", mean, net.constant("scale", 1e-7), name="scaled")
    return net.model(net.op("Sigmoid", scaled, name="logits"))


@pytest.mark.parametrize("dialect", ["fp16", "int8-trt"])
def test_activations_beyond_half_precision_stay_finite(dialect: str) -> None:
    model = exploding()
    data = model.SerializeToString(deterministic=True)
    source = GraphBytes(data, data, 18)
    recipe = recipe_of(source)
    assert max(recipe.largest("encoder").values()) > 65504
    graphs = write_dialect(source, dialect, recipe)
    written = part(graphs, "encoder")
    image = {"image": drawn(1, 16, 16, 16)}
    rounded = onnx.load_from_string(emulate_half(graphs.encoder))
    expected, found = run(model, image)["logits"], run(rounded, image)["logits"]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=0.02)
    # both ways to know the islands say that the types are right
    islands = island_of(GraphView(model), recipe.largest("encoder"))
    derived = islands_around(UntrustedView(written), recipe.largest("encoder"))
    for allowed in (islands, derived):
        rules = {one.rule for one in check_dialect(written, dialect, islands=allowed)}
        assert rules == {"graph-interface"}
    assert "type-high" in {one.rule for one in check_dialect(written, dialect)}
    # the first blocks are small enough
    view = GraphView(written)
    made = {node.name: view.element_type(node.output[0]) for node in view.nodes}
    assert made["x0"] == TensorProto.FLOAT16
    assert made["x6"] == TensorProto.FLOAT
    casts = [node for node in view.nodes if node.op_type == "Cast"]
    assert len(casts) <= 6


def test_what_half_precision_cannot_hold_is_quantised_all_the_same() -> None:
    data = exploding().SerializeToString(deterministic=True)
    source = GraphBytes(data, data, 18)
    recipe = recipe_of(source)
    graphs = write_dialect(source, "int8-trt", recipe)
    assert size(graphs) < 0.4 * size(source)  # such small weights have small headers
    view = UntrustedView(part(graphs, "encoder"))
    convolutions = [node for node in view.nodes if node.op_type == "Conv"]
    assert all(_is_quantised(view, node) for node in convolutions)
    full = [n for n in convolutions if view.element_type(n.output[0]) == TensorProto.FLOAT]
    assert 4 < len(full) < len(convolutions)
    for node in full:
        for name in node.input[:2]:
            # no conversion between the pair and the product
            pair = view.producer(name)
            assert pair is not None
            assert pair.op_type == "DequantizeLinear"
            assert view.element_type(pair.input[1]) == TensorProto.FLOAT


def test_a_range_that_half_precision_holds_makes_no_island(
    edge_graphs: GraphBytes, recipe: Recipe
) -> None:
    assert max(recipe.largest("encoder").values()) < LARGEST_SAFE
    view = GraphView(part(edge_graphs, "encoder"))
    assert island_of(view, recipe.largest("encoder")) == frozenset()


# --- the paper-sized model


@pytest.mark.slow
def test_the_paper_sized_model_keeps_every_dialect_and_is_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = export_graphs(DMSNet(ModelConfig()))
    random = np.random.default_rng(0)
    ranges: dict[str, dict[str, TensorRange]] = {}
    feeds = {"image": random.normal(size=(1, 3, 224, 224)).astype(np.float32)}
    for name in PARTS:
        model = part(source, name)
        tensors = measured_tensors(source)[name]
        computed = [tensor for tensor in tensors if tensor not in feeds]
        values = {**feeds, **run(model, feeds, tensors=computed)}
        ranges[name] = {tensor: range_of(values[tensor]) for tensor in tensors}
        features = np.abs(random.normal(size=(1, 1024, 7, 7))).astype(np.float32)
        flag = np.ones(1, np.float32)
        feeds = {"features_left": features, "features_right": features[:, ::-1].copy()}
        feeds |= {"left_present": flag, "right_present": flag}
    recipe = Recipe(graphs_of(source), "0" * 64, {"files": []}, RangeMethod("minmax"), ranges)
    # with random weights its activations grow beyond all that half precision holds
    assert max(recipe.largest("encoder").values()) > 65504
    for dialect in DIALECTS:
        graphs = write_dialect(source, dialect, recipe)
        for name in PARTS:
            islands = island_of(GraphView(part(source, name)), recipe.largest(name))
            assert check_dialect(part(graphs, name), dialect, islands=islands) == ()
        if dialect in ("int8-cpu", "int8-trt"):
            assert size(graphs) <= 0.3 * size(source)
        if dialect == "int8-cpu":
            quantised = product_names(source, dialect)
            for name in PARTS:
                made, high = kernels(graphs, name, tmp_path)
                assert not set(quantised[name]).intersection(high)
            assert made["GatherND"] == 8  # four affinities, sampled
            assert scheme_of(dialect).outputs_too
