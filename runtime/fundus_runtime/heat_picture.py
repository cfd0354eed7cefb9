"""A heat map as a picture to lay over a photograph: uint8, height x width x 4, RGBA.

Clear where nothing speaks for the class, over yellow to red where much does. The scale is fixed, so
that two pictures compare and an eye without findings stays nearly clear.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["heat_picture"]

# Evidence in logits, and red, green, blue, opacity there. In eyes without the class one cell in
# twenty is above 3 to 8, in eyes with it the strongest reach 25.
_STOPS = (0.0, 8.0, 24.0)
_COLOURS = ((255, 235, 60, 0), (255, 235, 60, 115), (225, 30, 20, 165))


def heat_picture(evidence: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw one map.

    Args:
        evidence: calibrated logits (height, width), one a pixel.
    """
    channels = [np.interp(evidence, _STOPS, values) for values in zip(*_COLOURS, strict=True)]
    return np.rint(np.stack(channels, axis=2)).astype(np.uint8)
