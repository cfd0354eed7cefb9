"""Runs one ONNX graph on ONNX Runtime's CPU provider, and lets any of its tensors be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime

from fundus_export.errors import ExportError
from fundus_runtime.backends.onnxruntime import default_threads

__all__ = ["CpuGraph"]

_PROVIDER = "CPUExecutionProvider"
_SHOW_ERRORS_ONLY = 3


class CpuGraph:
    """A loaded graph.

    With `tensors`, these become its outputs and the graph is executed node by node as it is
    written. An optimiser merges nodes between outputs and folds factors into weights, so that a
    tensor's last digits would depend on what else is asked for. Where most tensors are outputs it
    has little to merge, and leaving it out costs no time.

    Args:
        graph: a serialised ONNX model.
        name: what to call it in errors.
        tensors: what `run` answers, inputs of the graph included, in the order of computation;
            None for the graph's outputs.

    Raises:
        ExportError: the engine cannot load the graph, or a tensor is not there, is a weight, or
            holds no float32.
    """

    def __init__(self, graph: bytes, name: str, *, tensors: Sequence[str] | None = None) -> None:
        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = default_threads()
        options.log_severity_level = _SHOW_ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if tensors is not None:
            graph, tensors = _with_outputs(graph, name, tensors)
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        try:
            self._session: Any = onnxruntime.InferenceSession(graph, options, providers=[_PROVIDER])
        except Exception as error:  # the engine's exceptions share no public base
            raise ExportError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {name}: {error}"
            ) from error
        self._inputs = {node.name: node.type for node in self._session.get_inputs()}
        found = {node.name: node.type for node in self._session.get_outputs()}
        self._tensors = tuple(found) if tensors is None else tuple(tensors)
        self._computed = [tensor for tensor in self._tensors if tensor not in self._inputs]
        if tensors is not None:
            self._require_float({**found, **self._inputs})

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the graph's inputs."""
        return tuple(self._inputs)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Execute the graph once.

        Returns:
            The tensors by name; they may be views of the engine's memory and of `feeds`.

        Raises:
            ExportError: the engine failed.
        """
        try:
            computed = self._session.run(self._computed, dict(feeds)) if self._computed else []
        except Exception as error:  # the engine's exceptions share no public base
            raise ExportError(f"ONNX Runtime failed in {self.name}: {error}") from error
        values = dict(zip(self._computed, computed, strict=True))
        return {t: values[t] if t in values else feeds[t] for t in self._tensors}

    def _require_float(self, types: Mapping[str, str]) -> None:
        for tensor in self._tensors:
            if types[tensor] != "tensor(float)":
                raise ExportError(
                    f"{tensor!r} of {self.name} is {types[tensor]}, but only float32 tensors have "
                    "a range to measure; leave it out"
                )


def _with_outputs(graph: bytes, name: str, tensors: Sequence[str]) -> tuple[bytes, list[str]]:
    """The same graph with these tensors as its outputs, and the tensors in order of computation."""
    model = onnx.load_from_string(graph)
    inputs = [value.name for value in model.graph.input]
    computed = [output for node in model.graph.node for output in node.output if output]
    weights = {tensor.name for tensor in model.graph.initializer}
    known = {*inputs, *computed}
    for tensor in tensors:
        if tensor in weights:
            raise ExportError(f"{tensor!r} of {name} is a weight; its range needs no photographs")
        if tensor not in known:
            raise ExportError(f"{name} has no tensor {tensor!r}; is it another graph?")
    declared = {value.name: value for value in model.graph.output}
    wanted = [tensor for tensor in computed if tensor in set(tensors)]
    # an engine wants an output, even where the inputs alone are asked for
    kept = [declared.get(tensor) or onnx.ValueInfoProto(name=tensor) for tensor in wanted]
    outputs = [value.SerializeToString() for value in kept or model.graph.output[:1]]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto.FromString(value) for value in outputs)
    return bytes(model.SerializeToString()), [t for t in (*inputs, *computed) if t in set(tensors)]
