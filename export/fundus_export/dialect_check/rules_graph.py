"""The graph as a whole: that ONNX accepts it, that it is ours, what is free in it, its versions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from onnx import TensorProto

from fundus_export.dialect_check.findings import Breach, dialect_rule, rule
from fundus_export.dialect_check.sources import (
    ONNX_CHECKER,
    OPERATOR_TABLES,
    ORT_IR,
    PROTOCOL,
    TORCH_EXPORTER,
)
from fundus_export.dialect_check.traits import Traits
from fundus_export.dialect_check.view import UntrustedView, called, type_name
from fundus_runtime.backends.protocol import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    HEAD_INPUTS,
    HEAD_OUTPUTS,
)

__all__ = ["RULES", "VALID"]

_NEWEST_IR = 10

Shape = tuple[int | str | None, ...]


@rule(
    "graph-valid",
    "ONNX's checker and its strict shape and type inference accept the graph",
    source=ONNX_CHECKER,
)
def _valid(view: UntrustedView) -> Iterator[Breach]:
    complaint = view.fault or view.misfit
    if complaint is not None:
        yield Breach(
            complaint.node or "graph", f"ONNX says: {complaint.text}; export the graph again"
        )


@rule(
    "graph-interface",
    "inputs and outputs are those of an encoder or of a head",
    source=PROTOCOL,
)
def _interface(view: UntrustedView) -> Iterator[Breach]:
    sides = (*product(ENCODER_INPUTS, ENCODER_OUTPUTS), (HEAD_INPUTS, HEAD_OUTPUTS))
    if (view.inputs, view.outputs) not in sides:
        expected = " or ".join(f"{', '.join(i)} -> {', '.join(o)}" for i, o in sides)
        yield Breach(
            "graph",
            f"it maps {', '.join(view.inputs) or 'nothing'} -> {', '.join(view.outputs)}, expected "
            f"{expected}; give a graph that fundus-export wrote",
        )


@rule("graph-io-type", "inputs and outputs are FP32, whatever is inside", source=PROTOCOL)
def _io_type(view: UntrustedView) -> Iterator[Breach]:
    for name in (*view.inputs, *view.outputs):
        if (found := view.element_type(name)) != TensorProto.FLOAT:
            yield Breach(
                name, f"it is {type_name(found)}, expected float; cast it inside the graph"
            )


@rule(
    "graph-batch",
    "the first axis of every input and output is the one free axis, under one name",
    source=PROTOCOL,
)
def _batch(view: UntrustedView) -> Iterator[Breach]:
    shapes = {name: view.shape(name) for name in (*view.inputs, *view.outputs)}
    batch = next((shape[0] for shape in shapes.values() if shape), None)
    for name, shape in shapes.items():
        if not _is_batched(shape) or (shape and shape[0] != batch):
            yield Breach(
                name,
                f"its axes are {_shown(shape)}, expected a named batch ({batch!r}) and lengths; "
                "export with the batch as the one dynamic axis",
            )


@rule(
    "graph-free-axis",
    "inside the graph, too, no axis but the batch is free",
    source=TORCH_EXPORTER,
)
def _free_axis(view: UntrustedView) -> Iterator[Breach]:
    if view.misfit is not None:
        return  # shapes behind what ONNX does not accept are unknown, which says nothing
    for node in view.nodes:
        for name in filter(None, node.output):
            shape = view.shape(name)
            if shape is not None and not all(isinstance(axis, int) for axis in shape[1:]):
                yield Breach(
                    called(node),
                    f"{name} has the axes {_shown(shape)}, expected lengths after the batch; write "
                    "its shape as a constant",
                )


@dialect_rule(
    "graph-opset",
    "the operator set is one that the dialect's engines read as it is meant: "
    "13 to 20, `int8-trt` 19 to 20, `int8-trt8` 13 to 17",
    source=OPERATOR_TABLES,
)
def _opset(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    found = [entry.version for entry in view.model.opset_import if entry.domain in ("", "ai.onnx")]
    lowest, highest = traits.opsets
    if not found or not all(lowest <= version <= highest for version in found):
        yield Breach(
            "graph",
            f"its operator set is {found or 'not stated'}, expected {lowest} to {highest} for "
            f"{traits.name}; export with that opset, or convert and test it",
        )


@dialect_rule(
    "graph-ir",
    f"the file's IR version is at most {_NEWEST_IR}",
    source=ORT_IR,
)
def _ir(view: UntrustedView, traits: Traits) -> Iterator[Breach]:
    if view.model.ir_version > _NEWEST_IR:
        yield Breach(
            "graph",
            f"its IR version is {view.model.ir_version}, expected at most {_NEWEST_IR}; set "
            f"ir_version to {_NEWEST_IR}, which opset {traits.opsets[1]} does not need exceeded",
        )


def _is_batched(shape: Shape | None) -> bool:
    if not shape or not isinstance(shape[0], str):
        return False
    return all(isinstance(axis, int) and axis > 0 for axis in shape[1:])


def _shown(shape: Shape | None) -> str:
    if shape is None:
        return "unknown"
    return " x ".join("?" if axis is None else str(axis) for axis in shape) or "none"


VALID = _valid
RULES = (_valid, _interface, _io_type, _batch, _free_axis, _opset, _ir)
