"""Screens a pair of retinal photographs on a device, offline.

Importing this package, or any module in it, loads neither torch nor onnx nor an inference engine;
an engine is imported when a backend opens it.
"""

from __future__ import annotations

from fundus_runtime.version import __version__

__all__ = ["__version__"]
