"""Opens the engine for a bundle: which form of the model, on what, warmed up, and with what proof.

Nothing is replaced in silence: an engine, provider, plan or precision that is not there is an error
that says how to get it. What the bundle declares for this device may replace the first choice, and
a CUDA graph that cannot be captured may be missing; both are told as a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fundus_runtime.backends.protocol import Backend
from fundus_runtime.backends.settings import PROVIDERS, EngineSettings, Precision, Provider
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import UsageError
from fundus_runtime.graph_choice import GraphChoice, graphs_for_cpu, graphs_for_gpu
from fundus_runtime.labels import EYES
from fundus_runtime.manifest import GraphPair

__all__ = ["BACKENDS", "OpenedEngine", "open_engine"]

BACKENDS = ("onnxruntime", "tensorrt")


@dataclass(frozen=True)
class OpenedEngine:
    """An engine that holds one form of a bundle's model.

    Attributes:
        backend: runs it; whoever opened it closes it.
        graphs: the form of the model, which the plans were built from where there are plans.
        precision: what it computes in; `tf32` where the graphs are FP32 and TF32 is allowed.
        degraded_reason: why it is not what the bundle and the device should give; None where it is.
        plan_sha256: of the TensorRT plans that run, by `encoder` and `head`; None without plans.
    """

    backend: Backend
    graphs: GraphPair
    precision: str
    degraded_reason: str | None = None
    plan_sha256: Mapping[str, str] | None = None


def open_engine(
    bundle: Bundle,
    backend: str = "onnxruntime",
    *,
    provider: Provider = "cpu",
    settings: EngineSettings | None = None,
) -> OpenedEngine:
    """Load a bundle's model and run it, so that the first exam is not slower.

    Args:
        bundle: verified.
        backend: one of `BACKENDS`.
        provider: what ONNX Runtime runs on; `tensorrt` alone knows one device, and takes none.
        settings: of the engine; None for the defaults.

    Raises:
        BundleError: the bundle has no graphs for the device.
        EngineMissingError: a library, the driver or a GPU is missing.
        EngineError: the model cannot be loaded, or does not run where it should.
        PlanError: there are no TensorRT plans for this device; says how to build them.
        UsageError: an unknown backend or provider.
    """
    settings = EngineSettings() if settings is None else settings
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}; there is {', '.join(BACKENDS)}")
    if provider not in PROVIDERS:
        raise UsageError(f"there is no provider {provider!r}; there is {', '.join(PROVIDERS)}")
    if backend == "tensorrt":
        if provider == "cuda":
            raise UsageError("the backend tensorrt takes no provider; cuda is ONNX Runtime's")
        from fundus_runtime.backends.open_plans import open_plans

        plans, opened = open_plans(bundle, settings)
        graphs = bundle.manifest.graphs[plans.key.dialect]
        engine = OpenedEngine(
            opened, graphs, plans.key.precision, opened.degraded_reason, plans.sha256
        )
    else:
        engine = _open_onnxruntime(bundle, provider, settings)
    try:
        runs = settings.warm_up_runs
        if backend == "onnxruntime" and provider == "tensorrt":
            runs = max(runs, 1)  # it builds in its first runs, for which no exam should wait
        _warm_up(engine.backend, bundle.manifest.spec.size, runs)
    except BaseException:
        engine.backend.close()
        raise
    return engine


def _open_onnxruntime(bundle: Bundle, provider: Provider, settings: EngineSettings) -> OpenedEngine:
    from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend

    choice = _choice(bundle, provider, settings.precision)
    opened = OnnxRuntimeBackend(
        *bundle.graph_bytes(choice.graphs),
        size=bundle.manifest.spec.size,
        class_count=len(bundle.manifest.classes),
        provider=provider,
        settings=settings,
    )
    precision = "tf32" if settings.precision == "tf32" else choice.graphs.precision
    return OpenedEngine(opened, choice.graphs, precision, choice.degraded_reason)


def _choice(bundle: Bundle, provider: Provider, precision: Precision | None) -> GraphChoice:
    if provider == "cpu":
        return graphs_for_cpu(bundle.manifest, precision=precision)
    return graphs_for_gpu(bundle.manifest, provider, precision=precision)


def _warm_up(backend: Backend, size: int, runs: int) -> None:
    """Both batches that an exam uses, so that neither is slow, or built, in the first one."""
    flag = np.ones(1, np.float32)
    for _ in range(runs):
        for count in (1, 2):
            encoded = backend.encode(np.zeros((count, 3, size, size), np.float32), EYES[:count])
            features = encoded.features
            backend.fuse(features[:1], features[-1:], flag, flag)
