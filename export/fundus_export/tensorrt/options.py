"""What the person who builds an engine may choose."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fundus_runtime.errors import UsageError

__all__ = ["PRECISIONS", "EngineOptions", "Precision"]

Precision = Literal["fp32", "tf32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_MAX_OPTIMIZATION_LEVEL = 5


@dataclass(frozen=True)
class EngineOptions:
    """How plans are built.

    Attributes:
        precision: what convolutions and matrix products run in. fp32 has TF32 cleared.
        max_batch: the largest batch of encoder and head; the best speed is at one pair.
        workspace_mb: memory that a layer may use while it runs, in MB (10^6 bytes). On Jetson it
            is the machine's own memory.
        timing_cache: file of measured kernels, read and written; None for none.
        optimization_level: 0 (fast to build) to 5 (fast to run); None for TensorRT's own.
        tactic_sources: names of the libraries that kernels may come from; None for TensorRT's
            own choice. `EDGE_MASK_CONVOLUTIONS` and `JIT_CONVOLUTIONS` need neither cuBLAS nor
            cuDNN.
    """

    precision: Precision
    max_batch: int = 2
    workspace_mb: int = 1024
    timing_cache: Path | None = None
    optimization_level: int | None = None
    tactic_sources: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.max_batch < 1 or self.workspace_mb < 1:
            raise UsageError(
                f"max_batch and workspace_mb must be at least 1, got {self.max_batch} and "
                f"{self.workspace_mb}"
            )
        level = self.optimization_level
        if level is not None and not 0 <= level <= _MAX_OPTIMIZATION_LEVEL:
            raise UsageError(
                f"the optimisation level must be 0 to {_MAX_OPTIMIZATION_LEVEL}, got {level}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = asdict(self)
        values["timing_cache"] = None if self.timing_cache is None else str(self.timing_cache)
        values["tactic_sources"] = None if self.tactic_sources is None else [*self.tactic_sources]
        return values
