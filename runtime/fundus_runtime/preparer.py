"""`EyePreparer`: from a frame or a file to an eye that is preprocessed and judged.

Frames are only read, and free again when a call returns.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.backends.protocol import Float32Array
from fundus_runtime.engine import ms_since
from fundus_runtime.errors import ImageError, UngradableError, UsageError
from fundus_runtime.gates import GateFigure, GateThresholds, judge, judge_pair
from fundus_runtime.gates.gate_list import LIKENESS_MEANING
from fundus_runtime.labels import Eye
from fundus_runtime.photograph import DEFAULT_MAX_MEGAPIXELS, read_photograph
from fundus_runtime.prepared import SAME_PHOTOGRAPH, PreparedEye
from fundus_runtime.preprocess import FieldOfView, PreprocessSpec
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.result import EyePicture

__all__ = ["ColorOrder", "EyePreparer"]

ColorOrder = Literal["rgb", "bgr"]

# Below this much of the disc's bounding box inside the frame, the operator should see the cut.
_CUT_OFF_BELOW_PERMILLE = 750


class EyePreparer:
    """Prepares eyes for one bundle; safe to use from several threads.

    Args:
        spec: how to preprocess.
        thresholds: of the gates; None judges nothing, which is for pictures that are no exam.
        max_megapixels: refuse larger frames and files.

    Raises:
        UsageError: the limit is not above 0.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        *,
        thresholds: GateThresholds | None,
        max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
    ) -> None:
        if not max_megapixels > 0:
            raise UsageError(f"max_megapixels must be above 0, got {max_megapixels}")
        self._spec = spec
        self._native = NativePreprocessor(spec)
        self._thresholds = thresholds
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
        out: Float32Array | None = None,
    ) -> PreparedEye:
        """Preprocess and judge one eye's frame.

        Args:
            eye: which one.
            frame: uint8 (height, width, 3).
            color: its channel order, `rgb` or `bgr`.
            decode_ms: time that reading the file took, to be reported.
            out: where the tensor goes, (3, S, S); None for memory of its own.

        Raises:
            ImageError: the array is not a frame, or larger than the limit.
            UsageError: `color` is neither of the two.
        """
        prepared = self._preprocess(eye, frame, color, decode_ms, out)
        return self._judge(prepared, frame, color)

    def _preprocess(
        self,
        eye: Eye,
        frame: NDArray[np.uint8],
        color: ColorOrder,
        decode_ms: float | None,
        out: Float32Array | None,
    ) -> PreparedEye:
        self._require_size(frame)
        start = time.perf_counter()
        try:
            done = self._native.prepare(frame, color=color, out=out)
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
            warnings=_cut_off(eye, done.field_of_view),
        )

    def _judge(
        self, prepared: PreparedEye, frame: NDArray[np.uint8], color: ColorOrder
    ) -> PreparedEye:
        """The same eye with what the gates say of its frame: usable, or refused with a reason."""
        disc = prepared.field_of_view
        if self._thresholds is None or disc is None:
            return prepared
        start = time.perf_counter()
        gates = judge(
            frame, FieldOfView(**disc), self._thresholds, declared_eye=prepared.eye, color=color
        )
        if gates.usable:
            _ = gates.fingerprint.structure  # now, so that nobody waits for it in `likeness`
        judged = replace(
            prepared,
            gates=gates,
            gates_ms=ms_since(start),
            warnings=(*prepared.warnings, *gates.warnings),
        )
        if gates.usable:
            return judged
        return judged.refused(str(gates.reason), str(gates.hint))

    def file(self, eye: Eye, path: str | Path, *, out: Float32Array | None = None) -> PreparedEye:
        """Read, decode, preprocess and judge one eye's JPEG or PNG file; see `frame`.

        Raises:
            ImageError: the file cannot be used.
        """
        start = time.perf_counter()
        frame = read_photograph(path, max_megapixels=self._max_megapixels)
        return self.frame(eye, frame, color="rgb", decode_ms=ms_since(start), out=out)

    def likeness(self, left: PreparedEye, right: PreparedEye) -> GateFigure | None:
        """How alike both photographs are; not passed where they are one and the same.

        None where an eye was not judged, or the gates refused it anyway.
        """
        if self._thresholds is None or not (left.usable and right.usable):
            return None
        pair = judge_pair({"left": left.gates, "right": right.gates}, self._thresholds)
        if pair.likeness is None:
            return None
        same = pair.reason == SAME_PHOTOGRAPH
        return GateFigure(
            "likeness",
            pair.likeness,
            self._thresholds.min_same,
            "at_most",
            passed=not same,
            reason=SAME_PHOTOGRAPH if same else None,
            hint=pair.hint if same else None,
            meaning=LIKENESS_MEANING,
        )

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


def _cut_off(eye: Eye, disc: FieldOfView) -> tuple[str, ...]:
    if disc.visible_permille >= _CUT_OFF_BELOW_PERMILLE:
        return ()
    return (
        f"{eye}: only {disc.visible_permille / 10:.0f} % of the field of view is in the picture; "
        "retake it with the whole disc",
    )
