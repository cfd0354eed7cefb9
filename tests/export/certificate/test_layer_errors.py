"""Two tiny graphs, so that each layer's error can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fundus_export.certificate.layer_errors import (
    CEILING_DB,
    OVERFLOW_DB,
    LayerError,
    measure_layer_errors,
)
from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes

SIZE = 8
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32)
FINAL = RANDOM.normal(0, 0.5, (4, 2)).astype(np.float32)
PAIRS = [tuple(RANDOM.normal(0, 1, (2, 3, SIZE, SIZE)).astype(np.float32)) for _ in range(3)]

LARGE_PAIRS = [tuple(10 * eye for eye in pair) for pair in PAIRS]


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **constants: np.ndarray,
) -> bytes:
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), weights)
    made = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 19)])
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


ENCODER_ENDS = (
    [value("image", "N", 3, SIZE, SIZE)],
    [value("features", "N", 4, 6, 6), value("eye_logits", "N", 2)],
)


def encoder(weight: np.ndarray = WEIGHT, nodes: Sequence[onnx.NodeProto] | None = None) -> bytes:
    plain = [node("Conv", "image weight", "conv"), node("Relu", "conv", "features")]
    return model(
        [
            *(plain if nodes is None else nodes),
            node("ReduceMean", "features space", "mean", keepdims=0),
            node("MatMul", "mean final", "eye_logits"),
        ],
        *ENCODER_ENDS,
        weight=weight,
        final=FINAL,
        space=np.array([2, 3], np.int64),
        scale=np.array(0.02, np.float32),
        zero=np.array(0, np.uint8),
    )


def head() -> bytes:
    features = ("N", 4, 6, 6)
    return model(
        [
            node("Add", "features_left features_right", "both"),
            node("ReduceMean", "both space", "mean", keepdims=0),
            node("MatMul", "mean final", "product"),
            node("Unsqueeze", "left_present last", "left_flag"),
            node("Unsqueeze", "right_present last", "right_flag"),
            node("Mul", "product left_flag", "half"),
            node("Mul", "half right_flag", "logits"),
        ],
        [
            value("features_left", *features),
            value("features_right", *features),
            value("left_present", "N"),
            value("right_present", "N"),
        ],
        [value("logits", "N", 2)],
        final=FINAL,
        space=np.array([2, 3], np.int64),
        last=np.array([1], np.int64),
    )


FP32 = GraphBytes(encoder(), head(), 19)


def measured(dialect_encoder: bytes) -> dict[tuple[str, str], LayerError]:
    dialect = GraphBytes(dialect_encoder, FP32.head, 19)
    ranking = measure_layer_errors(FP32, dialect, PAIRS, progress=False)
    assert [one.own_db for one in ranking] == sorted(one.own_db for one in ranking)
    return {(one.graph, one.tensor): one for one in ranking}


def convolved(weight: np.ndarray) -> np.ndarray:
    """What the convolution answers for all eyes, without ONNX Runtime."""
    windows = [
        np.lib.stride_tricks.sliding_window_view(eye, (3, 3), axis=(1, 2))
        for pair in PAIRS
        for eye in pair
    ]
    return np.stack([np.einsum("chwij,ocij->ohw", window, weight) for window in windows])


def test_the_same_graph_has_no_errors() -> None:
    errors = measured(FP32.encoder)

    assert set(errors) == {
        *(("encoder", name) for name in ("conv", "features", "mean", "eye_logits")),
        *(
            ("head", name)
            for name in ("both", "mean", "product", "left_flag", "right_flag", "half", "logits")
        ),
    }
    assert {one.own_db for one in errors.values()} == {CEILING_DB}
    assert {one.accumulated_db for one in errors.values()} == {CEILING_DB}
    assert errors["encoder", "conv"].operator == "Conv"


def test_error_is_signal_over_noise_of_all_eyes() -> None:
    coarse = np.round(WEIGHT * 8) / 8
    errors = measured(encoder(coarse.astype(np.float32)))

    truth, came = convolved(WEIGHT), convolved(coarse)
    expected = 10 * np.log10((truth**2).sum() / ((truth - came) ** 2).sum())
    assert errors["encoder", "conv"].own_db == pytest.approx(expected, abs=1e-3)
    assert errors["encoder", "conv"].accumulated_db == pytest.approx(expected, abs=1e-3)


def test_later_layers_inherit_an_error_but_do_not_own_it() -> None:
    errors = measured(encoder((np.round(WEIGHT * 8) / 8).astype(np.float32)))

    for later in ("features", "mean", "eye_logits"):
        assert errors["encoder", later].own_db == CEILING_DB
        assert errors["encoder", later].accumulated_db < 60
    # the head was given the FP32 encoder's features: its own errors are its own alone
    assert errors["head", "both"].accumulated_db == CEILING_DB


def test_activation_that_a_quantiser_merged_is_compared_behind_it() -> None:
    merged = [
        node("Conv", "image weight", "features_before"),
        node("QuantizeLinear", "features_before scale zero", "levels"),
        node("DequantizeLinear", "levels scale zero", "features"),
    ]
    renamed = [
        node("Conv", "image weight", "features"),
        node("QuantizeLinear", "features scale zero", "levels"),
        node("DequantizeLinear", "levels scale zero", "rectified"),
        node("Identity", "rectified", "unused"),
    ]
    truth = np.maximum(convolved(WEIGHT), 0)
    came = np.clip(np.round(truth / 0.02), 0, 255) * 0.02
    expected = 10 * np.log10((truth**2).sum() / ((truth - came) ** 2).sum())

    from_conv = measured(encoder(nodes=merged))["encoder", "features"]
    # as ONNX Runtime's quantiser writes it: the convolution takes the name of the activation
    behind = _with_reader(encoder(nodes=renamed))

    assert from_conv.accumulated_db == pytest.approx(expected, abs=0.05)
    assert measured(behind)["encoder", "features"].accumulated_db == pytest.approx(
        expected, abs=0.05
    )


def _with_reader(data: bytes) -> bytes:
    """Let the mean read the dequantised tensor, and the graph answer it."""
    graph = onnx.load_from_string(data)
    for one in graph.graph.node:
        if one.op_type == "ReduceMean":
            one.input[0] = "rectified"
    del graph.graph.output[0]
    return bytes(graph.SerializeToString())


def test_half_precision_is_rounded_although_the_cpu_computes_in_single() -> None:
    nodes = [
        node("Cast", "image", "image_half", to=TensorProto.FLOAT16),
        node("Cast", "weight", "weight_half", to=TensorProto.FLOAT16),
        node("Conv", "image_half weight_half", "conv"),
        node("Relu", "conv", "features_half"),
        node("Cast", "features_half", "features", to=TensorProto.FLOAT),
    ]
    errors = measured(encoder(nodes=nodes))

    assert 50 < errors["encoder", "conv"].own_db < 90
    assert 50 < errors["encoder", "features"].accumulated_db < 90
    assert errors["encoder", "features"].own_db == CEILING_DB or (
        errors["encoder", "features"].own_db > errors["encoder", "conv"].own_db
    )


def test_overflow_is_told_from_a_large_error() -> None:
    enormous = encoder(WEIGHT * 1e6)
    nodes = [
        node("Cast", "image", "image_half", to=TensorProto.FLOAT16),
        node("Cast", "weight", "weight_half", to=TensorProto.FLOAT16),
        node("Conv", "image_half weight_half", "conv"),
        node("Cast", "conv", "conv_single", to=TensorProto.FLOAT),
        node("Relu", "conv_single", "features"),
    ]
    overflowing = encoder(WEIGHT * 1e4, nodes)
    fp32 = GraphBytes(encoder(WEIGHT * 1e4), FP32.head, 19)
    ranking = measure_layer_errors(
        fp32, GraphBytes(overflowing, FP32.head, 19), LARGE_PAIRS, progress=False
    )

    assert OVERFLOW_DB < measured(enormous)["encoder", "conv"].own_db < -100
    assert (ranking[0].tensor, ranking[0].own_db) == ("conv", OVERFLOW_DB)
    accumulated = {one.tensor: one.accumulated_db for one in ranking if one.graph == "encoder"}
    assert accumulated["features"] == OVERFLOW_DB


def test_no_pair_is_an_error() -> None:
    with pytest.raises(ExportError, match="at least one pair"):
        measure_layer_errors(FP32, FP32, [], progress=False)


def test_graph_that_cannot_run_is_named() -> None:
    broken = onnx.load_from_string(FP32.encoder)
    broken.graph.node[0].op_type = "Conf"
    with pytest.raises(ExportError, match="encoder graph"):
        measure_layer_errors(
            FP32, GraphBytes(broken.SerializeToString(), FP32.head, 19), PAIRS, progress=False
        )
