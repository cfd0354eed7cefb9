"""What both ways to the CUDA driver share: constants, versions, and errors in words."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy.typing as npt

from fundus_runtime.errors import EngineError

__all__ = ["COMPUTE_CAPABILITY", "Array", "closed", "library_version", "refused", "version_text"]

Array = npt.NDArray[Any]

# CUdevice_attribute, the same numbers in every CUDA
COMPUTE_CAPABILITY = (75, 76)


def version_text(number: int) -> str:
    """CUDA's version as people write it, `12.6` for 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"


def library_version(distribution: str) -> str:
    """A distribution's name with its version."""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution


def refused(error: Exception) -> EngineError:
    """The error for what the driver would not do."""
    return EngineError(
        f"the CUDA driver refused: {error}; see whether another program holds the GPU or its memory"
    )


def closed() -> EngineError:
    """The error for a GPU that was closed."""
    return EngineError("the GPU is closed; open it again")
