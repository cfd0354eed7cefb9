"""What is read from the inspector's JSON; samples in the forms that engines of 8.4 to 11 give.

The forms were taken from engines that NVIDIA publishes with its engine explorer (repository
NVIDIA/TensorRT, tag v10.16, tools/experimental/trt-engine-explorer: ResNet and MobileNet in FP32,
FP16 and INT8), from logs in its issues, and from its page on moving to 11; names are made up.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fundus_export.errors import ExportError
from fundus_export.tensorrt.layers import Layer, read_layers
from fundus_export.tensorrt.options import Precision
from fundus_export.tensorrt.products import Product, ProductPrecision
from fundus_export.tensorrt.strategy import possible_strategies, typed_strategy
from fundus_export.tensorrt.verdict import PrecisionVerdict, judge

DYNAMIC = "N/A due to dynamic shapes"


def tensor(format_and_type: str) -> dict[str, Any]:
    return {"Name": "t", "Dimensions": [-1, 64, 56, 56], "Format/Datatype": format_and_type}


def convolution(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "LayerType": "CaskConvolution",
        "ParameterType": "Convolution",
        "Inputs": [tensor(DYNAMIC)],
        "Outputs": [tensor(DYNAMIC)],
        **fields,
    }


def one(entry: dict[str, Any], *nodes: str) -> Layer:
    (layer,) = read_layers(json.dumps({"Layers": [entry]}), nodes)
    return layer


@pytest.mark.parametrize(
    ("weights", "tactic", "expected"),
    [
        ("Int8", "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c", "int8"),
        ("Int8", "ampere_fp32_icudnn_int8x4_128x64_relu_medium_nn_v1", "int8"),
        ("Int8", "ampere_first_layer_filter3x3_imma_fwd", "int8"),
        ("Int8", "", "int8"),
        ("Half", "sm80_xmma_fprop_implicit_gemm_indexed_wo_smem_f16f16_f16f16_f16_nhwc", "fp16"),
        ("Half", "trt_turing_cutlass_image_network_first_layer_hmma_fprop_f16f16f32", "fp16"),
        ("Half", "sm86_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc", "fp16"),
        ("Float", "sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc", "tf32"),
        ("Float", "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nhwc", "fp32"),
        ("Float", "ampere_scudnn_128x64_relu_xregs_large_nn_v1", "fp32"),
        ("Float", "", "fp32"),
        # INT8 around a kernel that computes in floating point is no INT8
        ("Float", "sm80_xmma_fprop_implicit_gemm_i8f32_something", "fp32"),
        ("Int8", "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16", "fp16"),
    ],
)
def test_weights_and_kernel_tell_a_convolutions_precision(
    weights: str, tactic: str, expected: str
) -> None:
    entry = convolution("Conv_9", Weights={"Type": weights, "Count": 1}, TacticName=tactic)

    assert one(entry).precision == expected


@pytest.mark.parametrize(
    ("kind", "tactic", "expected"),
    [
        ("gemm", "sm80_xmma_gemm_i8i8_i8i32_f32_tn_n_tilesize64x64x64", "int8"),
        ("gemm", "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x32", "fp16"),
        ("gemm", "sm80_xmma_gemm_bf16bf16_bf16f32_f32", "bf16"),
        ("gemm", "sm80_xmma_gemm_f32f32_tf32f32_f32_tn", "tf32"),
        ("gemm", "sm80_xmma_gemm_f32f32_f32f32_f32_tn", "fp32"),
        ("MatrixMultiply", "cutlass_80_tensorop_h16816gemm_128x128", "fp16"),
    ],
)
def test_the_kernels_name_tells_a_products_precision(kind: str, tactic: str, expected: str) -> None:
    entry = {"Name": "/MatMul_3_myl0_10", "LayerType": kind, "TacticName": tactic}

    assert (one(entry).precision, one(entry).is_product) == (expected, True)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([tensor("Row major linear FP16 format")] * 2, "fp16"),
        ([tensor("Half")], "fp16"),
        ([tensor("Thirty-two wide channel vectorized row major Int8 format")], "int8"),
        ([tensor("Row major linear FP32"), tensor("Row major linear FP32")], "fp32"),
        ([{"Name": "t", "Format": "Row major linear FP16 format", "DataType": "Half"}], "fp16"),
        ([{"Name": "t", "Format": DYNAMIC, "Datatype": "Int8"}], "int8"),
        ([tensor(DYNAMIC)], "untold"),
        ([], "untold"),
        (["a name alone"], "untold"),
    ],
)
def test_tensors_are_asked_last(inputs: list[Any], expected: str) -> None:
    entry = {"Name": "__myl_FcAdd_myl0_3", "LayerType": "kgen", "Inputs": inputs}

    assert one(entry).precision == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("[ONNX Layer: /conv]", ("/conv",)),
        (
            "[ONNX Layer: /conv.w_dequantise]\x1e[ONNX Layer: /conv]",
            ("/conv.w_dequantise", "/conv"),
        ),
        ("[ONNX Layer: /a]\x1f[ONNX Layer: /b]", ("/a", "/b")),
        ("[ONNX Layer: /a][ONNX Layer: /b]", ("/a", "/b")),
        ("", ()),
    ],
)
def test_metadata_names_the_nodes(metadata: str, expected: tuple[str, ...]) -> None:
    text = json.dumps({"Layers": [convolution("fused", Metadata=metadata)]})
    # TensorRT writes the separators raw, which strict JSON readers refuse
    (layer,) = read_layers(text.replace("\\u001e", "\x1e").replace("\\u001f", "\x1f"))

    assert layer.nodes == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Conv_1 + Relu_2", ("Conv_1",)),
        ("layer1.weight + QuantizeLinear_20 + Conv_1 + PWN(Clip_16)", ("Conv_1",)),
        ("Conv_1 || Conv_22", ("Conv_1", "Conv_22")),
        ("{ForeignNode[Conv_1...Softmax_4]}", ("Conv_1",)),
        ("Conv_1_myl0_7", ("Conv_1",)),
        ("Conv_11 + Relu_12", ()),
        ("/layer/Conv_1", ()),
    ],
)
def test_without_metadata_the_layers_name_is_searched(name: str, expected: tuple[str, ...]) -> None:
    assert one(convolution(name), "Conv_1", "Conv_22").nodes == expected


@pytest.mark.parametrize(
    "information",
    ["", "null", "{}", '{"Layers": []}', '{"Layers": ["Conv_0 + Relu_1", "MaxPool_2"]}'],
)
def test_an_inspector_that_tells_nothing_is_an_error(information: str) -> None:
    with pytest.raises(ExportError, match="TensorRT's inspector"):
        read_layers(information)


def verdict_of(
    wanted: ProductPrecision, precision: Precision, *entries: dict[str, Any], flags: bool = False
) -> PrecisionVerdict:
    strategy = possible_strategies(precision)[1] if flags else typed_strategy(precision)
    layers = read_layers(json.dumps({"Layers": entries}), ["/conv"])
    return judge([Product("/conv", "Conv", wanted)], layers, strategy)


INT8 = {"Weights": {"Type": "Int8", "Count": 1}}
HALF = {"Weights": {"Type": "Half", "Count": 1}}
FLOAT = {"Weights": {"Type": "Float", "Count": 1}}


@pytest.mark.parametrize(
    ("wanted", "precision", "fields", "kept"),
    [
        ("int8", "int8", INT8, True),
        ("int8", "int8", HALF, False),
        ("int8", "int8", FLOAT, False),
        ("fp16", "int8", HALF, True),
        ("fp16", "int8", INT8, False),
        ("fp16", "fp16", HALF, True),
        ("fp16", "fp16", FLOAT, False),
        ("fp32", "fp32", FLOAT, True),
        ("fp32", "fp32", {**FLOAT, "TacticName": "xmma_tf32f32_tf32f32_f32"}, False),
        ("fp32", "tf32", {**FLOAT, "TacticName": "xmma_tf32f32_tf32f32_f32"}, True),
        ("fp32", "tf32", FLOAT, True),
        ("fp32", "tf32", HALF, False),
    ],
)
def test_a_product_runs_as_the_graph_says_or_is_a_violation(
    wanted: ProductPrecision, precision: Precision, fields: dict[str, Any], kept: bool
) -> None:
    verdict = verdict_of(wanted, precision, convolution("/conv + /relu", **fields))

    assert (verdict.proven, len(verdict.violations)) == ((1, 0) if kept else (0, 1))


def test_with_the_flags_of_int8_tensorrt_may_choose_fp16_for_fp32_products() -> None:
    entry = convolution("/conv + /relu", **HALF)

    assert verdict_of("fp32", "int8", entry, flags=True).products == 0
    assert len(verdict_of("int8", "int8", entry, flags=True).violations) == 1


def test_layers_around_a_product_do_not_speak_for_it() -> None:
    metadata = {"Metadata": "[ONNX Layer: /conv]"}
    verdict = verdict_of(
        "int8",
        "int8",
        {"Name": "Reformatting CopyNode for Input Tensor 0 to /conv", "LayerType": "Reformat"},
        {"Name": "__myl_Move", "LayerType": "kgen", "Inputs": [tensor("Float")], **metadata},
        convolution("whatever_myl0_3", **INT8, **metadata),
    )

    assert (verdict.proven, verdict.violations) == (1, ())


def test_of_two_layers_that_compute_a_product_the_wider_counts() -> None:
    verdict = verdict_of(
        "int8", "int8", convolution("/conv", **INT8), convolution("/conv [part 2]", **HALF)
    )

    assert [violation.ran for violation in verdict.violations] == ["fp16"]


def test_other_layers_are_counted_and_the_wider_ones_listed() -> None:
    pool = {
        "Name": "/pool",
        "LayerType": "CaskPooling",
        "ParameterType": "Pooling",
        "Inputs": [tensor("Row major linear FP32")],
    }
    copy = {"Name": "Reformatting CopyNode", "LayerType": "Reformat"}
    verdict = verdict_of("int8", "int8", convolution("/conv", **INT8), pool, copy)

    assert verdict.layers_by_precision == {"fp32": 1, "int8": 1, "moves only": 1}
    assert verdict.wider_layers == ("fp32 CaskPooling /pool",)
