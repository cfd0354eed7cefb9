"""A graph as the rules look at it: who makes and who reads a tensor, its type, shape and value.

The model may be anything that parses; `fundus_export.graph_view` is for graphs of the export's own.
Contract: a model against which ONNX's checker has nothing (`fault`) has a view. What cannot be
known is None: the type of a tensor behind a node that ONNX does not understand, the value of a
weight that lies in another file. The view shares no code with what writes the graphs, so that a
misunderstanding of theirs is not repeated here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper, shape_inference

__all__ = [
    "Array",
    "Complaint",
    "Reader",
    "UntrustedView",
    "attribute",
    "called",
    "is_external",
    "type_name",
]

Array = npt.NDArray[Any]
Reader = tuple[NodeProto, int]

# Shapes and axes are constants that shape inference reads; weights are not worth copying for it.
_SMALL = 64


class Complaint(NamedTuple):
    """What ONNX says against a model, and of which node, if it names one."""

    node: str
    text: str


class UntrustedView:
    """Look-up tables over a model's main graph.

    Args:
        model: as parsed; it is not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = tuple(model.graph.node)
        self.inputs = tuple(value.name for value in model.graph.input)
        self.outputs = tuple(value.name for value in model.graph.output)
        self._constants = {**_constants_of_nodes(self.nodes), **_by_name(model.graph.initializer)}
        self._values: dict[str, Array | None] = {}
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._readers: dict[str, list[Reader]] = defaultdict(list)
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name:
                    self._readers[name].append((node, index))

    @property
    def constants(self) -> tuple[TensorProto, ...]:
        """Initializers, and the tensors of Constant nodes under the name of their output."""
        return tuple(self._constants.values())

    def nodes_of(self, *operators: str) -> Iterator[NodeProto]:
        """Nodes of these operators, in order."""
        return (node for node in self.nodes if node.op_type in operators)

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes a tensor; None for inputs and initializers."""
        return self._producers.get(name)

    def readers(self, name: str) -> list[Reader]:
        """Nodes that read a tensor, each with the index of the input."""
        return self._readers.get(name, [])

    def is_read_by_one(self, name: str) -> bool:
        """Whether one node reads a tensor and nothing else does."""
        return len(self.readers(name)) == 1 and name not in self.outputs

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is known before the graph runs."""
        return name in self._constants

    def value(self, name: str) -> Array | None:
        """The value of a constant; None where it is none or lies outside the file."""
        if name not in self._values:
            self._values[name] = _array(self._constants.get(name))
        return self._values[name]

    def element_type(self, name: str) -> int | None:
        """ONNX's number of a tensor's element type."""
        if (tensor := self._constants.get(name)) is not None:
            return int(tensor.data_type)
        return self._types.get(name, (None, None))[0]

    def shape(self, name: str) -> tuple[int | str | None, ...] | None:
        """A tensor's axes: a length, the name of a free one, or None for a nameless free one."""
        if (tensor := self._constants.get(name)) is not None:
            return tuple(tensor.dims)
        return self._types.get(name, (None, None))[1]

    @cached_property
    def fault(self) -> Complaint | None:
        """What ONNX's checker has against the model; with one, nothing else here can be trusted."""
        outside = any(is_external(tensor) for tensor in self.constants)
        try:
            checker.check_model(self._skeleton if outside else self.model)
        except Exception as error:  # ONNX raises several types, some of them plain RuntimeError
            return _complaint(error)
        return None

    @cached_property
    def misfit(self) -> Complaint | None:
        """What ONNX's strict inference of types and shapes has against the model."""
        try:
            shape_inference.infer_shapes(self._skeleton, strict_mode=True, check_type=True)
        except Exception as error:  # ONNX raises several types, some of them plain RuntimeError
            return _complaint(error)
        return None

    @cached_property
    def _types(self) -> dict[str, tuple[int | None, tuple[int | str | None, ...] | None]]:
        try:
            model = shape_inference.infer_shapes(self._skeleton, data_prop=True)
        except Exception:  # `misfit` says why; what the file itself states remains
            model = self._skeleton
        graph = model.graph
        values = (*graph.value_info, *graph.input, *graph.output)
        return {value.name: _type_and_shape(value) for value in values}

    @cached_property
    def _skeleton(self) -> onnx.ModelProto:
        """The model with its weights' types and shapes alone, which is all that inference needs."""
        whole = self.model.graph
        model = onnx.ModelProto(ir_version=self.model.ir_version)
        model.opset_import.extend(self.model.opset_import)
        model.functions.extend(self.model.functions)
        graph = model.graph
        graph.name = "skeleton"
        graph.node.extend(whole.node)
        graph.output.extend(whole.output)
        graph.input.extend(whole.input)
        known = set(self.inputs)
        for tensor in whole.initializer:
            if _is_small(tensor):
                graph.initializer.append(tensor)
            elif tensor.name not in known:
                dims = list(tensor.dims)
                graph.input.append(
                    helper.make_tensor_value_info(tensor.name, tensor.data_type, dims)
                )
        return model


def attribute(node: NodeProto, name: str) -> Any:
    """An attribute's value; None where the node has none of that name."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return None


def called(node: NodeProto) -> str:
    """What to call a node in a finding: its name, else what it makes."""
    if node.name:
        return str(node.name)
    made = next((name for name in node.output if name), "nothing")
    return f"{node.op_type} that makes {made}"


def is_external(tensor: TensorProto) -> bool:
    """Whether a tensor's values lie in another file."""
    return tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data) > 0


def type_name(element_type: int | None) -> str:
    """For people, such as `float16`."""
    if element_type is None:
        return "an unknown type"
    try:
        return str(TensorProto.DataType.Name(element_type)).lower()
    except ValueError:
        return f"type {element_type}"


def _is_small(tensor: TensorProto) -> bool:
    return not is_external(tensor) and int(np.prod(tensor.dims)) <= _SMALL


def _by_name(tensors: Any) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in tensors}


def _constants_of_nodes(nodes: tuple[NodeProto, ...]) -> dict[str, TensorProto]:
    found = {}
    for node in nodes:
        if node.op_type == "Constant" and len(node.output) == 1 and node.attribute:
            tensor = _constant(node)
            if tensor is not None:
                found[node.output[0]] = tensor
    return found


def _constant(node: NodeProto) -> TensorProto | None:
    entry = node.attribute[0]
    value = helper.get_attribute_value(entry)
    if isinstance(value, TensorProto):
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        return tensor
    types = {"value_float": np.float32, "value_floats": np.float32}
    integers = {"value_int": np.int64, "value_ints": np.int64}
    dtype = {**types, **integers}.get(entry.name)
    return (
        None if dtype is None else numpy_helper.from_array(np.array(value, dtype), node.output[0])
    )


def _array(tensor: TensorProto | None) -> Array | None:
    if tensor is None or is_external(tensor):
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError):  # an unknown type, or fewer bytes than the shape has
        return None


def _type_and_shape(
    value: onnx.ValueInfoProto,
) -> tuple[int | None, tuple[int | str | None, ...] | None]:
    tensor = value.type.tensor_type
    element_type = int(tensor.elem_type) or None
    if not tensor.HasField("shape"):
        return element_type, None
    return element_type, tuple(_axis(axis) for axis in tensor.shape.dim)


def _axis(axis: Any) -> int | str | None:
    if axis.HasField("dim_value"):
        return int(axis.dim_value)
    return str(axis.dim_param) or None


def _complaint(error: Exception) -> Complaint:
    text = str(error)
    found = re.search(r"node name: ([^)\s]*)\)|Name: '?([^)'\s]+)'?", text)
    node = next((group for group in found.groups() if group), "") if found else ""
    return Complaint(node, " ".join(text.split()))
