"""The layers of a built engine, as TensorRT's inspector tells them.

The inspector's JSON differs by version, and no page describes all of it. What is relied upon here
was seen in engines of 8.4 to 10.16 and in NVIDIA's page on moving to 11:

- `Layers` is a list of objects where the engine was built with detailed verbosity, else of names.
- `Metadata` (8.6 and later) names the ONNX nodes as `[ONNX Layer: name]`, parted by control
  characters; where it is missing or empty, names of nodes stand in the layer's own name.
- `Weights.Type` states the type that a convolution computes in.
- `TacticName` names the kernel, and the kernel its types: `i8i8_i8i32`, `f16f16_f16f32`, `tf32f32`.
- `Format/Datatype` of a tensor (`DataType` in 11) is "N/A due to dynamic shapes" in engines with a
  free batch, so that it is used last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fundus_export.errors import ExportError

__all__ = ["Layer", "inspect_engine", "read_layers"]

RANK = {"int8": 0, "fp8": 0, "fp16": 1, "bf16": 1, "tf32": 2, "fp32": 3}

_NODE = re.compile(r"\[ONNX Layer: ([^\]\x1e\x1f]*)\]")
_LEFT, _RIGHT = r"(?:^|[\s+|(,{\[\x1e\x1f])", r"(?:$|[\s+|),}\]\x1e\x1f]|\.\.\.|_myl)"

# Asked in this order: `ampere_fp32_icudnn_int8x4` is an INT8 kernel with FP32 output, and `bf16`
# would pass for `f16`.
_KERNEL_TYPES = (
    ("int8", re.compile(r"i8i8|i8i32|i8f32|i8f16|int8|imma|icudnn|i8816|i16832|_s8_|idp4a")),
    ("fp8", re.compile(r"e4m3|e5m2|fp8")),
    ("bf16", re.compile(r"bf16")),
    ("fp16", re.compile(r"f16f16|fp16|hmma|h884|h1688|h16816|hcudnn|hgemm|half")),
    ("tf32", re.compile(r"tf32")),
    ("fp32", re.compile(r"f32f32|fp32|ffma|scudnn|sgemm|float")),
)
_TENSOR_TYPES = (
    ("int8", re.compile(r"\bint8\b", re.IGNORECASE)),
    ("fp8", re.compile(r"\bfp8\b", re.IGNORECASE)),
    ("bf16", re.compile(r"bfloat16|\bbf16\b", re.IGNORECASE)),
    ("fp16", re.compile(r"\bhalf\b|\bfp16\b|\bfloat16\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\bfloat\b|\bfp32\b|\bfloat32\b", re.IGNORECASE)),
)
_PRODUCT_KIND = re.compile(r"conv|gemm|matrixmultiply|matmul|fullyconnected", re.IGNORECASE)
_PRODUCT_KERNEL = re.compile(r"gemm|fprop|xmma|cutlass|conv|cudnn|cublas", re.IGNORECASE)
_MOVING_KIND = re.compile(r"reformat|noop|shuffle|constant|copy|^signal$|^wait$", re.IGNORECASE)
# Myelin, which compiles what is no plain convolution, writes Fc for products and Corr for
# convolutions into the names of what it fused.
_MYELIN_PRODUCT = re.compile(r"^__myl_\w*(Fc|Corr)")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's.
        nodes: names of the ONNX nodes that it came from, where TensorRT says so.
        precision: int8, fp8, bf16, fp16, tf32, fp32, or `untold`.
        evidence: which field the precision was read from.
        is_product: whether it computes a convolution or matrix product, as far as can be told.
        moves_only: whether it only moves or retypes values.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    precision: str
    evidence: str
    is_product: bool
    moves_only: bool


def inspect_engine(trt: Any, engine: Any, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The inspector's JSON on an engine, with concrete shapes where TensorRT takes them.

    Args:
        trt: TensorRT's module.
        engine: deserialised.
        shapes: of each input; they make later versions tell the tensors' formats.
    """
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    if context is not None:
        for name, shape in shapes.items():
            context.set_input_shape(name, shape)
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def read_layers(information: str, nodes: Iterable[str] = ()) -> tuple[Layer, ...]:
    """Layers from the inspector's JSON.

    Args:
        information: the JSON.
        nodes: names to look for in layers that say nothing of where they came from.

    Raises:
        ExportError: it holds no details, so that nothing can be said about the engine.
    """
    try:
        # the names are parted by control characters that JSON does not allow in texts
        entries = json.loads(information, strict=False)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"TensorRT's inspector answered what is no list of layers ({error}); the engine's "
            "precision cannot be shown, so that it is not used"
        ) from error
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ExportError(
            "TensorRT's inspector told no details of the layers, although the engine was built "
            "with detailed verbosity; its precision cannot be shown, so that it is not used"
        )
    patterns = {name: re.compile(_LEFT + re.escape(name) + _RIGHT) for name in nodes if name}
    return tuple(_layer(entry, patterns) for entry in entries)


def _layer(entry: Mapping[str, Any], patterns: Mapping[str, re.Pattern[str]]) -> Layer:
    name = str(entry.get("Name", ""))
    kind = str(entry.get("ParameterType") or entry.get("LayerType", ""))
    tactic = str(entry.get("TacticName", ""))
    told = tuple(_NODE.findall(str(entry.get("Metadata", ""))))
    precision, evidence = _precision(entry, tactic)
    moves_only = bool(_MOVING_KIND.search(kind) or _MOVING_KIND.search(name.split(" ")[0]))
    return Layer(
        name=name.replace("\x1e", " ").replace("\x1f", " "),
        kind=str(entry.get("LayerType", kind)),
        nodes=told or tuple(node for node, found in patterns.items() if found.search(name)),
        precision=precision,
        evidence=evidence,
        is_product=not moves_only
        and bool(
            _PRODUCT_KIND.search(kind)
            or _PRODUCT_KIND.search(str(entry.get("LayerType", "")))
            or _PRODUCT_KERNEL.search(tactic)
            or _MYELIN_PRODUCT.search(name)
        ),
        moves_only=moves_only,
    )


def _precision(entry: Mapping[str, Any], tactic: str) -> tuple[str, str]:
    """What a layer computes in, and the field that says so.

    The kernel's weights and its name are both asked, and the wider wins: INT8 tensors around a
    kernel that computes in floating point are no INT8. A tensor's type alone proves little, so
    that there the narrowest of the inputs is taken.
    """
    weights = entry.get("Weights")
    by_weights = _first(_TENSOR_TYPES, str(weights.get("Type"))) if weights else None
    by_kernel = _first(_KERNEL_TYPES, tactic.lower())
    if by_weights == "fp32" and by_kernel == "tf32":
        return "tf32", "TacticName"
    found = [(by_weights, "Weights.Type"), (by_kernel, "TacticName")]
    known = [(value, field) for value, field in found if value is not None]
    if known:
        return max(known, key=lambda item: RANK[item[0]])
    tensors = [_first(_TENSOR_TYPES, _tensor_type(t)) for t in entry.get("Inputs", ())]
    types = [kind for kind in tensors if kind is not None]
    if types:
        return min(types, key=RANK.__getitem__), "Inputs"
    return "untold", ""


def _first(patterns: Iterable[tuple[str, re.Pattern[str]]], text: str) -> str | None:
    return next((kind for kind, pattern in patterns if pattern.search(text)), None)


def _tensor_type(tensor: Any) -> str:
    """The field with a tensor's type, which 11 parted from its format and spells otherwise."""
    if not isinstance(tensor, Mapping):
        return ""
    fields = {str(key).lower().replace(" ", ""): str(value) for key, value in tensor.items()}
    return fields.get("datatype") or fields.get("format/datatype") or fields.get("format", "")
