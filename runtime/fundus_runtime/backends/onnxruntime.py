"""ONNX Runtime on the CPU.

The graphs come as bytes that the bundle has verified. The CPU provider is asked for by name and
read back: an engine that runs elsewhere than it says is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fundus_runtime.backends.protocol import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    HEAD_INPUTS,
    HEAD_OUTPUTS,
    EncodedEyes,
    Float32Array,
    encoded_eyes,
    encoder_feeds,
    named_as,
    require_images,
    require_logits,
)
from fundus_runtime.errors import EngineError, EngineMissingError
from fundus_runtime.labels import Eye

__all__ = ["OnnxRuntimeBackend", "default_threads"]

Names = tuple[str, ...]

_PROVIDER = "CPUExecutionProvider"
_MAX_DEFAULT_THREADS = 4
_SHOW_ERRORS_ONLY = 3
# It rounds weights and biases that the graph keeps in floating point to integers, unasked, and FP16
# ones to wrong values: what runs would not be what was certified.
_CHANGES_THE_MODEL = ["WeightBiasQuantization"]


class OnnxRuntimeBackend:
    """Runs encoder and head with ONNX Runtime's CPU provider.

    Args:
        encoder: the encoder graph's bytes.
        head: the head graph's bytes.
        size: side S of the input in pixels.
        class_count: K.
        threads: threads within one operator; None for `default_threads()`.

    Raises:
        EngineMissingError: ONNX Runtime is not installed.
        EngineError: a graph cannot be loaded, runs on another provider, or has other inputs and
            outputs than the protocol's.
    """

    name = "onnxruntime"

    def __init__(
        self,
        encoder: bytes,
        head: bytes,
        *,
        size: int,
        class_count: int,
        threads: int | None = None,
    ) -> None:
        self._threads = default_threads() if threads is None else threads
        if self._threads < 1:
            raise EngineError(f"threads must be at least 1, got {threads}")
        self._size = size
        self._class_count = class_count
        self._encoder: Any = _session("encoder", encoder, self._threads)
        self._head: Any = _session("head", head, self._threads)
        self._inputs, self._outputs = _require_graph(
            "encoder", self._encoder, ENCODER_INPUTS, ENCODER_OUTPUTS
        )
        _require_graph("head", self._head, (HEAD_INPUTS,), (HEAD_OUTPUTS,))
        self._require_shapes()

    @property
    def provider(self) -> str:
        """The provider that ONNX Runtime reports."""
        return _PROVIDER

    @property
    def threads(self) -> int:
        """Threads within one operator."""
        return self._threads

    def encode(self, images: Float32Array, eyes: Sequence[Eye]) -> EncodedEyes:
        """Encode preprocessed eyes (N, 3, S, S); see `Backend.encode`."""
        require_images(images, self._size)
        feeds = encoder_feeds(images, eyes)
        asked = {name: feeds[name] for name in self._inputs}
        values = _run("encoder", self._encoder, self._outputs, asked)
        came = dict(zip(self._outputs, values, strict=True))
        return encoded_eyes(came, len(images), self._class_count)

    def fuse(
        self,
        features_left: Float32Array,
        features_right: Float32Array,
        left_present: Float32Array,
        right_present: Float32Array,
    ) -> Float32Array:
        """Fuse both eyes of N patients into logits (N, K); see `Backend.fuse`."""
        values = (features_left, features_right, left_present, right_present)
        feeds = dict(zip(HEAD_INPUTS, values, strict=True))
        (logits,) = _run("head", self._head, HEAD_OUTPUTS, feeds)
        require_logits("head", logits, len(features_left), self._class_count)
        return logits

    def close(self) -> None:
        """Free both sessions."""
        self._encoder = self._head = None

    def _require_shapes(self) -> None:
        size, classes = self._size, self._class_count
        image, *is_left = _in_order(self._encoder.get_inputs(), self._inputs)
        _require_shape("encoder", image, (None, 3, size, size))
        features, *of_eyes = _in_order(self._encoder.get_outputs(), self._outputs)
        _require_shape("encoder", features, (None, None, None, None))
        for node in is_left:
            _require_shape("encoder", node, (None,))
        # eye_logits, then eye_maps; a graph may leave the grid's size open
        for node, grid in zip(of_eyes, ((), (None, None)), strict=False):
            _require_shape("encoder", node, (None, classes, *grid))
        left, right, *present = _in_order(self._head.get_inputs(), HEAD_INPUTS)
        for side in (left, right):
            _require_shape("head", side, (None, *features.shape[1:]))
        for flag in present:
            _require_shape("head", flag, (None,))
        _require_shape("head", self._head.get_outputs()[0], (None, classes))


def default_threads() -> int:
    """Physical cores that this process may use, at most 4.

    Two threads on one core share its arithmetic units and slow each other down, and the layers of
    an edge model are too small to feed more than about four.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    cores = {_siblings(cpu) for cpu in allowed}
    count = len(cores) or os.cpu_count() or 1
    return max(1, min(count, _MAX_DEFAULT_THREADS))


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _session(graph: str, data: bytes, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineMissingError(
            "ONNX Runtime is not installed, and no other engine was asked for; install it: "
            'pip install "fundus-edge[cpu]"'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SHOW_ERRORS_ONLY
    # Threads spin between the operators of one run, since waking them costs more than a small
    # operator; when it returns they sleep, so that the next photograph has the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(
            data, options, providers=[_PROVIDER], disabled_optimizers=_CHANGES_THE_MODEL
        )
    except Exception as error:  # the engine's exceptions share no public base
        raise EngineError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the {graph} graph: {error}"
        ) from error
    if session.get_providers() != [_PROVIDER]:
        raise EngineError(
            f"the {graph} runs on {session.get_providers()}, but {_PROVIDER} alone was asked for; "
            'reinstall the engine: pip install "fundus-edge[cpu]"'
        )
    return session


def _run(
    graph: str, session: Any, outputs: Sequence[str], feeds: Mapping[str, Float32Array]
) -> list[Float32Array]:
    if session is None:
        raise EngineError("the engine is closed; open the screener again")
    try:
        values: list[Float32Array] = session.run(list(outputs), dict(feeds))
    except Exception as error:  # the engine's exceptions share no public base
        raise EngineError(f"ONNX Runtime failed in the {graph} graph: {error}") from error
    for name, value in zip(outputs, values, strict=True):
        if not np.isfinite(value).all():
            raise EngineError(
                f"the {graph} answered NaN or infinity in {name!r}; no result can be given: "
                "check the bundle with fundus-screen doctor and the device's memory"
            )
    return values


def _in_order(nodes: Sequence[Any], names: Sequence[str]) -> list[Any]:
    by_name = {node.name: node for node in nodes}
    return [by_name[name] for name in names]


def _require_graph(
    graph: str, session: Any, inputs: Sequence[Names], outputs: Sequence[Names]
) -> tuple[Names, Names]:
    """Which of these inputs and outputs the graph has."""
    return (
        _require_names(graph, "inputs", session.get_inputs(), inputs),
        _require_names(graph, "outputs", session.get_outputs(), outputs),
    )


def _require_names(graph: str, kind: str, nodes: Sequence[Any], forms: Sequence[Names]) -> Names:
    came = [node.name for node in nodes]
    form = named_as(came, forms)
    if form is None:
        raise EngineError(
            f"the {graph} graph has the {kind} {came}, expected "
            f"{' or '.join(str(list(form)) for form in forms)}; export the bundle again"
        )
    for node in nodes:
        if node.type != "tensor(float)":
            raise EngineError(
                f"the {graph} graph's {node.name!r} is {node.type}, expected tensor(float)"
            )
    return form


def _require_shape(graph: str, node: Any, expected: tuple[object, ...]) -> None:
    """Compare a node's shape with the expected one; names and None fit every size."""
    came = list(node.shape)
    fits = len(came) == len(expected) and all(
        not isinstance(size, int) or not isinstance(wanted, int) or size == wanted
        for size, wanted in zip(came, expected, strict=True)
    )
    # a batch written into the graph as a number would fail on the other exams
    if not fits or isinstance(came[0], int):
        words = ["N", *("any" if not isinstance(size, int) else size for size in expected[1:])]
        raise EngineError(
            f"the {graph} graph's {node.name!r} has the shape {came}, expected "
            f"{words} with a dynamic first axis; export the bundle again"
        )
