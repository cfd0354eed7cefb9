"""What an inference engine offers: encode eyes, then fuse what was encoded.

All arrays are float32, C-contiguous and batched along the first axis N. S is the input's side, K
the number of classes; C, h and w belong to the model. A backend answers finite numbers or raises.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ENCODER_INPUTS",
    "ENCODER_OUTPUTS",
    "HEAD_INPUTS",
    "HEAD_OUTPUTS",
    "Backend",
    "EncodedEyes",
    "Float32Array",
]

Float32Array = NDArray[np.float32]

ENCODER_INPUTS = ("image",)
ENCODER_OUTPUTS = ("features", "eye_logits")
HEAD_INPUTS = ("features_left", "features_right", "left_present", "right_present")
HEAD_OUTPUTS = ("logits",)


class EncodedEyes(NamedTuple):
    """What the encoder made of N eyes.

    Attributes:
        features: (N, C, h, w), the head's input.
        logits: (N, K), uncalibrated, of each eye alone.
    """

    features: Float32Array
    logits: Float32Array


class Backend(Protocol):
    """An engine that holds one model's encoder and head; safe to use from several threads."""

    @property
    def name(self) -> str:
        """The backend's name, as `Screener.open` takes it."""

    @property
    def provider(self) -> str:
        """What really executes the graphs, as the engine reports it."""

    @property
    def threads(self) -> int:
        """Threads that one call uses."""

    def encode(self, images: Float32Array) -> EncodedEyes:
        """Encode preprocessed eyes (N, 3, S, S).

        Raises:
            EngineError: the engine failed or answered numbers that are not finite.
        """

    def fuse(
        self,
        features_left: Float32Array,
        features_right: Float32Array,
        left_present: Float32Array,
        right_present: Float32Array,
    ) -> Float32Array:
        """Fuse both eyes of N patients into logits (N, K), uncalibrated.

        Args:
            features_left: (N, C, h, w); zeros where the eye is absent.
            features_right: (N, C, h, w); zeros where the eye is absent.
            left_present: (N,), 1 or 0.
            right_present: (N,), 1 or 0.

        Raises:
            EngineError: the engine failed or answered numbers that are not finite.
        """

    def close(self) -> None:
        """Free the engine; further calls raise `EngineError`. Closing twice is allowed."""
