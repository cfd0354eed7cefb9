"""One eye on its way to the engine: decoded, preprocessed and judged, or refused with a reason.

A photograph that cannot be graded becomes a status here, not an error, because the other eye can
still be screened; a file or array that is no photograph stays an error. Frames are only read, and
free again when a call returns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.backends.protocol import Float32Array
from fundus_runtime.engine import ms_since
from fundus_runtime.errors import ImageError, UngradableError, UsageError
from fundus_runtime.labels import Eye
from fundus_runtime.photograph import DEFAULT_MAX_MEGAPIXELS, read_photograph
from fundus_runtime.preprocess import PreprocessSpec, preprocess
from fundus_runtime.result import EyePicture, EyeStatus
from fundus_runtime.verdict import EyeVerdict

__all__ = ["ColorOrder", "EyePreparer", "PreparedEye", "refuse_same_photograph"]

ColorOrder = Literal["rgb", "bgr"]

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

    @property
    def usable(self) -> bool:
        """Whether it takes part in the inference."""
        return self.status == "ok"

    def refused(self, reason: str, hint: str) -> PreparedEye:
        """The same eye as one that cannot be used."""
        return replace(
            self, status="ungradable", tensor=None, picture=None, reason=reason, hint=hint
        )

    def same_photograph(self, other: PreparedEye) -> bool:
        """Whether both eyes were given the same photograph."""
        if self.picture is None or other.picture is None:
            return False
        return np.array_equal(self.picture.crop, other.picture.crop)

    def verdict(self) -> EyeVerdict:
        """What an operator is told of it."""
        return EyeVerdict(
            self.eye,
            self.status,
            reason=self.reason,
            hint=self.hint,
            warnings=self.warnings,
            preprocess_ms=self.preprocess_ms,
        )


class EyePreparer:
    """Prepares eyes for one bundle; safe to use from several threads.

    Args:
        spec: how to preprocess.
        max_megapixels: refuse larger frames and files.

    Raises:
        UsageError: the limit is not above 0.
    """

    def __init__(
        self, spec: PreprocessSpec, *, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
    ) -> None:
        if not max_megapixels > 0:
            raise UsageError(f"max_megapixels must be above 0, got {max_megapixels}")
        self._spec = spec
        self._max_megapixels = max_megapixels

    @property
    def spec(self) -> PreprocessSpec:
        """How eyes are preprocessed."""
        return self._spec

    def absent(self, eye: Eye) -> PreparedEye:
        """An eye of which there is no photograph."""
        hint = f"no photograph of the {eye} eye; take one, or refer the patient"
        return PreparedEye(eye, "absent", reason="absent", hint=hint)

    def frame(
        self,
        eye: Eye,
        frame: NDArray[np.uint8],
        *,
        color: ColorOrder,
        decode_ms: float | None = None,
    ) -> PreparedEye:
        """Preprocess and judge one eye's frame.

        Args:
            eye: which one.
            frame: uint8 (height, width, 3).
            color: its channel order, `rgb` or `bgr`.
            decode_ms: time that reading the file took, to be reported.

        Raises:
            ImageError: the array is not a frame, or larger than the limit.
            UsageError: `color` is neither of the two.
        """
        self._require_size(frame)
        start = time.perf_counter()
        try:
            done = preprocess(frame, self._spec, color=color)
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
            picture=EyePicture(done.crop, done.mask, self._spec),
            decode_ms=decode_ms,
            preprocess_ms=ms_since(start),
            warnings=_field_of_view_warnings(eye, done.field_of_view.visible_permille),
        )

    def file(self, eye: Eye, path: str | Path) -> PreparedEye:
        """Read, decode, preprocess and judge one eye's JPEG or PNG file.

        Raises:
            ImageError: the file cannot be used.
        """
        start = time.perf_counter()
        frame = read_photograph(path, max_megapixels=self._max_megapixels)
        return self.frame(eye, frame, color="rgb", decode_ms=ms_since(start))

    def _require_size(self, frame: object) -> None:
        if not isinstance(frame, np.ndarray) or frame.ndim < 2:
            return  # the preprocessing says what else is wrong with it
        height, width = frame.shape[:2]
        if height * width > self._max_megapixels * 1e6:
            raise ImageError(
                f"the frame has {width} x {height} px ({height * width / 1e6:.1f} megapixels), but "
                f"the limit is {self._max_megapixels:g}; give a smaller one, or open the screener "
                "with a larger max_megapixels"
            )


def refuse_same_photograph(prepared: PreparedEye) -> PreparedEye:
    """An eye that was given the other one's photograph: one of them was not photographed."""
    other = "right" if prepared.eye == "left" else "left"
    return prepared.refused(
        "same_photograph",
        f"this is the photograph of the {other} eye again; photograph the {prepared.eye} eye",
    )


def _field_of_view_warnings(eye: Eye, visible_permille: int) -> tuple[str, ...]:
    if visible_permille >= _CUT_OFF_BELOW_PERMILLE:
        return ()
    return (
        f"{eye}: only {visible_permille / 10:.0f} % of the field of view is in the picture; "
        "retake it with the whole disc",
    )
