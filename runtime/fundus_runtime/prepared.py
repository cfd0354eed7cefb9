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
from fundus_runtime.gates import GateFigure, GateThresholds, GateVerdict, judge, judge_pair
from fundus_runtime.gates.gate_list import LIKENESS_MEANING
from fundus_runtime.labels import Eye
from fundus_runtime.photograph import DEFAULT_MAX_MEGAPIXELS, read_photograph
from fundus_runtime.preprocess import FieldOfView, PreprocessSpec
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.result import EyePicture, EyeStatus
from fundus_runtime.verdict import EyeVerdict

__all__ = ["ColorOrder", "EyePreparer", "PreparedEye", "refuse_same_photograph"]

ColorOrder = Literal["rgb", "bgr"]

SAME_PHOTOGRAPH = "same_photograph"
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
        field_of_view: the disc in pixels of the photograph; None where none was found.
        gates: what they say of the photograph; None where there is no disc to judge.
        picture: what the preprocessing made of it.
        decode_ms: time to read and decode the file, where there was one.
        preprocess_ms: time of the preprocessing, where there was a frame.
        gates_ms: time of the gates, where they judged.
        warnings: sentences for the operator.
    """

    eye: Eye
    status: EyeStatus
    tensor: Float32Array | None = None
    reason: str | None = None
    hint: str | None = None
    field_of_view: Mapping[str, Any] | None = None
    gates: GateVerdict | None = None
    picture: EyePicture | None = None
    decode_ms: float | None = None
    preprocess_ms: float | None = None
    gates_ms: float | None = None
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

    def verdict(self) -> EyeVerdict:
        """What an operator is told of it."""
        return EyeVerdict(
            self.eye,
            self.status,
            reason=self.reason,
            hint=self.hint,
            gates=self.gates,
            warnings=self.warnings,
            preprocess_ms=self.preprocess_ms,
            gates_ms=self.gates_ms,
        )


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
        self._preprocessor = NativePreprocessor(spec)
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
            done = self._preprocessor.prepare(frame, color=color)
        except UngradableError as error:
            return PreparedEye(
                eye,
                "ungradable",
                reason=error.reason,
                hint=error.hint,
                decode_ms=decode_ms,
                preprocess_ms=ms_since(start),
            )
        preprocess_ms = ms_since(start)
        start = time.perf_counter()
        gates = self._judge(eye, frame, done.field_of_view, color)
        prepared = PreparedEye(
            eye,
            "ok",
            tensor=done.tensor,
            field_of_view=done.field_of_view.to_dict(),
            gates=gates,
            picture=EyePicture(done.crop, done.mask, self._spec),
            decode_ms=decode_ms,
            preprocess_ms=preprocess_ms,
            gates_ms=None if gates is None else ms_since(start),
            warnings=_warnings(eye, done.field_of_view, gates),
        )
        if gates is None or gates.usable:
            return prepared
        return prepared.refused(str(gates.reason), str(gates.hint))

    def file(self, eye: Eye, path: str | Path) -> PreparedEye:
        """Read, decode, preprocess and judge one eye's JPEG or PNG file.

        Raises:
            ImageError: the file cannot be used.
        """
        start = time.perf_counter()
        frame = read_photograph(path, max_megapixels=self._max_megapixels)
        return self.frame(eye, frame, color="rgb", decode_ms=ms_since(start))

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

    def find_structure(self, prepared: PreparedEye) -> None:
        """Compute what `likeness` takes of one eye, so that nobody waits for it later."""
        if prepared.gates is not None and prepared.usable:
            _ = prepared.gates.fingerprint.structure

    def _judge(
        self, eye: Eye, frame: NDArray[np.uint8], disc: FieldOfView, color: ColorOrder
    ) -> GateVerdict | None:
        if self._thresholds is None:
            return None
        return judge(frame, disc, self._thresholds, declared_eye=eye, color=color)

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
        SAME_PHOTOGRAPH,
        f"this is the photograph of the {other} eye again; photograph the {prepared.eye} eye",
    )


def _warnings(eye: Eye, disc: FieldOfView, gates: GateVerdict | None) -> tuple[str, ...]:
    judged = () if gates is None else gates.warnings
    if disc.visible_permille >= _CUT_OFF_BELOW_PERMILLE:
        return judged
    return (
        f"{eye}: only {disc.visible_permille / 10:.0f} % of the field of view is in the picture; "
        "retake it with the whole disc",
        *judged,
    )
