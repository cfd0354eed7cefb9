"""What sets the dialects apart, as far as it is plain data.

Sources of the figures:

* TensorRT's parser: `docs/operators.md` of github.com/onnx/onnx-tensorrt at the tags 8.5-GA and
  8.6-GA (opset up to 17), 10.0-GA and 10.1-GA (opset 9 to 20); 11.x takes up to 25
  (docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html). From opset 18 on
  the axes of ReduceMean and ReduceMax are an input, which the importers of 8.5 and 8.6 do not read:
  they reduce all axes without a word (`reduceTensor` of onnx2trt_utils.cpp at 8.6-GA).
* FP16 scales: ONNX allows them from opset 19 on (onnx.ai/onnx/operators/onnx__QuantizeLinear.html).
* Scales and weights per channel: ONNX allows them from opset 13 on.
* INT8 weights behind DequantizeLinear alone: 8.x stops with "invalid weights type of Int8"
  (github.com/microsoft/onnxruntime/issues/11535; github.com/NVIDIA/TensorRT at 8.6.1, NvInfer.h:
  a constant is "a tensor of real values"). NvInfer.h of 9.1 gives a constant "the type of its
  weights"; TensorRT's guide names weights quantised beforehand ("Explicit Quantization", Quantized
  Weights). So `int8-trt` is for 10.0 and newer, `int8-trt8` for 8.5 and 8.6.
* ONNX Runtime 1.18, the oldest that the package allows, takes opset 21 and IR version 10.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from onnx import TensorProto

from fundus_export.dialect_check.operators import OPERATORS, OPERATORS_CPU, OPERATORS_TRT8

__all__ = ["TRAITS", "Traits"]

Engine = Literal["onnxruntime", "tensorrt"]

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@dataclass(frozen=True)
class Traits:
    """One dialect.

    Attributes:
        name: of the dialect.
        opsets: the lowest and the highest operator set.
        operators: that it may use.
        compute_type: what everything computes in that is not quantised and no island.
        activation_type: of quantised activations; None where nothing is quantised.
        scale_type: of the scales of activations and weights.
        weights_as_int8: quantised weights are INT8 in the file; else floats behind a pair.
        integer_bias: biases of quantised nodes may be INT32; else they stay floats.
        always_zero_point: every Q and DQ has three inputs.
        looks_up: tables may be read at places that the graph computes.
    """

    name: str
    opsets: tuple[int, int]
    operators: frozenset[str]
    compute_type: int = _FLOAT
    activation_type: int | None = None
    scale_type: int = _FLOAT
    weights_as_int8: bool = True
    integer_bias: bool = False
    always_zero_point: bool = False
    looks_up: bool = False

    @property
    def float_types(self) -> Collection[int]:
        """Types that a tensor of real numbers may have; FP32 is always one: inputs are."""
        return {_FLOAT, self.compute_type}

    @property
    def is_quantised(self) -> bool:
        """Whether the dialect has INT8 layers."""
        return self.activation_type is not None


TRAITS = {
    traits.name: traits
    for traits in (
        Traits("fp32", (13, 20), OPERATORS),
        Traits("fp16", (13, 20), OPERATORS, compute_type=_HALF),
        Traits(
            "int8-cpu",
            (13, 20),
            OPERATORS_CPU,
            activation_type=TensorProto.UINT8,
            integer_bias=True,
            looks_up=True,
        ),
        Traits(
            "int8-trt",
            (19, 20),
            OPERATORS,
            compute_type=_HALF,
            activation_type=TensorProto.INT8,
            scale_type=_HALF,
        ),
        Traits(
            "int8-trt8",
            (13, 17),
            OPERATORS_TRT8,
            activation_type=TensorProto.INT8,
            weights_as_int8=False,
            always_zero_point=True,
        ),
    )
}
