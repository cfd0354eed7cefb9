"""Where the rules come from: pages, code at a tag, threads."""

from __future__ import annotations

__all__ = [
    "BIAS_SCALE",
    "CONSTANTS",
    "CONV_BIAS",
    "FP16_RANGE",
    "IMPORTERS",
    "INT8_WEIGHTS",
    "LAYERS",
    "ONNX_CHECKER",
    "OPERATOR_TABLES",
    "ORT_FUSIONS",
    "ORT_IR",
    "ORT_MATMUL_ADD",
    "ORT_TENSORRT",
    "PLACEMENT",
    "PRECISION",
    "PROTOCOL",
    "QUANTIZE_LINEAR",
    "RESIDUALS",
    "STRONG_TYPING",
    "TORCH_EXPORTER",
]

PROTOCOL = "runtime/fundus_runtime/backends/protocol.py, docs/bundle-format.md"
PRECISION = "docs/export.md, The dialect checker"

ONNX_CHECKER = "onnx.ai/onnx/api/checker.html, onnx.ai/onnx/api/shape_inference.html"
QUANTIZE_LINEAR = "onnx.ai/onnx/operators/onnx__QuantizeLinear.html"
FP16_RANGE = "IEEE 754 binary16: beyond 65504 a number is infinite, below 3e-8 it is zero"

OPERATOR_TABLES = (
    "github.com/onnx/onnx-tensorrt docs/operators.md at 8.5-GA, 8.6-GA, 10.0-GA and 10.1-GA"
)
IMPORTERS = (
    "github.com/onnx/onnx-tensorrt, QuantDequantLinearHelper: builtin_op_importers.cpp at 8.5-GA "
    "and 8.6-GA, onnxOpImporters.cpp at 10.1-GA"
)
CONV_BIAS = (
    "github.com/onnx/onnx-tensorrt, importer of Conv at 8.6-GA (the bias must be an initializer) "
    "and issues/850 (INT32 bias behind DequantizeLinear)"
)
LAYERS = (
    "github.com/NVIDIA/TensorRT include/NvInfer.h, IQuantizeLayer and IDequantizeLayer, 8.5 to 11.1"
)
CONSTANTS = (
    "github.com/NVIDIA/TensorRT include/NvInfer.h, IConstantLayer, at v8.6.1 and v9.1.0; "
    "github.com/microsoft/onnxruntime/issues/11535"
)
STRONG_TYPING = (
    "github.com/NVIDIA/TensorRT include/NvInfer.h, NetworkDefinitionCreationFlag::kSTRONGLY_TYPED"
)
PLACEMENT = (
    "docs.nvidia.com/deeplearning/tensorrt, Explicit Quantization, Q/DQ placement: quantise all "
    "inputs of weighted operations, not their outputs"
)
RESIDUALS = (
    "github.com/NVIDIA/TensorRT tools/tensorflow-quantization/docs, add_custom_qdq_cases.md; "
    "github.com/NVIDIA/Model-Optimizer, build_non_residual_input_map"
)
INT8_WEIGHTS = "TensorRT 8 developer guide, Working with INT8: weights lie within -127 to 127"

TORCH_EXPORTER = "torch.onnx: adaptive pooling of unknown windows becomes Gather, Where and Expand"

ORT_IR = "onnxruntime.ai/docs/reference/compatibility.html: 1.18 reads IR version 10"
ORT_FUSIONS = (
    "github.com/microsoft/onnxruntime onnxruntime/core/optimizer/qdq_transformer: "
    "ConvNodeGroupSelector, ReluQuantFusion, ClipQuantFusion (pull request 20627)"
)
ORT_MATMUL_ADD = (
    "github.com/microsoft/onnxruntime onnxruntime/core/optimizer/matmul_add_fusion.cc, measured "
    "with 1.31.1"
)
ORT_TENSORRT = (
    "onnxruntime.quantization, extra_options that TensorRT needs: ActivationSymmetric, "
    "QuantizeBias=False, DedicatedQDQPair=False, no output quantisation"
)
BIAS_SCALE = (
    "onnx.ai/onnx/operators/onnx__QLinearConv.html; github.com/microsoft/onnxruntime pull requests "
    "22889 (a float bias is not fused) and 28229 (another scale was taken for the product's)"
)
