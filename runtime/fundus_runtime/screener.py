"""`Screener`: opens a model once, and screens exams with it.

`begin` is an exam eye by eye: each is preprocessed, judged and encoded while the robot moves on.
`screen` is the ready pair, encoded at once. Frames are uint8 arrays (height, width, 3) whose
channel order is always stated. An eye that is absent or refused takes no part in the inference; the
other is then screened alone with the model's absent-eye token, and the outcome is `ungradable`.
Several threads may share a screener.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.backends.open import BACKENDS, open_engine
from fundus_runtime.backends.protocol import Backend, Float32Array
from fundus_runtime.backends.settings import EngineSettings, Provider
from fundus_runtime.bundle import Bundle
from fundus_runtime.calibration import Calibration, OperatingPoint
from fundus_runtime.certificate import CertificateSummary
from fundus_runtime.engine import Engine
from fundus_runtime.errors import ExamClosedError, ExamLimitError, UsageError
from fundus_runtime.exam import Exam
from fundus_runtime.gate_choice import gate_thresholds
from fundus_runtime.gates import GateThresholds
from fundus_runtime.grader import Grader
from fundus_runtime.labels import Eye
from fundus_runtime.manifest import GraphPair, Manifest
from fundus_runtime.pair import screen_pair
from fundus_runtime.photograph import DEFAULT_MAX_MEGAPIXELS
from fundus_runtime.prepared import PreparedEye
from fundus_runtime.preparer import ColorOrder, EyePreparer
from fundus_runtime.result import BundleIdentity, EngineIdentity, ExamResult
from fundus_runtime.side_by_side import SideBySide
from fundus_runtime.warm_up import warm_up

__all__ = ["BACKENDS", "DEFAULT_MAX_OPEN_EXAMS", "Screener"]

DEFAULT_MAX_OPEN_EXAMS = 8


class Screener:
    """Screens exams with one bundle on one engine; use `open`, and close it after use.

    Args:
        bundle: verified.
        backend: an engine that runs `graphs`; the screener closes it.
        graphs: the form of the model.
        point: the operating point.
        precision: what the backend computes in; None for the graphs' own.
        degraded_reason: why this is not what was asked for; None where it is.
        plan_sha256: of the TensorRT plans that run, by `encoder` and `head`; None without plans.
        settings: that the backend was opened with; None for the defaults.
        gates: thresholds of the gates, or their file; None for `$FUNDUS_GATES`, else the defaults.
        max_megapixels: refuse larger frames and files.
        max_open_exams: exams that may be open at a time; they bound the memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        graphs: GraphPair,
        point: OperatingPoint,
        *,
        precision: str | None = None,
        degraded_reason: str | None = None,
        plan_sha256: Mapping[str, str] | None = None,
        settings: EngineSettings | None = None,
        gates: GateThresholds | str | Path | None = None,
        max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
        max_open_exams: int = DEFAULT_MAX_OPEN_EXAMS,
    ) -> None:
        if max_open_exams < 1:
            raise UsageError(f"max_open_exams must be at least 1, got {max_open_exams}")
        self._grader = Grader(
            bundle,
            backend,
            graphs,
            point,
            precision=precision,
            degraded_reason=degraded_reason,
            plan_sha256=plan_sha256,
        )
        settings = settings or EngineSettings()
        self._preparer = EyePreparer(
            bundle.manifest.spec,
            thresholds=gate_thresholds(gates),
            max_megapixels=max_megapixels,
        )
        self._both_eyes = SideBySide("fundus-eye", settings)
        self._engine = Engine(backend, on_thread=settings.with_own_cpus().pin_calling_thread)
        self._max_open_exams = max_open_exams
        self._changing = threading.Lock()
        # an exam that nobody holds any more is not open, though nobody closed it
        self._open_exams: weakref.WeakSet[Exam] = weakref.WeakSet()
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path | None = None,
        *,
        backend: str = "onnxruntime",
        provider: Provider = "cpu",
        threads: int | None = None,
        settings: EngineSettings | None = None,
        operating_point: str | None = None,
        gates: GateThresholds | str | Path | None = None,
        max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
        max_open_exams: int = DEFAULT_MAX_OPEN_EXAMS,
    ) -> Screener:
        """Verify a bundle, load its model and run it once, so that the first exam is not slower.

        Args:
            bundle: an open bundle or a folder; None for the default bundle.
            backend: one of `BACKENDS`.
            provider: what ONNX Runtime runs on: `cpu`, `cuda` or `tensorrt`.
            threads: threads within one operator; None for what `settings` say.
            settings: of the engine; None for the defaults.
            operating_point: name of the operating point; None for the bundle's default.
            gates: thresholds of the gates, or their file; None for `$FUNDUS_GATES`, else the
                defaults.
            max_megapixels: refuse larger frames and files.
            max_open_exams: exams that may be open at a time.

        Raises:
            BundleError: the bundle is missing, not what its manifest says, or not to be trusted.
            EngineError: the engine is missing or cannot run the model.
            UsageError: there is no such backend, operating point, threshold or limit.
        """
        settings = settings or EngineSettings()
        if threads is not None:
            settings = replace(settings, threads=threads)
        whole = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        point = whole.manifest.operating_points.get(operating_point)
        gates = gate_thresholds(gates)
        engine = open_engine(whole, backend, provider=provider, settings=settings)
        try:
            screener = cls(
                whole,
                engine.backend,
                engine.graphs,
                point,
                precision=engine.precision,
                degraded_reason=engine.degraded_reason,
                plan_sha256=engine.plan_sha256,
                settings=settings,
                gates=gates,
                max_megapixels=max_megapixels,
                max_open_exams=max_open_exams,
            )
        except BaseException:
            engine.backend.close()
            raise
        try:
            warm_up(screener._preparer, screener._both_eyes)
        except BaseException:
            screener.close()
            raise
        return screener

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._grader.manifest

    @property
    def operating_point(self) -> OperatingPoint:
        """The operating point in use."""
        return self._grader.point

    @property
    def engine(self) -> EngineIdentity:
        """What computes the results."""
        return self._grader.engine

    @property
    def bundle(self) -> BundleIdentity:
        """Which model it is."""
        return self._grader.bundle

    @property
    def calibration(self) -> Calibration:
        """What turns the patient's logits into probabilities."""
        return self._grader.calibration

    @property
    def eye_calibration(self) -> Calibration | None:
        """The same of one eye's logits; None where these mean nothing."""
        return self._grader.eye_calibration

    @property
    def certificate(self) -> CertificateSummary:
        """How often what runs decides otherwise than the validated model."""
        return self._grader.certificate

    def close(self) -> None:
        """End the open exams and free the engine; closing twice is allowed."""
        with self._changing:
            self._closed = True
            exams = list(self._open_exams)
        for exam in exams:
            exam.end("lost its screener, which was closed")
        self._both_eyes.close()
        self._engine.close()

    def __enter__(self) -> Screener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self) -> Exam:
        """Begin a patient's exam; use it in a `with`, or cancel it when there will be no result.

        Raises:
            ExamLimitError: as many exams as are allowed are open already.
            ExamClosedError: the screener is closed.
        """
        with self._changing:
            if self._closed:
                raise ExamClosedError("the screener is closed; open it again")
            if len(self._open_exams) >= self._max_open_exams:
                raise ExamLimitError(
                    f"{len(self._open_exams)} exams are open, which is the limit; take their "
                    "results or cancel them, or open the screener with a larger max_open_exams"
                )
            exam = Exam(self._preparer, self._engine, self._grader, self._release)
            self._open_exams.add(exam)
        return exam

    def screen(
        self,
        left: NDArray[np.uint8] | None,
        right: NDArray[np.uint8] | None,
        *,
        color: ColorOrder,
    ) -> ExamResult:
        """Screen a ready pair of frames, both prepared at a time where there are threads for it.

        Args:
            left: the left eye, uint8 (height, width, 3), or None where it is absent.
            right: the right eye, likewise.
            color: their channel order, `rgb` or `bgr`.

        Raises:
            ImageError: an array is not such a frame, or too large.
            EngineError: the engine failed; there is no result.
        """
        frames: Mapping[Eye, NDArray[np.uint8] | None] = {"left": left, "right": right}

        def prepare(eye: Eye, out: Float32Array) -> PreparedEye:
            frame = frames[eye]
            if frame is None:
                return self._preparer.absent(eye)
            return self._preparer.frame(eye, frame, color=color, out=out)

        return self._screen_both(prepare)

    def screen_files(self, left: str | Path | None, right: str | Path | None) -> ExamResult:
        """Screen a pair of JPEG or PNG files; see `screen`.

        Raises:
            ImageError: a file cannot be used.
            EngineError: the engine failed; there is no result.
        """
        paths: Mapping[Eye, str | Path | None] = {"left": left, "right": right}

        def prepare(eye: Eye, out: Float32Array) -> PreparedEye:
            path = paths[eye]
            if path is None:
                return self._preparer.absent(eye)
            return self._preparer.file(eye, path, out=out)

        return self._screen_both(prepare)

    def prepare(
        self,
        eye: Eye,
        frame: NDArray[np.uint8] | None,
        *,
        color: ColorOrder,
        decode_ms: float | None = None,
    ) -> PreparedEye:
        """Preprocess and judge one eye's frame, None for an absent eye; see `EyePreparer`."""
        if frame is None:
            return self._preparer.absent(eye)
        return self._preparer.frame(eye, frame, color=color, decode_ms=decode_ms)

    def prepare_file(self, eye: Eye, path: str | Path | None) -> PreparedEye:
        """Read, decode, preprocess and judge one eye's file; see `EyePreparer`."""
        return self._preparer.absent(eye) if path is None else self._preparer.file(eye, path)

    def screen_prepared(self, left: PreparedEye, right: PreparedEye) -> ExamResult:
        """Screen two eyes that `prepare` or `prepare_file` made, both through the encoder at once.

        Raises:
            UsageError: the eyes are exchanged, or were prepared for another bundle.
            EngineError: the engine failed; there is no result.
        """
        return screen_pair(self._preparer, self._engine, self._grader, left, right)

    def _screen_both(self, prepare: Callable[[Eye, Float32Array], PreparedEye]) -> ExamResult:
        """Prepare each eye where the encoder reads it, and screen both."""
        size = self._preparer.spec.size
        batch = np.empty((2, 3, size, size), np.float32)

        def screen(left: PreparedEye, right: PreparedEye) -> ExamResult:
            return screen_pair(self._preparer, self._engine, self._grader, left, right, batch=batch)

        return self._both_eyes.run(
            lambda: prepare("left", batch[0]), lambda: prepare("right", batch[1]), screen
        )

    def _release(self, exam: Exam) -> None:
        with self._changing:
            self._open_exams.discard(exam)
