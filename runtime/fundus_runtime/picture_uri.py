"""Pictures as data URIs, so that a page refers to nothing outside itself.

Pictures are uint8, height x width x 3, RGB.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["jpeg_uri", "png_uri"]

_JPEG_QUALITY = 88


def jpeg_uri(picture: NDArray[np.uint8], *, side_px: int) -> str:
    """A photograph, made smaller where a side has more than `side_px` pixels."""
    image = Image.fromarray(picture)
    scale = side_px / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BOX)
    return _uri(image, "jpeg", quality=_JPEG_QUALITY)


def png_uri(picture: NDArray[np.uint8]) -> str:
    """A picture without loss."""
    return _uri(Image.fromarray(picture), "png")


def _uri(image: Image.Image, kind: str, **options: int) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
