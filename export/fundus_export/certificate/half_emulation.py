"""Makes ONNX Runtime's CPU provider compute a typed FP16 graph as FP16.

The CPU provider has no FP16 arithmetic. It runs such graphs in FP32 and also drops the conversions
between, optimisations off or on, so that nothing is rounded and nothing overflows: the answers
would be FP32's, and their certificate worthless. Here the graph is written anew in FP32, with every
FP16 tensor rounded to FP16 and back by explicit conversions, which the provider keeps. What exceeds
65504 becomes infinite, as on a GPU.

Not rounded are tensors that were rounded before and only move, and what DequantizeLinear answers:
engines fuse that into the integer arithmetic behind it. Sums inside one operator are FP32, as with
FP32 accumulators; an engine that sums in FP16 rounds more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

__all__ = ["emulate_half", "has_half"]

# Their answers hold numbers of their inputs alone.
_EXACT = frozenset(
    {
        "DequantizeLinear",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherND",
        "Identity",
        "MaxPool",
        "ReduceMax",
        "ReduceMin",
        "Relu",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


def has_half(graph: bytes) -> bool:
    """Whether a graph computes anything in FP16."""
    return bool(_half_tensors(onnx.load_from_string(graph)))


def emulate_half(graph: bytes) -> bytes:
    """The same graph in FP32, rounded to FP16 where it is FP16; unchanged where it has none.

    Tensors keep their names, and hold the rounded values.
    """
    model = onnx.load_from_string(graph)
    half = _half_tensors(model)
    if not half:
        return graph
    nodes = [made for node in model.graph.node for made in _rewritten(node, half)]
    weights = [_widened(tensor) for tensor in model.graph.initializer]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    return bytes(model.SerializeToString())


def _half_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Names of all FP16 tensors that nodes compute."""
    inferred = shape_inference.infer_shapes(model).graph
    computed = {output for node in model.graph.node for output in node.output}
    return frozenset(
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16 and value.name in computed
    )


def _rewritten(node: onnx.NodeProto, half: frozenset[str]) -> Iterator[onnx.NodeProto]:
    """The node in FP32, and what rounds its outputs."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    for attribute in made.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            attribute.t.CopyFrom(_widened(attribute.t))
        elif node.op_type == "Cast" and attribute.name == "to":
            attribute.i = TensorProto.FLOAT if attribute.i == TensorProto.FLOAT16 else attribute.i
    rounding = []
    for place, name in enumerate(node.output):
        if name in half and node.op_type not in _EXACT:
            made.output[place] = f"{name} exact"
            rounding += [
                helper.make_node(
                    "Cast", [f"{name} exact"], [f"{name} half"], to=TensorProto.FLOAT16
                ),
                helper.make_node("Cast", [f"{name} half"], [name], to=TensorProto.FLOAT),
            ]
    yield made
    yield from rounding


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
