"""Moves a graph of DMS-Net to another operator set, exactly or not at all.

Contract: the graph that comes in is of `SOURCE_OPSET` and is not changed. Only differences that
DMS-Net's operators have between these sets are known here; an operator outside `_KNOWN` is refused
rather than relabelled. From 18 to 19 none of them changes its meaning, Q/DQ gains FP16 scales. Down
to 17, the axes of ReduceMax and ReduceMean move from an input back into an attribute.
"""

from __future__ import annotations

import onnx
from onnx import checker, helper

from fundus_export.errors import ExportError
from fundus_export.graph_edit import drop_unread_constants
from fundus_export.graph_view import GraphView, attribute

__all__ = ["OPSETS", "SOURCE_OPSET", "require_opset", "with_opset"]

SOURCE_OPSET = 18
OPSETS = (17, 18, 19)

# Operators that are the same from 17 to 19 but for types that no graph here uses, with those that
# `_axes_as_attribute` mends.
_MENDED = frozenset({"ReduceMax", "ReduceMean", "ReduceMin"})
_KNOWN = _MENDED | frozenset(
    {
        *("Abs", "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "DequantizeLinear", "Div"),
        *("Exp", "Floor", "Gather", "GatherND", "Gemm", "Greater", "Identity", "MatMul", "Max"),
        *("MaxPool", "Min", "Mul", "Neg", "QuantizeLinear", "ReduceSum", "Relu", "Reshape"),
        *("Sigmoid", "Slice", "Softmax", "Sqrt", "Sub", "Transpose", "Unsqueeze", "Where"),
    }
)


def require_opset(opset: int) -> None:
    """Check that graphs can be written in an operator set.

    Raises:
        ExportError: they cannot.
    """
    if opset not in OPSETS:
        known = ", ".join(map(str, OPSETS))
        raise ExportError(f"opset {opset} was asked for; graphs are written in opset {known}")


def with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A copy of a graph in another operator set.

    Args:
        model: of operator set `SOURCE_OPSET`.
        opset: 17, 18 or 19.

    Raises:
        ExportError: the model is of another operator set, or the one that was asked for or an
            operator is not known here.
    """
    found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if found != {"ai.onnx": SOURCE_OPSET}:
        raise ExportError(f"the graph is of opset {found}, expected {SOURCE_OPSET}; export it so")
    require_opset(opset)
    unknown = sorted({node.op_type for node in model.graph.node} - _KNOWN)
    if unknown:
        raise ExportError(
            f"the graph has operators that are not known to keep their meaning between opset "
            f"{SOURCE_OPSET} and {opset}: {', '.join(unknown)}; this is a fault of the export"
        )
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    if opset == SOURCE_OPSET:
        return moved
    if opset < SOURCE_OPSET:
        _axes_as_attribute(moved)
    del moved.opset_import[:]
    moved.opset_import.append(helper.make_opsetid("", opset))
    # older parsers know older files: the version that came with the operator set
    moved.ir_version = helper.find_min_ir_version_for(moved.opset_import)
    checker.check_model(moved, full_check=True)
    return moved


def _axes_as_attribute(model: onnx.ModelProto) -> None:
    view = GraphView(model)
    for node in model.graph.node:
        if node.op_type not in _MENDED:
            continue
        if attribute(node, "noop_with_empty_axes"):
            raise ExportError(f"{node.name} may reduce nothing; this is a fault of the export")
        kept = [entry for entry in node.attribute if entry.name != "noop_with_empty_axes"]
        axes = [int(a) for name in node.input[1:] for a in view.constant(name).ravel()]
        if axes:
            kept.append(helper.make_attribute("axes", axes))
        del node.attribute[:]
        node.attribute.extend(kept)
        del node.input[1:]
    drop_unread_constants(model.graph)
