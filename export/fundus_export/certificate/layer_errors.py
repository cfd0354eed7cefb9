"""Which layers of a dialect lose most, tensor by tensor.

Every floating tensor that both the FP32 graph and the dialect's graph compute under one name is
compared on real eyes, as a signal-to-noise ratio in dB: 10 log10 of the sum of squares of the FP32
tensor over that of the difference. Two figures a tensor:

- **own**: the dialect's layer is fed the FP32 graph's values, so that its error is its own. This is
  what the ranking goes by, and what raising the layer's precision would win back.
- **accumulated**: the dialect runs by itself, with all errors from the input on.

FP16 is emulated, see `half_emulation`. Where a quantiser has merged an activation function into the
range of the quantisation behind it, the tensor is compared as that leaves it. Graphs are executed
as they are written, with ONNX Runtime's optimisations off: a fused layer's inner tensors could not
be seen. Memory is bounded by one pair's tensors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, shape_inference
from tqdm import tqdm

from fundus_export.certificate.half_emulation import emulate_half
from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes
from fundus_runtime.backends.protocol import Float32Array, encoder_feeds
from fundus_runtime.labels import EYES

__all__ = ["CEILING_DB", "OVERFLOW_DB", "LayerError", "measure_layer_errors"]

# neither has a number of decibels
CEILING_DB = 200.0  # no error at all
OVERFLOW_DB = -200.0  # infinity or NaN

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_CLAMPS = {"Clip", "Relu"}
_LIMIT_DB = 199.0
_OWN = "own of "  # no exporter's name has blanks

Feeds = Mapping[str, npt.NDArray[Any]]
Pairs = Iterable[tuple[Float32Array, Float32Array]]


@dataclass(frozen=True)
class LayerError:
    """One tensor's error.

    Attributes:
        graph: `encoder` or `head`.
        tensor: its name in the FP32 graph.
        operator: what computes it there.
        own_db: signal-to-noise ratio of this layer alone; `CEILING_DB` where it has no error,
            `OVERFLOW_DB` where it answers infinity or NaN.
        accumulated_db: with the errors of all layers before it.
    """

    graph: str
    tensor: str
    operator: str
    own_db: float
    accumulated_db: float


def measure_layer_errors(
    fp32: GraphBytes, dialect: GraphBytes, pairs: Pairs, *, progress: bool = True
) -> tuple[LayerError, ...]:
    """Rank all layers that both graphs name, the worst by its own error first.

    Args:
        fp32: the reference's graphs.
        dialect: the same model's graphs in another precision, node outputs under the same names.
        pairs: preprocessed left and right eyes 3×S×S each; a few dozen pairs will do.
        progress: show a progress bar on stderr.

    Raises:
        ExportError: there is no pair, or a graph cannot be run.
    """
    encoder = _Comparison("encoder", fp32.encoder, dialect.encoder)
    head = _Comparison("head", fp32.head, dialect.head)
    seen = 0
    for left, right in tqdm(pairs, desc="layer errors", unit="pair", disable=not progress):
        features = [
            encoder.add(encoder_feeds(one[None], [eye]))["features"]
            for eye, one in zip(EYES, (left, right), strict=True)
        ]
        present = np.ones(1, np.float32)
        head.add(
            {
                "features_left": features[0],
                "features_right": features[1],
                "left_present": present,
                "right_present": present,
            }
        )
        seen += 1
    if not seen:
        raise ExportError(
            "layer errors need at least one pair of eyes; give data in which a validation patient "
            "has two gradable photographs"
        )
    return tuple(sorted((*encoder.errors(), *head.errors()), key=lambda one: one.own_db))


class _Comparison:
    """One graph in both precisions, and the squares that were summed so far."""

    def __init__(self, name: str, fp32: bytes, dialect: bytes) -> None:
        self._name = name
        reference = onnx.load_from_string(fp32)
        self._layers = _shared_layers(reference, onnx.load_from_string(dialect))
        lowered = onnx.load_from_string(emulate_half(dialect))
        stand_ins = [layer.stand_in for layer in self._layers]
        self._reference = _Exposed(
            f"fp32 {name}", _showing(reference, [layer.tensor for layer in self._layers])
        )
        self._alone = _Exposed(f"dialect's {name}", _showing(lowered, stand_ins))
        self._fed = _Exposed(f"dialect's {name}", _fed_with(lowered, stand_ins))
        self._squares = np.zeros((len(self._layers), 3))

    def add(self, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        """Sum up the squares of one run; returns the FP32 graph's tensors."""
        truth = self._reference.run(feeds)
        given = {layer.stand_in: truth[layer.tensor] for layer in self._layers}
        own, alone = self._fed.run({**feeds, **given}), self._alone.run(feeds)
        for row, layer in enumerate(self._layers):
            wanted = truth[layer.tensor].astype(np.float64)
            came = own[_OWN + layer.stand_in], alone[layer.stand_in]
            self._squares[row] += [
                _sum_of_squares(x) for x in (wanted, *(c - wanted for c in came))
            ]
        return truth

    def errors(self) -> Iterator[LayerError]:
        """What came out, in the graph's order."""
        for layer, (signal, own, accumulated) in zip(
            self._layers, self._squares.tolist(), strict=True
        ):
            yield LayerError(
                graph=self._name,
                tensor=layer.tensor,
                operator=layer.operator,
                own_db=_decibels(signal, own),
                accumulated_db=_decibels(signal, accumulated),
            )


class _Exposed:
    """A graph that answers its inner tensors."""

    def __init__(self, what: str, model: onnx.ModelProto) -> None:
        import onnxruntime

        self._what = what
        self._outputs = [value.name for value in model.graph.output]
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the engine's exceptions share no public base
            raise ExportError(
                f"the {what} graph with all its tensors shown cannot be loaded: {error}"
            ) from error
        self._inputs = {value.name for value in self._session.get_inputs()}

    def run(self, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        try:
            values = self._session.run(
                self._outputs, {name: feeds[name] for name in feeds if name in self._inputs}
            )
        except Exception as error:  # the engine's exceptions share no public base
            raise ExportError(f"ONNX Runtime failed in the {self._what} graph: {error}") from error
        return dict(zip(self._outputs, values, strict=True))


class _Layer(NamedTuple):
    """A tensor of the FP32 graph, what computes it, and what stands for it in the dialect."""

    tensor: str
    operator: str
    stand_in: str


def _shared_layers(reference: onnx.ModelProto, dialect: onnx.ModelProto) -> list[_Layer]:
    ours, theirs = _floating(reference), _floating(dialect)
    operators = _operators(dialect)
    layers = []
    for tensor, operator in _operators(reference).items():
        if tensor not in ours or tensor not in theirs:
            continue
        merged = operator in _CLAMPS and operators[tensor] not in _CLAMPS
        stand_in = _dequantised(dialect, tensor) if merged else tensor
        layers.append(_Layer(tensor, operator, stand_in))
    return layers


def _dequantised(model: onnx.ModelProto, tensor: str) -> str:
    """The tensor after its quantisation and back, or itself where it is not quantised."""
    for wanted in ("QuantizeLinear", "DequantizeLinear"):
        readers = [node for node in model.graph.node if tensor in node.input]
        if not readers or any(node.op_type != wanted for node in readers):
            return tensor
        tensor = readers[0].output[0]
    return tensor


def _operators(model: onnx.ModelProto) -> dict[str, str]:
    """What computes each tensor, in the graph's order."""
    return {output: node.op_type for node in model.graph.node for output in node.output}


def _floating(model: onnx.ModelProto) -> frozenset[str]:
    """All floating tensors that nodes compute."""
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output)
    floats = {one.name for one in values if one.type.tensor_type.elem_type in _FLOATS}
    return frozenset(floats & set(_operators(model)))


def _showing(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The graph with these FP32 tensors as its outputs."""
    shown = copy.deepcopy(model)
    del shown.graph.output[:]
    shown.graph.output.extend(_values(tensors))
    return shown


def _fed_with(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The graph cut at these tensors: what nodes compute is an output, what they read an input."""
    cut, given = copy.deepcopy(model), frozenset(tensors)
    for node in cut.graph.node:
        for place, name in enumerate(node.output):
            if name in given:
                node.output[place] = _OWN + name
    del cut.graph.output[:]
    del cut.graph.value_info[:]
    cut.graph.input.extend(_values(tensors))
    cut.graph.output.extend(_values([_OWN + name for name in tensors]))
    return cut


def _values(tensors: Sequence[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors]


def _sum_of_squares(values: npt.NDArray[Any]) -> float:
    return float(np.sum(values.astype(np.float64) ** 2))


def _decibels(signal: float, noise: float) -> float:
    """Signal over noise; 0 where there is no signal to lose."""
    if noise == 0.0:
        return CEILING_DB
    if not math.isfinite(noise):
        return OVERFLOW_DB
    if signal == 0.0:
        return 0.0
    return max(-_LIMIT_DB, min(_LIMIT_DB, 10.0 * math.log10(signal / noise)))
