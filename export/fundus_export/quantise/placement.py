"""Where Q/DQ pairs stand: which products are in INT8, and who reads which tensor through a pair.

A *product* is a convolution or matrix product with constant weights. Products too small to matter
stay high: quantising a gate of two channels saves nothing and costs accuracy. A *raised* product
stays high because somebody asked for it.

For TensorRT, pairs stand on the products' inputs, and on the identity branch of residual additions
whose other branch ends in a quantised convolution: convolution, addition and activation then run as
one INT8 kernel. For ONNX Runtime's CPU provider they stand on the answers too, and around the
additions, concatenations and pools in between, which it has INT8 kernels for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import onnx

from fundus_export.graph_view import GraphView, float_attribute, int_attribute
from fundus_export.quantise.scheme import Scheme

__all__ = ["Placement", "multiplications", "place", "products", "weight_axis"]

PRODUCTS = ("Conv", "MatMul", "Gemm")
ACTIVATIONS = ("Relu", "Clip")
_CARRIERS = ("Add", "Concat", "MaxPool")
_LEAST_MULTIPLICATIONS = 200_000
_LEAST_WEIGHTS = 16_384


@dataclass(frozen=True)
class Placement:
    """Where pairs stand in one graph.

    Attributes:
        quantised: names of the products in INT8.
        pairs: for each tensor with a pair, the readers (node name, index of the input) that read
            it through the pair.
        same_range: a tensor that must be written with another one's scale, by its name.
    """

    quantised: frozenset[str]
    pairs: dict[str, frozenset[tuple[str, int]]]
    same_range: dict[str, str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors to measure: those with a pair."""
        return tuple(self.pairs)


def products(view: GraphView) -> Iterator[onnx.NodeProto]:
    """The graph's convolutions and matrix products with constant weights, in order.

    Left out is what INT8 kernels do not take: stacks of matrices, factors before the sums, biases
    that are computed or no number a channel.
    """
    for node in view.nodes:
        if node.op_type in PRODUCTS and _is_plain(view, node):
            yield node


def _is_plain(view: GraphView, node: onnx.NodeProto) -> bool:
    data, weight = node.input[:2]
    if view.is_constant(data) or not view.is_constant(weight):
        return False
    shape = view.shape(weight) or ()
    if node.op_type != "Conv" and len(shape) != 2:
        return False
    factors = (float_attribute(node, name, 1.0) for name in ("alpha", "beta"))
    if node.op_type == "Gemm" and (int_attribute(node, "transA", 0) or set(factors) != {1.0}):
        return False
    bias = node.input[2] if len(node.input) > 2 else ""
    return not bias or (view.is_constant(bias) and view.shape(bias) == (shape[weight_axis(node)],))


def weight_axis(node: onnx.NodeProto) -> int:
    """Axis of a product's weights that counts its output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 1 - int_attribute(node, "transB", 0)
    return 1


def place(view: GraphView, scheme: Scheme, raised: Collection[str] = ()) -> Placement:
    """Decide where pairs stand.

    Args:
        view: the FP32 graph.
        scheme: of the dialect.
        raised: names of products that stay high.
    """
    chosen = [
        node
        for node in products(view)
        if node.name not in raised
        and is_worth_it(view, node)
        and (not scheme.outputs_too or _may_answer_in_int8(view, node))
    ]
    quantised = frozenset(node.name for node in chosen)
    if scheme.outputs_too:
        return _place_around(view, quantised)
    return _place_on_inputs(view, chosen, quantised)


def multiplications(view: GraphView, node: onnx.NodeProto) -> int:
    """How many a product takes, a row of the batch."""
    shape = view.shape(node.input[1]) or (1,)
    channels = shape[weight_axis(node)] or 1
    return view.elements(node.output[0]) // channels * view.elements(node.input[1])


def is_worth_it(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a product is large enough for INT8 to matter."""
    weights = view.elements(node.input[1])
    large = multiplications(view, node) >= _LEAST_MULTIPLICATIONS or weights >= _LEAST_WEIGHTS
    return large and not any(view.is_output(name) for name in node.output)


def _place_on_inputs(
    view: GraphView, chosen: list[onnx.NodeProto], quantised: frozenset[str]
) -> Placement:
    pairs: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for node in chosen:
        pairs[node.input[0]].add((node.name, 0))
    for node in view.nodes:
        index = identity_branch(view, node, quantised)
        if index is not None:
            pairs[node.input[index]].add((node.name, index))
    return Placement(quantised, {k: frozenset(v) for k, v in pairs.items()}, {})


def identity_branch(
    view: GraphView, node: onnx.NodeProto, quantised: Collection[str]
) -> int | None:
    """Index of a residual addition's identity branch; None where the node is no such addition.

    Where both branches end in convolutions, the identity is the one that reads what others read
    too: the block's own input.
    """
    if node.op_type != "Add" or not _are_alike(view, node.input):
        return None
    ends = [_fusable_convolution(view, name, quantised) for name in node.input]
    if ends[0] is None and ends[1] is None:
        return None
    if ends[0] is None or ends[1] is None:
        return 0 if ends[0] is None else 1
    return 0 if len(view.readers(ends[0].input[0])) > len(view.readers(ends[1].input[0])) else 1


def _are_alike(view: GraphView, names: Sequence[str]) -> bool:
    """Whether tensors are computed and of one shape, as far as it is known."""
    shapes = {view.shape(name) for name in names}
    return len(shapes) == 1 and None not in shapes and not any(map(view.is_constant, names))


def _fusable_convolution(
    view: GraphView, name: str, quantised: Collection[str]
) -> onnx.NodeProto | None:
    producer = view.producer(name)
    if producer is None or producer.op_type != "Conv" or producer.name not in quantised:
        return None
    return producer if view.sole_reader(name) is not None else None


def _may_answer_in_int8(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether nobody needs a convolution's exact answer; a matrix product can answer in FP32."""
    return node.op_type != "Conv" or not view.is_output(_after_activation(view, node))


def _place_around(view: GraphView, quantised: frozenset[str]) -> Placement:
    integer = _integer_tensors(view, quantised)
    pairs: dict[str, frozenset[tuple[str, int]]] = {}
    same_range: dict[str, str] = {}
    for name in _in_order(view, integer.made_in_int8 | integer.read_in_int8):
        readers = view.readers(name)
        if name not in integer.made_in_int8:
            # made in FP32: who computes in FP32 keeps the exact value
            readers = [(node, i) for node, i in readers if node.name in integer.nodes]
        pairs[name] = frozenset((node.name, index) for node, index in readers)
        producer = view.producer(name)
        if producer is not None and producer.op_type == "MaxPool" and name in integer.made_in_int8:
            same_range[name] = same_range.get(producer.input[0], producer.input[0])
    return Placement(quantised, pairs, same_range)


def _in_order(view: GraphView, names: Collection[str]) -> list[str]:
    computed = (name for node in view.nodes for name in node.output)
    return [name for name in (*view.inputs, *computed) if name in names]


@dataclass(frozen=True)
class _IntegerPart:
    """What ONNX Runtime computes in INT8: nodes, tensors that they make, tensors that they read."""

    nodes: frozenset[str]
    made_in_int8: frozenset[str]
    read_in_int8: frozenset[str]


def _integer_tensors(view: GraphView, quantised: frozenset[str]) -> _IntegerPart:
    read = {node.input[0] for node in view.nodes if node.name in quantised}
    carriers = _carriers(view, quantised, read)
    nodes = quantised | carriers
    made = {_after_activation(view, node) for node in view.nodes if _makes_int8(view, node, nodes)}
    for node in view.nodes:
        if node.name in carriers:
            read.update(node.input)
    return _IntegerPart(frozenset(nodes), frozenset(made), frozenset(read))


def _makes_int8(view: GraphView, node: onnx.NodeProto, nodes: Collection[str]) -> bool:
    """Convolutions and carriers need INT8 answers; a matrix product can answer in FP32 as well."""
    if node.name not in nodes:
        return False
    if node.op_type in ("MatMul", "Gemm"):
        return any(reader.name in nodes for reader, _ in view.readers(node.output[0]))
    return True


def _carriers(view: GraphView, quantised: frozenset[str], read: set[str]) -> frozenset[str]:
    """Nodes between products that keep INT8 going, from what they read to who reads them."""
    able = set(read) | {
        _after_activation(view, node) for node in view.nodes if node.name in quantised
    }
    possible = []
    for node in view.nodes:
        if _may_carry(view, node) and all(name in able for name in node.input):
            possible.append(node)
            able.add(_after_activation(view, node))
    wanted = set(read)
    carriers = set()
    for node in reversed(possible):
        if _after_activation(view, node) in wanted:
            carriers.add(node.name)
            wanted.update(node.input)
    return frozenset(carriers)


def _may_carry(view: GraphView, node: onnx.NodeProto) -> bool:
    return node.op_type in _CARRIERS and not view.is_output(_after_activation(view, node))


def _after_activation(view: GraphView, node: onnx.NodeProto) -> str:
    """What a node makes, or its activation where that alone reads it and is fused."""
    reader = view.sole_reader(node.output[0])
    if reader is not None and reader.op_type in ACTIVATIONS and node.op_type in ("Conv", "Add"):
        return str(reader.output[0])
    return str(node.output[0])
