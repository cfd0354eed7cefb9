"""One eye on its way to the engine: decoded, preprocessed, or refused with a reason.

A photograph that cannot be graded becomes a status here, not an error, because the other eye can
still be screened; a file or array that is no photograph stays an error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.backends.protocol import Float32Array
from fundus_runtime.errors import UngradableError
from fundus_runtime.labels import Eye
from fundus_runtime.photograph import DEFAULT_MAX_MEGAPIXELS, read_photograph
from fundus_runtime.preprocess import PreprocessSpec, preprocess
from fundus_runtime.result import EyePicture, EyeStatus

__all__ = ["PreparedEye", "ms_since", "prepare_eye", "prepare_eye_file"]

# Below this much of the disc's bounding box inside the frame, the operator should see the cut.
_CUT_OFF_BELOW_PERMILLE = 750


@dataclass(frozen=True, eq=False)
class PreparedEye:
    """One eye after decoding and preprocessing, ready for the engine.

    Attributes:
        eye: `left` or `right`.
        status: `ok`, `absent` or `ungradable`.
        tensor: float32 (3, S, S), only where `ok`.
        reason: why it cannot be used.
        hint: what the operator should do.
        field_of_view: the disc in pixels of the photograph.
        picture: what the preprocessing made of it.
        decode_ms: time to read and decode the file, where there was one.
        preprocess_ms: time of the preprocessing, where there was a frame.
        warnings: sentences for the operator.
    """

    eye: Eye
    status: EyeStatus
    tensor: Float32Array | None = None
    reason: str | None = None
    hint: str | None = None
    field_of_view: Mapping[str, Any] | None = None
    picture: EyePicture | None = None
    decode_ms: float | None = None
    preprocess_ms: float | None = None
    warnings: tuple[str, ...] = ()


def prepare_eye(
    eye: Eye,
    frame: NDArray[np.uint8] | None,
    spec: PreprocessSpec,
    *,
    decode_ms: float | None = None,
) -> PreparedEye:
    """Preprocess one eye.

    Args:
        eye: which one.
        frame: uint8 RGB (height, width, 3), or None for an absent eye.
        spec: how to preprocess.
        decode_ms: time that reading the file took, to be reported.

    Raises:
        ImageError: the array is not a frame.
    """
    if frame is None:
        hint = f"no photograph of the {eye} eye; take one, or refer the patient"
        return PreparedEye(eye, "absent", reason="absent", hint=hint)
    start = time.perf_counter()
    try:
        done = preprocess(frame, spec)
    except UngradableError as error:
        return PreparedEye(
            eye,
            "ungradable",
            reason=error.reason,
            hint=error.hint,
            decode_ms=decode_ms,
            preprocess_ms=ms_since(start),
        )
    return PreparedEye(
        eye,
        "ok",
        tensor=done.tensor,
        field_of_view=done.field_of_view.to_dict(),
        picture=EyePicture(done.crop, done.mask, spec),
        decode_ms=decode_ms,
        preprocess_ms=ms_since(start),
        warnings=_field_of_view_warnings(eye, done.field_of_view.visible_permille),
    )


def prepare_eye_file(
    eye: Eye,
    path: str | Path | None,
    spec: PreprocessSpec,
    *,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> PreparedEye:
    """Read, decode and preprocess one eye's JPEG or PNG file; None for an absent eye.

    Raises:
        ImageError: the file cannot be used.
    """
    if path is None:
        return prepare_eye(eye, None, spec)
    start = time.perf_counter()
    frame = read_photograph(path, max_megapixels=max_megapixels)
    return prepare_eye(eye, frame, spec, decode_ms=ms_since(start))


def ms_since(start: float) -> float:
    """Milliseconds since a reading of `time.perf_counter`."""
    return (time.perf_counter() - start) * 1e3


def _field_of_view_warnings(eye: Eye, visible_permille: int) -> tuple[str, ...]:
    if visible_permille >= _CUT_OFF_BELOW_PERMILLE:
        return ()
    return (
        f"{eye}: only {visible_permille / 10:.0f} % of the field of view is in the picture; "
        "retake it with the whole disc",
    )
