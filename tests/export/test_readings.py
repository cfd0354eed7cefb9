"""Every reading of the model exports, runs in the runtime's engine, and answers as PyTorch does.

An export takes seconds, so that readings share models: each value of each field of `ModelConfig`
is in a row of `ROWS`, and so is each pair of values of fields that meet in one module (`MEETING`).
Fields of different modules are taken to be independent. The deepest trunk comes with the
paper-sized model, which is slow.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from fundus_export.dialect_check import check_dialect
from fundus_export.dialect_check.operators import OPERATORS_TRT8
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.parity import answers_of_graphs, answers_of_model, compare
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.calibration import Calibration
from fundus_training.models import DMSNet, ModelConfig
from fundus_training.models.trunks import TRUNKS

PAPER_TRUNK = ModelConfig().trunk
SMALL: dict[str, Any] = {
    "trunk": "resnet18",
    "image_size": 64,
    "num_classes": 3,
    "attention_heads": 2,
    "attention_width": 16,
    "dense_depth": 1,
    "dense_growth": 8,
}
ROWS: tuple[dict[str, Any], ...] = (
    {"trunk": "resnet50", "osim_scale_reading": "kernel", "osim_attention": "7x7"}
    | {"auxiliary_head": False, "image_size": 128, "cafm_gate": "softmax", "dense_depth": 3},
    {"trunk": "resnext50_32x4d", "osim_weights": "per_eye", "casfm_pool_factor": "literal"}
    | {"positional_embedding": "spatial", "cafm": False, "ccam_difference": "absolute"}
    | {"ciam": False, "attention_heads": 8},
    {"trunk": "mobilenet_v2", "osim_scale_reading": "kernel", "image_size": 96}
    | {"mixing": "symmetric", "ccam_difference": "absolute", "ciam": False, "dense_depth": 3},
    {"trunk": "resnet34", "osim_left": False, "osim_attention": "7x7", "auxiliary_head": False}
    | {"image_size": 96, "casfm_pool_factor": "literal", "positional_embedding": "spatial"}
    | {"cafm_gate": "softmax", "ccam": False, "dense_depth": 3, "task": "softmax"},
    {"osim_scale_reading": "kernel", "osim_attention": "7x7", "positional_embedding": "spatial"}
    | {"mixing": "symmetric", "cafm": False, "ciam": False, "dense_growth": 0, "num_classes": 8},
    {"trunk": "mobilenet_v2", "auxiliary_head": False, "image_size": 128}
    | {"casfm_pool_factor": "literal", "positional_embedding": "spatial", "mixing": "symmetric"}
    | {"dense_depth": 3, "attention_width": 0},
    {"trunk": "resnet101", "osim_left": False, "osim_right": False, "auxiliary_head": False}
    | {"casfm_pool_factor": "literal", "mixing": "symmetric", "cafm_gate": "softmax"}
    | {"ccam": False, "dense_depth": 3},
    {"osim_scale_reading": "kernel", "osim_right": False, "casfm": False, "dropout": 0.0}
    | {"auxiliary_input": "trunk"},
)
MEETING = (
    ("image_size", "osim_scale_reading", "osim_attention"),
    ("image_size", "casfm_pool_factor", "positional_embedding", "mixing"),
    ("image_size", "cafm_gate"),
    ("mixing", "ccam_difference", "dense_depth"),
    ("mixing", "cafm", "ccam_difference"),
)
# What a part that is off leaves without meaning.
IDLE = {
    "casfm": ("casfm_pool_factor", "positional_embedding", "attention_heads", "attention_width"),
    "cafm": ("cafm_gate",),
    "ccam": ("ccam_difference",),
    "auxiliary_head": ("auxiliary_input",),
}


def config_of(row: dict[str, Any]) -> ModelConfig:
    return ModelConfig(**{**SMALL, **row})


def meaning(row: dict[str, Any]) -> dict[str, Any]:
    """The fields of a row's model that mean something in it."""
    config = config_of(row)
    values = config.to_dict()
    idle = {name for part, names in IDLE.items() if not values[part] for name in names}
    if not (config.osim_left or config.osim_right):
        idle |= {"osim_scale_reading", "osim_attention"}
    return {name: value for name, value in values.items() if name not in idle}


def options() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every field that is a choice, with its choices."""
    for name, hint in get_type_hints(ModelConfig).items():
        if hint is bool:
            yield name, (True, False)
        elif get_args(hint):
            yield name, get_args(hint)
    yield "trunk", tuple(name for name in TRUNKS if name != PAPER_TRUNK)
    yield "image_size", (64, 96, 128)  # grids of 2, 3 and 4, whose pools differ
    yield "dense_depth", (1, 3)


CHOICES = dict(options())


@pytest.mark.parametrize("name", CHOICES)
def test_the_table_has_every_value(name: str) -> None:
    assert {meaning(row)[name] for row in ROWS if name in meaning(row)} == set(CHOICES[name])


@pytest.mark.parametrize("fields", MEETING, ids=lambda fields: "-".join(fields))
def test_the_table_has_every_pair_of_values_that_meet_in_a_module(fields: tuple[str, ...]) -> None:
    rows = [meaning(row) for row in ROWS]
    for one, other in itertools.combinations(fields, 2):
        there = {(row[one], row[other]) for row in rows if one in row and other in row}
        assert there == set(itertools.product(CHOICES[one], CHOICES[other])), (one, other)


def made(config: ModelConfig) -> DMSNet:
    """A model whose norms have statistics and whose biases, scalars and embeddings are not zero."""
    torch.manual_seed(0)
    model = DMSNet(config)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch is enough
            if name.endswith(".bn3"):  # where a block of a deep trunk ends
                torch.nn.init.constant_(module.weight, 0.1)  # random ones magnify rounding
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                parameter += 0.1 * torch.randn_like(parameter)
            elif "embedding" in name:
                parameter += torch.randn_like(parameter)
        pairs = torch.randn(2, 4, 3, config.image_size, config.image_size)
        model(*pairs)
        logits = model.eval()(*pairs)
        # logits of about one, so that no probability is sure
        model.head.linear.weight /= logits.logits.abs().mean()
        if model.auxiliary is not None and logits.left_logits is not None:
            model.auxiliary.linear.weight /= logits.left_logits.abs().mean()
    return model


def images(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    shape = (2, 2, 3, config.image_size, config.image_size)
    left, right = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return left, right


def require_same_answers(model: DMSNet, graphs: GraphBytes) -> None:
    config = model.config
    backend = OnnxRuntimeBackend(
        graphs.encoder,
        graphs.head,
        size=config.image_size,
        class_count=config.num_classes,
        threads=1,
    )
    left, right = images(config)
    expected = answers_of_model(model, left, right)
    came = answers_of_graphs(backend, left, right)
    backend.close()
    plain = Calibration.identity(tuple("NDGCAHMO"[: config.num_classes]))
    compare(expected, came, plain, plain, source="random pairs")
    assert (expected.left is None) == (not config.auxiliary_head)
    # the comparison would show little if the eyes did not matter, or only sure answers
    assert np.abs(expected.left_only - expected.right_only).max() > 1e-2
    assert np.ptp(np.abs(plain.apply(expected.both) - 0.5)) > 1e-2


def require_plain(graphs: GraphBytes) -> None:
    for part in ("encoder", "head"):
        model = onnx.load_from_string(getattr(graphs, part))
        assert check_dialect(model, "fp32", graph=part) == ()
        assert {node.op_type for node in model.graph.node} <= OPERATORS_TRT8
        assert list(leftovers(model)) == []


def leftovers(model: onnx.ModelProto) -> Iterator[str]:
    """What a simpler graph would not have."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    seen = set()
    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        same = (node.op_type, *node.input, *sorted(a.SerializeToString() for a in node.attribute))
        if all(name in constants for name in inputs):
            yield f"{node.name} is constant"
        if node.op_type in ("Identity", "Neg", "Cast", "Slice", "Split", "Gather", "Squeeze"):
            yield f"{node.name} only hands on"
        if same in seen:
            yield f"{node.name} is computed twice"
        seen.add(same)
        makers_of = [makers[name].op_type for name in inputs if name in makers]
        if node.op_type in ("Reshape", "Transpose", "Concat") and node.op_type in makers_of:
            yield f"{node.name} follows its like"
    yield from leftover_constants(model, constants)


def leftover_constants(
    model: onnx.ModelProto, constants: dict[str, onnx.TensorProto]
) -> Iterator[str]:
    values = defaultdict(list)
    for name, tensor in constants.items():
        value = numpy_helper.to_array(tensor)
        values[value.dtype, value.shape, value.tobytes()].append(name)
    yield from (f"{names} are the same" for names in values.values() if len(names) > 1)
    read = {name for node in model.graph.node for name in node.input}
    yield from (f"{name} is not read" for name in constants.keys() - read)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row.values())))
def test_a_reading_exports_runs_and_answers_as_pytorch_does(row: dict[str, Any]) -> None:
    model = made(config_of(row))
    graphs = export_graphs(model)
    require_plain(graphs)
    require_same_answers(model, graphs)


@pytest.mark.slow
def test_the_paper_sized_model_exports_runs_and_answers_as_pytorch_does() -> None:
    model = made(ModelConfig())
    graphs = export_graphs(model)
    require_plain(graphs)
    require_same_answers(model, graphs)
