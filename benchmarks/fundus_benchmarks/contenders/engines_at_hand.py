"""Every engine that this machine really opens for the forms of a bundle, one after the other.

On the CPU that is every form, as the export's certify runs it: forms for other engines as they are
written, FP16 emulated. On a GPU it is what the runtime itself would run there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from fundus_benchmarks.contenders.engine_kinds import ON_GPU, EngineKind
from fundus_export.certificate.dialects import onnxruntime_in_words, open_on_cpu
from fundus_runtime.backends.open import OpenedEngine, open_engine
from fundus_runtime.backends.protocol import Backend
from fundus_runtime.backends.settings import EngineSettings, Precision
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineMissingError, FundusError
from fundus_runtime.manifest import GraphPair

__all__ = ["EngineAtHand", "Missing", "cpu_engines", "gpu_engines", "unasked_gpu_engines"]

Missing = list[dict[str, str]]


@dataclass(frozen=True)
class EngineAtHand:
    """An open engine that holds one form of a bundle; valid until the next one is asked for.

    Attributes:
        backend: runs it.
        graphs: the form.
        name: of the backend, as the runtime takes it.
        provider: `cpu`, `cuda` or `tensorrt`.
        precision: what it computes in.
        engine: name and version of the library.
        executed_by: what executes the graphs, in words.
    """

    backend: Backend
    graphs: GraphPair
    name: str
    provider: str
    precision: str
    engine: str
    executed_by: str


_PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "tf32", "fp32")


def cpu_engines(bundle: Bundle) -> Iterator[EngineAtHand]:
    """Every form of the bundle on ONNX Runtime's CPU provider.

    Raises:
        EngineError: a graph cannot be loaded.
    """
    for graphs in bundle.manifest.graphs.values():
        backend, words = open_on_cpu(
            *bundle.graph_bytes(graphs),
            size=bundle.manifest.spec.size,
            class_count=len(bundle.manifest.classes),
        )
        with closing(backend):
            yield EngineAtHand(
                *(backend, graphs, "onnxruntime", "cpu", graphs.precision),
                *(_library("onnxruntime"), words),
            )


def gpu_engines(bundle: Bundle, missing: Missing) -> Iterator[EngineAtHand]:
    """Every engine on a GPU that opens, in every precision that it offers for this bundle.

    Args:
        bundle: whose forms run.
        missing: what does not open, and why, is appended.
    """
    for kind in ON_GPU:
        refused: Missing = []
        opened = 0
        for precision in _PRECISIONS:
            what = f"{bundle.manifest.name} on {kind}"
            try:
                engine = _opened(bundle, kind, precision)
            except EngineMissingError as error:
                refused = [{"what": what, "why": str(error)}]
                break
            except FundusError as error:
                refused.append({"what": f"{what}, {precision}", "why": str(error)})
                continue
            opened += 1
            with closing(engine.backend) as backend:
                yield EngineAtHand(
                    *(backend, engine.graphs, kind.backend, kind.shown, engine.precision),
                    *(_library(kind.backend), backend.provider),
                )
        # without any, the first reason says it all
        missing += refused if opened else refused[:1]


def unasked_gpu_engines(bundle: Bundle, why: str) -> Missing:
    """What is missing where engines on a GPU are not asked: each that opens, for this reason alone.

    Args:
        bundle: whose form they would run, each in the precision that it takes by itself.
        why: they are not asked.
    """
    missing = []
    for kind in ON_GPU:
        try:
            engine = open_engine(bundle, kind.backend, provider=kind.provider)
        except FundusError as error:
            reason = str(error)
        else:
            engine.backend.close()
            reason = f"it opens here in {engine.precision}, but was not asked: {why}"
        missing.append({"what": f"{bundle.manifest.name} on {kind}", "why": reason})
    return missing


def _opened(bundle: Bundle, kind: EngineKind, precision: Precision) -> OpenedEngine:
    settings = EngineSettings(precision=precision)
    return open_engine(bundle, kind.backend, provider=kind.provider, settings=settings)


def _library(backend: str) -> str:
    return onnxruntime_in_words() if backend == "onnxruntime" else backend
