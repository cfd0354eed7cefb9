"""ONNX Runtime on the CPU, or on an NVIDIA GPU through its CUDA or TensorRT provider.

The graphs come as bytes that the bundle has verified. The provider is asked for by name and read
back: an engine that runs elsewhere than it says is refused. On a GPU inputs and outputs are bound
to device memory, and one caller is served at a time. With CPUs of its own a thread of its own
computes on the first while the caller waits, unless the caller is kept there itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np

from fundus_runtime.backends.graph_interface import Names, require_interface
from fundus_runtime.backends.io_binding import BoundSession
from fundus_runtime.backends.onnxruntime_session import PROVIDER_NAMES, open_session
from fundus_runtime.backends.protocol import (
    HEAD_INPUTS,
    HEAD_OUTPUTS,
    EncodedEyes,
    Float32Array,
    encoded_eyes,
    encoder_feeds,
    require_images,
    require_logits,
)
from fundus_runtime.backends.settings import EngineSettings, Provider, default_threads
from fundus_runtime.errors import EngineError, UsageError
from fundus_runtime.labels import Eye
from fundus_runtime.own_thread import OwnThread

__all__ = ["OnnxRuntimeBackend", "default_threads"]

Run = Callable[[Mapping[str, Float32Array]], list[Float32Array]]

# TensorRT's provider builds again, for minutes, when a batch is larger than any before.
_LARGEST_BATCH = {"encoder": 2, "head": 1}


class OnnxRuntimeBackend:
    """Runs encoder and head with ONNX Runtime.

    Args:
        encoder: the encoder graph's bytes.
        head: the head graph's bytes.
        size: side S of the input in pixels.
        class_count: K.
        threads: threads within one operator; short for `EngineSettings(threads=...)`.
        provider: where both graphs run.
        settings: of the engine; None for the defaults.

    Raises:
        EngineMissingError: ONNX Runtime, or its build with the provider, is not installed.
        EngineError: a graph cannot be loaded, runs on another provider, or has other inputs and
            outputs than the protocol's.
        UsageError: a setting is out of its range, or `threads` comes beside `settings`.
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
        provider: Provider = "cpu",
        settings: EngineSettings | None = None,
    ) -> None:
        if settings is None:
            settings = EngineSettings(threads=threads)
        elif threads is not None:
            raise UsageError(f"threads is {threads} beside settings; say it there")
        self._size = size
        self._class_count = class_count
        self._provider = provider
        self._threads = settings.thread_count if provider == "cpu" else 1
        self._own = None
        if provider == "cpu" and self._threads > 1:
            settings = settings.with_own_cpus()
            if settings.affinity:
                self._own = OwnThread("fundus-engine", settings.pin_calling_thread)
        sessions = _open_both({"encoder": encoder, "head": head}, provider, settings)
        self._inputs, self._outputs = require_interface(
            sessions["encoder"], sessions["head"], size=size, class_count=class_count
        )
        self._runs = {
            "encoder": _run_of(sessions["encoder"], self._outputs, provider, settings, self._own),
            "head": _run_of(sessions["head"], HEAD_OUTPUTS, provider, settings, self._own),
        }

    @property
    def provider(self) -> str:
        """The provider that ONNX Runtime reports."""
        return PROVIDER_NAMES[self._provider]

    @property
    def threads(self) -> int:
        """Threads within one operator; one where the work is a GPU's."""
        return self._threads

    def encode(self, images: Float32Array, eyes: Sequence[Eye]) -> EncodedEyes:
        """Encode preprocessed eyes (N, 3, S, S); see `Backend.encode`."""
        require_images(images, self._size)
        feeds = encoder_feeds(images, eyes)
        values = self._run("encoder", {name: feeds[name] for name in self._inputs}, self._outputs)
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
        (logits,) = self._run("head", dict(zip(HEAD_INPUTS, values, strict=True)), HEAD_OUTPUTS)
        require_logits("head", logits, len(features_left), self._class_count)
        return logits

    def close(self) -> None:
        """Free both sessions."""
        self._runs = {}
        if self._own is not None:
            self._own.close()

    def _run(
        self, graph: str, feeds: Mapping[str, Float32Array], outputs: Sequence[str]
    ) -> list[Float32Array]:
        run = self._runs.get(graph)
        if run is None:
            raise EngineError("the engine is closed; open the screener again")
        parts = _parts(feeds, _LARGEST_BATCH[graph]) if self._provider == "tensorrt" else [feeds]
        try:
            answers = [run(part) for part in parts]
        except Exception as error:  # the engine's exceptions share no public base
            raise EngineError(f"ONNX Runtime failed in the {graph} graph: {error}") from error
        values = answers[0]
        if len(answers) > 1:
            values = [np.concatenate(part) for part in zip(*answers, strict=True)]
        for name, value in zip(outputs, values, strict=True):
            if not np.isfinite(value).all():
                raise EngineError(
                    f"the {graph} answered NaN or infinity in {name!r}; no result can be given: "
                    "check the bundle with fundus-screen doctor and the device's memory"
                )
        return values


def _open_both(
    graphs: Mapping[str, bytes], provider: Provider, settings: EngineSettings
) -> dict[str, Any]:
    """Sessions by graph; loading mostly optimises on one thread, so that a CPU loads both at once.

    A GPU's libraries are loaded by the first, and printed about, one at a time.
    """
    together = provider == "cpu" and settings.thread_count > 1
    with ThreadPoolExecutor(len(graphs) if together else 1) as pool:
        opening = {
            graph: pool.submit(open_session, graph, data, provider, settings)
            for graph, data in graphs.items()
        }
        return {graph: session.result() for graph, session in opening.items()}


def _run_of(
    session: Any,
    outputs: Names,
    provider: Provider,
    settings: EngineSettings,
    own: OwnThread | None,
) -> Run:
    """How a session is run; a GPU's bindings serve one caller at a time."""

    def compute(feeds: Mapping[str, Float32Array]) -> list[Float32Array]:
        values: list[Float32Array] = session.run(list(outputs), dict(feeds))
        return values

    if provider == "cpu":
        return compute if own is None else _on_own_cpu(own, settings, compute)
    bound, lock = BoundSession(session, outputs, device="cuda", index=settings.device), Lock()

    def run(feeds: Mapping[str, Float32Array]) -> list[Float32Array]:
        with lock:
            return bound.run(feeds)

    return run


def _on_own_cpu(own: OwnThread, settings: EngineSettings, compute: Run) -> Run:
    """The same on the first CPU of `settings`: on the calling thread, where that is kept there."""

    def run(feeds: Mapping[str, Float32Array]) -> list[Float32Array]:
        if settings.keeps_calling_thread():
            return compute(feeds)
        return own.run(lambda: compute(feeds))

    return run


def _parts(feeds: Mapping[str, Float32Array], largest: int) -> list[dict[str, Float32Array]]:
    count = len(next(iter(feeds.values())))
    return [
        {name: value[start : start + largest] for name, value in feeds.items()}
        for start in range(0, max(count, 1), largest)
    ]
