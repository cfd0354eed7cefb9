"""What an inference engine offers: encode eyes, then fuse what was encoded.

All arrays are float32, C-contiguous and batched along the first axis N. S is the input's side, K
the number of classes; C, h and w belong to the model. A backend answers finite numbers or raises.

An encoder graph has the input `image`, and `is_left` beside it where the model treats the eyes
differently: 1 for a left eye's row, 0 for a right one's. It has the output `features`, and
`eye_logits` beside it where the model says something of each eye alone; `eye_maps` are what these
logits are the mean of, cell by cell, where the graph still tells. Which of these a graph has, a
backend finds out from the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.errors import EngineError
from fundus_runtime.labels import EYES, Eye

__all__ = [
    "ENCODER_INPUTS",
    "ENCODER_OUTPUTS",
    "HEAD_INPUTS",
    "HEAD_OUTPUTS",
    "Backend",
    "EncodedEyes",
    "Float32Array",
    "encoded_eyes",
    "encoder_feeds",
    "named_as",
    "require_images",
    "require_logits",
]

Float32Array = NDArray[np.float32]

# What an encoder may have, one of these each.
ENCODER_INPUTS = (("image",), ("image", "is_left"))
ENCODER_OUTPUTS = (
    ("features", "eye_logits", "eye_maps"),
    ("features", "eye_logits"),
    ("features",),
)
HEAD_INPUTS = ("features_left", "features_right", "left_present", "right_present")
HEAD_OUTPUTS = ("logits",)


class EncodedEyes(NamedTuple):
    """What the encoder made of N eyes.

    Attributes:
        features: (N, C, h, w), the head's input.
        logits: (N, K), uncalibrated, of each eye alone; None where the model has none.
        maps: (N, K, h, w), each cell's share: their mean over the grid is `logits`. None where the
            graph has none.
    """

    features: Float32Array
    logits: Float32Array | None
    maps: Float32Array | None = None


class Backend(Protocol):
    """An engine that holds one model's encoder and head; safe to use from several threads.

    A thread that calls it may be kept on one CPU, and threads that it starts then inherit that:
    start those of the engine when it is opened.
    """

    @property
    def name(self) -> str:
        """The backend's name, as `Screener.open` takes it."""

    @property
    def provider(self) -> str:
        """What really executes the graphs, as the engine reports it."""

    @property
    def threads(self) -> int:
        """Threads that one call uses."""

    def encode(self, images: Float32Array, eyes: Sequence[Eye]) -> EncodedEyes:
        """Encode preprocessed eyes.

        Args:
            images: (N, 3, S, S).
            eyes: which eye each row shows.

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


def require_images(images: Float32Array, size: int) -> None:
    """Check what an encoder is given.

    Raises:
        EngineError: the images are not float32 (N, 3, size, size).
    """
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (3, size, size):
        raise EngineError(
            f"the encoder got {images.dtype} images of shape {images.shape}, "
            f"expected float32 (N, 3, {size}, {size})"
        )


def require_logits(graph: str, logits: Float32Array, count: int, class_count: int) -> None:
    """Check what a graph answers.

    Raises:
        EngineError: the logits are not (count, class_count).
    """
    if logits.shape != (count, class_count):
        raise EngineError(
            f"the {graph} answered logits of shape {logits.shape}, "
            f"expected ({count}, {class_count})"
        )


def encoded_eyes(answers: Mapping[str, Float32Array], count: int, class_count: int) -> EncodedEyes:
    """What an encoder answered, by the names of its outputs, checked.

    Args:
        answers: `features`, and what else the graph has of `ENCODER_OUTPUTS`.
        count: N, the eyes that were given.
        class_count: K.

    Raises:
        EngineError: an answer is not of the shape that `EncodedEyes` says.
    """
    features, logits = answers["features"], answers.get("eye_logits")
    maps = answers.get("eye_maps")
    if features.ndim != 4 or len(features) != count:
        raise EngineError(
            f"the encoder answered features of shape {features.shape}, expected ({count}, C, h, w)"
        )
    if logits is not None:
        require_logits("encoder", logits, count, class_count)
    expected = (count, class_count, *features.shape[2:])
    if maps is not None and maps.shape != expected:
        raise EngineError(f"the encoder answered maps of shape {maps.shape}, expected {expected}")
    return EncodedEyes(features, logits, maps)


def encoder_feeds(images: Float32Array, eyes: Sequence[Eye]) -> dict[str, Float32Array]:
    """All that an encoder may ask for, by the names of its inputs.

    Raises:
        EngineError: `eyes` does not name an eye for every image.
    """
    if len(eyes) != len(images) or not set(eyes) <= set(EYES):
        raise EngineError(
            f"the encoder got {len(images)} images of the eyes {list(eyes)}; name 'left' or "
            "'right' for each"
        )
    return {"image": images, "is_left": np.array([eye == "left" for eye in eyes], np.float32)}


def named_as(names: Collection[str], forms: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The one of `forms` that has just these names, in its own order; None where none has."""
    return next((form for form in forms if sorted(form) == sorted(names)), None)
