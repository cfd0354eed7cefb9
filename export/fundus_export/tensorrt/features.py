"""What the TensorRT at hand can do, found by looking at it; its version is only reported.

TensorRT moved, renamed and dropped much between 8.5 and 11, and vendors ship builds of their own.
So every difference that the builder has to know is a field here, probed on the module itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Features", "probe"]


@dataclass(frozen=True)
class Features:
    """What differs between versions.

    Attributes:
        version: as the module reports it; nothing is decided by it.
        explicit_batch: networks want the explicit-batch flag (8.x); elsewhere it means nothing.
        strong_typing: a network may be strongly typed, so that the graph's types are binding.
        precision_flags: names of the builder's flags for weakly typed networks; none in 11.
        tf32: TF32 can be switched, and is on unless it is cleared.
        layer_precision: layers take a precision each, for weakly typed networks.
        optimization_level: the builder takes a level (8.6 and later).
        progress_monitor: the builder reports progress and can be stopped (10.0 and later).
        parser_names_nodes: the parser's errors name the node (10.0 and later).
        tactic_sources: names of the libraries that kernels may come from.
    """

    version: str
    explicit_batch: bool
    strong_typing: bool
    precision_flags: tuple[str, ...]
    tf32: bool
    layer_precision: bool
    optimization_level: bool
    progress_monitor: bool
    parser_names_nodes: bool
    tactic_sources: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


_PRECISION_FLAGS = ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS")


def probe(trt: Any) -> Features:
    """Look at a TensorRT module."""
    creation = _members(trt, "NetworkDefinitionCreationFlag")
    flags = _members(trt, "BuilderFlag")
    return Features(
        version=str(getattr(trt, "__version__", "unknown")),
        explicit_batch="EXPLICIT_BATCH" in creation,
        strong_typing="STRONGLY_TYPED" in creation,
        precision_flags=tuple(name for name in _PRECISION_FLAGS if name in flags),
        tf32="TF32" in flags,
        layer_precision=_has(trt, "ILayer", "precision"),
        optimization_level=_has(trt, "IBuilderConfig", "builder_optimization_level"),
        progress_monitor=hasattr(trt, "IProgressMonitor")
        and _has(trt, "IBuilderConfig", "progress_monitor"),
        parser_names_nodes=_has(trt, "ParserError", "node_name"),
        tactic_sources=tuple(sorted(_members(trt, "TacticSource"))),
    )


def _members(trt: Any, enum: str) -> frozenset[str]:
    return frozenset(getattr(getattr(trt, enum, None), "__members__", ()))


def _has(trt: Any, kind: str, attribute: str) -> bool:
    return hasattr(getattr(trt, kind, None), attribute)
