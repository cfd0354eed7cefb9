"""Versions of libraries whose packages bear several names."""

from __future__ import annotations

__all__ = ["onnxruntime_version"]


def onnxruntime_version() -> str:
    """ONNX Runtime's, by the module: its package is called otherwise where it has GPUs."""
    import onnxruntime

    return str(onnxruntime.__version__)
