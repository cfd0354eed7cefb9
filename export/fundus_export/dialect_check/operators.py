"""Operators that a graph may use.

What DMS-Net's graphs use in every reading of the model, and their kin that inference on fixed
shapes needs. Each is supported in `docs/operators.md` of github.com/onnx/onnx-tensorrt at 10.0-GA
and 10.1-GA; those of `OPERATORS_TRT8` at 8.5-GA and 8.6-GA too. Q and DQ are kept apart.
"""

from __future__ import annotations

__all__ = [
    "CONSTANT_ARGUMENTS",
    "CONTROL_FLOW",
    "LOOK_UPS",
    "OPERATORS",
    "OPERATORS_CPU",
    "OPERATORS_TRT8",
    "QUANTISED",
    "SHAPE_ARITHMETIC",
]

_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ARITHMETIC = {
    *("Abs", "Add", "Div", "Erf", "Exp", "Log", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal"),
    *("Sqrt", "Sub", "Sum"),
}
_ACTIVATIONS = {
    *("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "LogSoftmax", "PRelu", "Relu"),
    *("Sigmoid", "Softmax", "Softplus", "Tanh"),
}
_POOLS = {
    *("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
    *("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
}
_LAYOUT = {
    *("Cast", "Concat", "Constant", "Flatten", "Pad", "Reshape", "Slice", "Split", "Squeeze"),
    *("Transpose", "Unsqueeze"),
}
_LOGIC = {
    *("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Where"),
}

OPERATORS_TRT8 = frozenset(_PRODUCTS | _ARITHMETIC | _ACTIVATIONS | _POOLS | _LAYOUT | _LOGIC)
# LayerNormalization is "N" at 8.5-GA, Gelu is unknown at 8.5-GA and 8.6-GA.
OPERATORS = OPERATORS_TRT8 | {"Gelu", "LayerNormalization"}

# Tables that are read at computed places, which a CPU is good at and an engine's fusions are not.
LOOK_UPS = frozenset({"Gather", "GatherElements", "GatherND"})
OPERATORS_CPU = OPERATORS | LOOK_UPS | {"Ceil", "Floor", "Round", "SpaceToDepth"}

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})

# Shapes computed while the graph runs, and what exporters make of adaptive pooling and resizing.
SHAPE_ARITHMETIC = frozenset(
    {
        *("ConstantOfShape", "Expand", "EyeLike", "Gather", "GatherElements", "GatherND"),
        *("NonZero", "Range", "Resize", "ScatterElements", "ScatterND", "Shape", "Size"),
        *("Tile", "Upsample"),
    }
)

# Operators that compute on 8 bits themselves; TensorRT knows none of them.
QUANTISED = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
)

# Arguments that the parser wants to be initializers ("must be an initializer" in the same tables).
CONSTANT_ARGUMENTS: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "Pad": (1, 2, 3),
    "ReduceL2": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}
