"""What ONNX Runtime's own quantiser writes, and what its CPU provider makes of graphs that pass."""

from __future__ import annotations

import collections
import logging
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from breakages import (
    Break,
    clipped_below_the_range,
    float_bias,
    float_reader,
    plain_matrices,
    relu_over_a_signed_range,
)
from dialect_graphs import Array, dialect_net, feeds
from onnx import TensorProto, helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from fundus_export.dialect_check import check_dialect
from fundus_runtime.backends.onnxruntime_session import _CHANGES_THE_MODEL

CONVOLUTIONS = 9
# The settings that TensorRT needs, as NVIDIA's Model-Optimizer gives them.
FOR_TENSORRT = {
    "ActivationSymmetric": True,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": False,
    "OpTypesToExcludeOutputQuantization": ["Add", "Clip", "Conv", "MatMul", "Relu"],
    "QDQDisableWeightAdjustForInt32Bias": True,
    "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "MatMul": 1},
    "QuantizeBias": False,
}


class _Photographs(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        image = feeds(1)["image"]
        self.feeds = iter([{"image": factor * image} for factor in (0.5, 1.0, 2.0)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def quantised(folder: Path, **settings: Any) -> onnx.ModelProto:
    """The small network as ONNX Runtime's quantiser writes it, calibrated on real feeds."""
    plain, written = folder / "plain.onnx", folder / "quantised.onnx"
    onnx.save(dialect_net("fp32"), plain)
    logging.disable(logging.WARNING)  # it advises to pre-process, through the root logger
    try:
        quantize_static(plain, written, _Photographs(), **settings)
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(written)


def broken_rules(model: onnx.ModelProto, dialect: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in check_dialect(model, dialect):
        found.setdefault(finding.rule, []).append(finding.node)
    return found


def test_the_default_quantiser_is_rejected_for_tensorrt_and_the_reasons_are_named(
    tmp_path: Path,
) -> None:
    found = broken_rules(quantised(tmp_path), "int8-trt")
    assert set(found) == {
        *("graph-opset", "type-high", "qdq-scale-type", "qdq-zero-point", "weight-per-channel"),
        *("bias-float", "qdq-needless", "qdq-output", "residual-fused"),
    }
    assert len(found["bias-float"]) == CONVOLUTIONS  # INT32 biases
    assert found["residual-fused"] == ["add1", "add2", "add3"]
    assert found["qdq-output"] == ["features", "eye_logits"]


def test_the_default_quantiser_is_rejected_for_the_older_tensorrt_too(tmp_path: Path) -> None:
    found = broken_rules(quantised(tmp_path), "int8-trt8")
    assert {"graph-opset", "qdq-zero-point", "weight-form", "bias-float"} <= set(found)


def test_operators_on_8_bits_are_rejected(tmp_path: Path) -> None:
    found = broken_rules(quantised(tmp_path, quant_format=QuantFormat.QOperator), "int8-trt")
    assert {"op-quantised", "op-domain", "qdq-dangling", "qdq-missing"} <= set(found)
    assert len(found["op-quantised"]) == CONVOLUTIONS + 1


def test_with_the_settings_for_tensorrt_its_placement_is_still_found_wanting(
    tmp_path: Path,
) -> None:
    model = quantised(
        tmp_path,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options=FOR_TENSORRT,
    )
    # zero points, axes, biases and the weights' form are right; the opset is still the exporter's,
    # both branches of the additions have pairs, and so have a bias and an output
    assert set(broken_rules(model, "int8-trt8")) == {
        *("graph-opset", "qdq-needless", "qdq-output", "residual-fused"),
    }


def test_with_pairs_around_products_alone_one_addition_lacks_its_pair(tmp_path: Path) -> None:
    model = quantised(
        tmp_path,
        per_channel=True,
        op_types_to_quantize=["Conv", "MatMul"],
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options=FOR_TENSORRT,
    )
    found = broken_rules(model, "int8-trt8")
    assert found == {"graph-opset": ["graph"], "residual-identity": ["add2"]}


def optimised(model: onnx.ModelProto, folder: Path) -> collections.Counter[str]:
    """Operators of the graph that the CPU provider executes, under the runtime's settings."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=_CHANGES_THE_MODEL,
    )
    graph = onnx.load(options.optimized_model_filepath).graph
    return collections.Counter(node.op_type for node in graph.node)


def test_what_passes_for_the_cpu_is_computed_in_integers(tmp_path: Path) -> None:
    model = dialect_net("int8-cpu")
    assert check_dialect(model, "int8-cpu") == ()
    operators = optimised(model, tmp_path)
    assert (operators["QLinearConv"], operators["QLinearAdd"]) == (CONVOLUTIONS, 3)
    assert operators["QGemm"] == 1
    assert not operators["Conv"] + operators["FusedConv"] + operators["Add"] + operators["Gemm"]


def shown(model: onnx.ModelProto) -> None:
    """An answer that nobody asks for would be optimised away."""
    float_reader(model)
    answer = helper.make_tensor_value_info(
        "second_reader_out", TensorProto.FLOAT, ["batch", 8, 8, 8]
    )
    model.graph.output.append(answer)


@pytest.mark.parametrize(
    ("break_it", "rule", "lost"),
    [
        (shown, "cpu-output", "QLinearConv"),
        (clipped_below_the_range, "cpu-output", "QLinearConv"),
        (relu_over_a_signed_range, "cpu-output", "QLinearConv"),
        (float_bias, "bias-int32", "QLinearConv"),
        (plain_matrices, "cpu-matrix-bias", "QGemm"),
    ],
)
def test_what_is_refused_for_the_cpu_would_run_in_fp32(
    break_it: Break, rule: str, lost: str, tmp_path: Path
) -> None:
    before = optimised(dialect_net("int8-cpu"), tmp_path)
    model = dialect_net("int8-cpu")
    break_it(model)
    assert rule in broken_rules(model, "int8-cpu")
    after = optimised(model, tmp_path)
    assert after[lost] == before[lost] - 1
    assert not after["MatMulIntegerToFloat"]
