"""CAFM's channel affinity for the CPU, sampled instead of taken channel by channel.

Row i of the affinity's softmax is softmax_j(a_i b_j): of all that belongs to row i it needs one
number, a_i. The mixed features of row i are therefore g(a_i), with

    g(t) = sum_j exp(t b_j) F_j / sum_j exp(t b_j),

a smooth curve in t. Instead of its C points, g is taken at `SAMPLES` even steps between the
smallest and the largest a, and read in between by straight lines: of a C x C softmax and product,
SAMPLES x C are left. Each answer stays a weighted mean of features, whatever the numbers. With R
the product of both descriptors' spans, the error is at most about (R / SAMPLES)^2 / 8 of the
features' spread: 2e-4 for R = 10, where rounding to 8 bits costs 4e-3. It is used in INT8 graphs
for CPUs alone, where the products of the affinities, which stay FP32, would take a third of the
head's time; the certificate judges the graph with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fundus_export.graph_view import GraphView, int_attribute

__all__ = ["SAMPLES", "sample_affinities"]

SAMPLES = 256
# Below this many channels a row each is as cheap.
_LEAST_CHANNELS = 3 * SAMPLES
_SMALLEST_STEP = 1e-20


def sample_affinities(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a head with every large affinity sampled; other graphs come back as they are.

    Nodes and tensors that stay keep their names.
    """
    view = GraphView(model)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    dropped: set[str] = set()
    for node in view.nodes:
        found = _affinity(view, node)
        if found is not None:
            replaced[node.name] = _sampled(found)
            dropped |= {found.softmax.name, found.outer.name}
    sampled = onnx.ModelProto()
    sampled.CopyFrom(model)
    if not replaced:
        return sampled
    kept = [node for node in view.nodes if node.name not in dropped]
    written = [new for node in kept for new in replaced.get(node.name, [node])]
    texts = [node.SerializeToString() for node in _without_unread(written, view.outputs)]
    del sampled.graph.node[:]
    sampled.graph.node.extend(onnx.NodeProto.FromString(text) for text in texts)
    sampled.graph.initializer.extend(_constants())
    return sampled


class _Affinity(NamedTuple):
    """MatMul(Softmax(own other^T), features), own and other N x C."""

    product: onnx.NodeProto
    softmax: onnx.NodeProto
    outer: onnx.NodeProto
    own: str
    other: str


def _affinity(view: GraphView, product: onnx.NodeProto) -> _Affinity | None:
    """The affinity that a node ends, where it is one and large."""
    softmax = _producer(view, product, "MatMul", "Softmax")
    outer = None if softmax is None else _producer(view, softmax, "Softmax", "Mul")
    if softmax is None or outer is None or not _only_between(view, softmax, outer):
        return None
    own = _unsqueezed(view, outer.input[0], axis=1)
    other = _unsqueezed(view, outer.input[1], axis=2)
    if own is None or other is None or int_attribute(softmax, "axis", -1) not in (2, -1):
        return None
    return _Affinity(product, softmax, outer, own, other)


def _producer(view: GraphView, node: onnx.NodeProto, op: str, before: str) -> onnx.NodeProto | None:
    """What feeds a node first, where both are of the operators named."""
    producer = view.producer(node.input[0]) if node.op_type == op else None
    return producer if producer is not None and producer.op_type == before else None


def _unsqueezed(view: GraphView, name: str, *, axis: int) -> str | None:
    """The N x C descriptor behind N x C x 1 or N x 1 x C, C along `axis`, where C is large."""
    producer, shape = view.producer(name), view.shape(name)
    if producer is None or producer.op_type != "Unsqueeze" or shape is None or len(shape) != 3:
        return None
    if shape[3 - axis] != 1 or (shape[axis] or 0) < _LEAST_CHANNELS:
        return None
    return str(producer.input[0])


def _only_between(view: GraphView, softmax: onnx.NodeProto, outer: onnx.NodeProto) -> bool:
    return all(view.sole_reader(node.output[0]) is not None for node in (softmax, outer))


def _sampled(affinity: _Affinity) -> list[onnx.NodeProto]:
    """The curve at even steps, and its values at the descriptor's numbers."""
    product, own, other = affinity.product, affinity.own, affinity.other
    p = affinity.softmax.name

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        target = output if output == product.output[0] else f"{p}_{output}"
        return helper.make_node(op, inputs, [target], f"{p}_{op}_{output}", **attributes)

    def of(name: str) -> str:
        return f"{p}_{name}"

    return [
        node("ReduceMin", [own, "affinity_channels"], "low", keepdims=1),
        node("ReduceMax", [own, "affinity_channels"], "high", keepdims=1),
        node("Sub", [of("high"), of("low")], "span"),
        node("Mul", [of("span"), "affinity_share"], "share"),
        node("Max", [of("share"), "affinity_smallest"], "step"),
        node("Mul", [of("step"), "affinity_steps"], "offsets"),
        node("Add", [of("low"), of("offsets")], "places"),
        node("Unsqueeze", [of("places"), "affinity_last"], "column"),
        node("Unsqueeze", [other, "affinity_channels"], "row"),
        node("Mul", [of("column"), of("row")], "outer"),
        node("Softmax", [of("outer")], "weights", axis=2),
        node("MatMul", [of("weights"), product.input[1]], "curve"),
        node("Sub", [own, of("low")], "above"),
        node("Div", [of("above"), of("step")], "place"),
        node("Floor", [of("place")], "floor"),
        node("Min", [of("floor"), "affinity_last_start"], "start"),
        node("Sub", [of("place"), of("start")], "fraction"),
        node("Unsqueeze", [of("fraction"), "affinity_last"], "portion"),
        node("Cast", [of("start")], "first", to=TensorProto.INT64),
        node("Unsqueeze", [of("first"), "affinity_last"], "from"),
        node("Add", [of("from"), "affinity_one"], "to"),
        node("GatherND", [of("curve"), of("from")], "before", batch_dims=1),
        node("GatherND", [of("curve"), of("to")], "after", batch_dims=1),
        node("Sub", [of("after"), of("before")], "rise"),
        node("Mul", [of("rise"), of("portion")], "part"),
        node("Add", [of("before"), of("part")], str(product.output[0])),
    ]


def _constants() -> list[onnx.TensorProto]:
    values: dict[str, Any] = {
        "affinity_channels": np.array([1], np.int64),
        "affinity_last": np.array([2], np.int64),
        "affinity_one": np.array(1, np.int64),
        "affinity_share": np.array(1.0 / (SAMPLES - 1), np.float32),
        "affinity_smallest": np.array(_SMALLEST_STEP, np.float32),
        "affinity_steps": np.arange(SAMPLES, dtype=np.float32)[None],
        "affinity_last_start": np.array(SAMPLES - 2, np.float32),
    }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _without_unread(nodes: list[onnx.NodeProto], outputs: tuple[str, ...]) -> list[onnx.NodeProto]:
    """Nodes whose answers go somewhere; the outer products' Unsqueezes may be left over."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]
