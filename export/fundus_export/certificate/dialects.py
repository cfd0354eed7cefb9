"""Certifies a bundle's dialects one after the other, on ONNX Runtime's CPU provider.

`int8-trt` and `fp16` are meant for other engines. They run here as they are written, FP16 emulated,
slowly, because nothing is fused; the certificate says what executed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fundus_export.certificate.certificate import Certificate, Subject
from fundus_export.certificate.certify import certify_backend
from fundus_export.certificate.evidence import (
    CHECKPOINT_NAME,
    Evidence,
    calibration_photographs,
    gather_evidence,
    load_bundle_checkpoint,
)
from fundus_export.certificate.half_emulation import emulate_half, has_half
from fundus_export.certificate.layer_errors import LayerError, measure_layer_errors
from fundus_export.certificate.limits import CertificateLimits
from fundus_export.dialect_check import model_from_bytes
from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.library_versions import onnxruntime_version
from fundus_runtime import _native
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.manifest import GraphPair
from fundus_training.checkpoint import Checkpoint, build_model

__all__ = ["certify_dialects", "onnxruntime_in_words", "open_on_cpu", "subject_of"]

_REFERENCE = "fp32"


def certify_dialects(
    bundle: Bundle,
    checkpoint_file: Path,
    data: Path,
    *,
    dialects: Sequence[str] = (),
    split: str = "val",
    limits: CertificateLimits | None = None,
    cache_dir: Path | None = None,
    seed: int = 0,
    resamples: int = 0,
    layer_pairs: int = 0,
    progress: bool = True,
) -> dict[str, Certificate]:
    """A certificate for each of these dialects, all of the bundle's by default.

    Args:
        bundle: whose graphs are judged.
        checkpoint_file: that it was exported from.
        data: the data set that the checkpoint was trained on.
        dialects: names of the bundle's graphs.
        split: part of the checkpoint's own split.
        limits: by default those of `CertificateLimits`.
        cache_dir: where prepared photographs are kept.
        seed: of the halves and the resamples.
        resamples: for the interval of the challenge score's difference.
        layer_pairs: how many pairs to rank the layers' errors on; 0 for no ranking.
        progress: show progress bars on stderr.

    Raises:
        FundusError: the bundle has no such dialect, something does not belong together, or
            patients are refused.
    """
    names = _chosen(bundle, dialects)
    _require_models(bundle, names)
    checkpoint = load_bundle_checkpoint(bundle, checkpoint_file)
    evidence = gather_evidence(
        checkpoint,
        data,
        split=split,
        calibrated_on=calibration_photographs(bundle, names),
        cache_dir=cache_dir,
        progress=progress,
    )
    certificates = {}
    for name in names:
        graphs = bundle.manifest.graphs[name]
        # the backend refuses graphs that are not ours, before anything is measured on them
        backend, provider = open_on_cpu(
            *bundle.graph_bytes(graphs),
            size=checkpoint.spec.size,
            class_count=len(checkpoint.classes),
        )
        try:
            certificates[name] = certify_backend(
                backend,
                evidence,
                subject_of(bundle, graphs, provider=provider, engine=onnxruntime_in_words()),
                limits=limits,
                seed=seed,
                layer_errors=_layer_errors(
                    bundle, graphs, checkpoint, evidence, layer_pairs, progress
                ),
                resamples=resamples,
                progress=progress,
            )
        finally:
            backend.close()
    return certificates


def subject_of(bundle: Bundle, graphs: GraphPair, *, provider: str, engine: str) -> Subject:
    """What is certified when these graphs of the bundle run on this engine, on this machine."""
    files = bundle.manifest.files
    return Subject(
        dialect=graphs.dialect,
        provider=provider,
        engine=engine,
        cpu_features=tuple(sorted(name for name, has in _native.cpu_features().items() if has)),
        encoder_sha256=files[graphs.encoder].sha256,
        head_sha256=files[graphs.head].sha256,
        checkpoint_sha256=files[CHECKPOINT_NAME].sha256,
        preprocess_sha256=bundle.manifest.spec.sha256,
    )


def _chosen(bundle: Bundle, dialects: Sequence[str]) -> list[str]:
    there = list(bundle.manifest.graphs)
    unknown = [name for name in dialects if name not in there]
    if unknown:
        raise ExportError(
            f"bundle {bundle.path} has no {', '.join(unknown)}; it has {', '.join(there)}"
        )
    return [name for name in there if not dialects or name in dialects]


def _require_models(bundle: Bundle, names: Sequence[str]) -> None:
    """Refuse files that are no ONNX models, before patients are prepared for many minutes."""
    for name in names:
        pair = bundle.manifest.graphs[name]
        files = (pair.encoder, pair.head)
        for file, data in zip(files, bundle.graph_bytes(pair), strict=True):
            model_from_bytes(data, f"{file} of {bundle.path}")


def onnxruntime_in_words() -> str:
    """ONNX Runtime and its version."""
    return f"onnxruntime {onnxruntime_version()}"


def open_on_cpu(
    encoder: bytes, head: bytes, *, size: int, class_count: int
) -> tuple[OnnxRuntimeBackend, str]:
    """Graphs of any dialect on the CPU, FP16 computed as FP16, and what executes them in words."""
    backend = OnnxRuntimeBackend(
        emulate_half(encoder), emulate_half(head), size=size, class_count=class_count
    )
    emulated = ", FP16 emulated" if has_half(encoder) or has_half(head) else ""
    return backend, f"{backend.provider}{emulated}"


def _layer_errors(
    bundle: Bundle,
    graphs: GraphPair,
    checkpoint: Checkpoint,
    evidence: Evidence,
    pairs: int,
    progress: bool,
) -> tuple[LayerError, ...]:
    if graphs.precision == _REFERENCE or not pairs:
        return ()
    return measure_layer_errors(
        _reference_graphs(bundle, checkpoint),
        GraphBytes(*bundle.graph_bytes(graphs), graphs.opset),
        list(evidence.patients.complete_pairs(pairs)),
        progress=progress,
    )


def _reference_graphs(bundle: Bundle, checkpoint: Checkpoint) -> GraphBytes:
    """The bundle's own FP32 graphs, or the checkpoint's exported anew."""
    own = bundle.manifest.graphs.get(_REFERENCE)
    if own is not None:
        return GraphBytes(*bundle.graph_bytes(own), own.opset)
    return export_graphs(build_model(checkpoint))
