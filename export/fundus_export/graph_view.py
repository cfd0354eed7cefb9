"""A read-only view of an ONNX graph: who makes a tensor, who reads it, its value, shape and type.

For graphs that the export made itself; `dialect_check.view.UntrustedView` stands malformed ones.
Contract: the model is not changed, and the view does not follow later changes of it. Shapes come
from ONNX's own shape inference; a batch that is free is None.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy.typing as npt
import onnx
from onnx import numpy_helper, shape_inference

__all__ = ["GraphView", "Reader", "attribute", "float_attribute", "int_attribute"]

Array = npt.NDArray[Any]
Reader = tuple[onnx.NodeProto, int]

# Shapes, axes and single numbers, which inference reads; it only needs to know of the others.
_SMALL = 64


class GraphView:
    """Look-up tables over one graph.

    Args:
        model: checked ONNX, weights inline.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = tuple(model.graph.node)
        self.inputs = tuple(value.name for value in model.graph.input)
        self.outputs = tuple(value.name for value in model.graph.output)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._readers: dict[str, list[Reader]] = defaultdict(list)
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name:
                    self._readers[name].append((node, index))
        inferred = shape_inference.infer_shapes(_without_weights(model), data_prop=True)
        values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        self._types = {value.name: value.type.tensor_type for value in values}

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and constants."""
        return self._producers.get(name)

    def readers(self, name: str) -> list[Reader]:
        """Nodes that read a tensor, each with the index of the input."""
        return self._readers.get(name, [])

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an initializer."""
        return name in self._initializers

    def is_output(self, name: str) -> bool:
        """Whether a tensor leaves the graph."""
        return name in self.outputs

    def constant(self, name: str) -> Array:
        """The value of an initializer."""
        return numpy_helper.to_array(self._initializers[name])

    def initializer(self, name: str) -> onnx.TensorProto | None:
        """The initializer's record, or None."""
        return self._initializers.get(name)

    def element_type(self, name: str) -> int:
        """ONNX's number of a tensor's element type; 0 where it is unknown."""
        if (tensor := self._initializers.get(name)) is not None:
            return int(tensor.data_type)
        return int(self._types[name].elem_type) if name in self._types else 0

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """A tensor's shape, None for a free axis; None alone where even the rank is unknown."""
        if (tensor := self._initializers.get(name)) is not None:
            return tuple(tensor.dims)
        if name not in self._types or not self._types[name].HasField("shape"):
            return None
        axes = self._types[name].shape.dim
        return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in axes)

    def elements(self, name: str) -> int:
        """Elements of a tensor a row of the batch; 0 where the shape is unknown."""
        shape = self.shape(name)
        if shape is None:
            return 0
        return math.prod(axis for axis in shape if axis is not None)

    def sole_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor which goes nowhere else; None where there are others."""
        readers = self.readers(name)
        if len(readers) != 1 or self.is_output(name):
            return None
        return readers[0][0]


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """An attribute's value, or None where the node has none of that name."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return None


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """A whole-number attribute, or its default."""
    value = attribute(node, name)
    return default if value is None else int(value)


def float_attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A real number's attribute, or its default."""
    value = attribute(node, name)
    return default if value is None else float(value)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its weights as further inputs: what shape inference needs, without copies."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return light
