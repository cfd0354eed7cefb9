"""OpenCV, which the reference preprocessing alone needs, or an error that says what to install."""

from __future__ import annotations

from fundus_runtime.errors import ReferenceMissingError

try:
    import cv2
except ImportError as error:
    raise ReferenceMissingError(
        "the reference preprocessing needs OpenCV, which the runtime does not bring; install it: "
        "pip install opencv-python-headless, or use NativePreprocessor, which needs nothing"
    ) from error

__all__ = ["cv2"]
