"""`Screener`: two photographs in, one bilateral result out.

Frames are uint8 RGB arrays (height, width, 3) as `read_photograph` returns them, or None for an
absent eye. An eye that is absent or refused by the preprocessing takes no part in the inference;
the other is then screened alone with the model's absent-eye token, and the outcome is `ungradable`.
A screener holds no state between exams, so several threads may share one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.backends.protocol import Backend, EncodedEyes, Float32Array
from fundus_runtime.bundle import Bundle
from fundus_runtime.calibration import Calibration, OperatingPoint
from fundus_runtime.certificate import CertificateSummary, certificate_of
from fundus_runtime.errors import UsageError
from fundus_runtime.graph_choice import graphs_for_cpu
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.manifest import GraphPair, Manifest
from fundus_runtime.outcome import decide
from fundus_runtime.photograph import DEFAULT_MAX_MEGAPIXELS
from fundus_runtime.prepared import PreparedEye, ms_since, prepare_eye, prepare_eye_file
from fundus_runtime.result import (
    BundleIdentity,
    ClassDecision,
    EngineIdentity,
    ExamResult,
    EyeResult,
)
from fundus_runtime.version import __version__

__all__ = ["BACKENDS", "Screener"]

BACKENDS = ("onnxruntime",)


class Screener:
    """Screens exams with one bundle on one engine; use `open`, and close it after use."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        graphs: GraphPair,
        point: OperatingPoint,
        *,
        degraded_reason: str | None = None,
    ) -> None:
        self._backend = backend
        self._manifest = bundle.manifest
        self._point = point
        self._calibration = bundle.manifest.calibration_of(graphs)
        self._eye_calibration = bundle.manifest.eye_calibration_of(graphs)
        self._engine = EngineIdentity(
            backend=backend.name,
            provider=backend.provider,
            threads=backend.threads,
            graphs=graphs.name,
            dialect=graphs.dialect,
            precision=graphs.precision,
            degraded=degraded_reason is not None,
            degraded_reason=degraded_reason,
        )
        self._identity = _identity_of(bundle, graphs)
        self._certificate = certificate_of(
            bundle.manifest, graphs, point.name, provider=backend.provider
        )

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path | None = None,
        *,
        backend: str = "onnxruntime",
        threads: int | None = None,
        operating_point: str | None = None,
    ) -> Screener:
        """Verify a bundle, load its model and run it once, so that the first exam is not slower.

        Args:
            bundle: an open bundle or a folder; None for the default bundle.
            backend: one of `BACKENDS`.
            threads: threads within one operator; None for the engine's own choice.
            operating_point: name of the operating point; None for the bundle's default.

        Raises:
            BundleError: the bundle is missing, not what its manifest says, or not to be trusted.
            EngineError: the engine is missing or cannot run the model.
            UsageError: an unknown backend or operating point.
        """
        if backend not in BACKENDS:
            raise UsageError(f"there is no backend {backend!r}; there is {', '.join(BACKENDS)}")
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        point = opened.manifest.operating_points.get(operating_point)
        graphs, degraded_reason = graphs_for_cpu(opened.manifest)
        engine = _open_onnxruntime(opened, graphs, threads)
        screener = cls(opened, engine, graphs, point, degraded_reason=degraded_reason)
        screener._warm_up()
        return screener

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._manifest

    @property
    def operating_point(self) -> OperatingPoint:
        """The operating point in use."""
        return self._point

    @property
    def engine(self) -> EngineIdentity:
        """What computes the results."""
        return self._engine

    @property
    def bundle(self) -> BundleIdentity:
        """Which model it is."""
        return self._identity

    @property
    def calibration(self) -> Calibration:
        """What turns the patient's logits into probabilities."""
        return self._calibration

    @property
    def eye_calibration(self) -> Calibration | None:
        """The same of one eye's logits; None where these mean nothing."""
        return self._eye_calibration

    @property
    def certificate(self) -> CertificateSummary:
        """How often what runs decides otherwise than the validated model."""
        return self._certificate

    def close(self) -> None:
        """Free the engine; closing twice is allowed."""
        self._backend.close()

    def __enter__(self) -> Screener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def screen(self, left: NDArray[np.uint8] | None, right: NDArray[np.uint8] | None) -> ExamResult:
        """Screen a pair of frames.

        Args:
            left: the left eye, uint8 RGB (height, width, 3), or None.
            right: the right eye, likewise.

        Raises:
            ImageError: an array is not such a frame.
            EngineError: the engine failed; there is no result.
        """
        return self.screen_prepared(self.prepare("left", left), self.prepare("right", right))

    def screen_files(
        self,
        left: str | Path | None,
        right: str | Path | None,
        *,
        max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
    ) -> ExamResult:
        """Screen a pair of JPEG or PNG files; see `screen`.

        Raises:
            ImageError: a file cannot be used.
            EngineError: the engine failed; there is no result.
        """
        return self.screen_prepared(
            self.prepare_file("left", left, max_megapixels=max_megapixels),
            self.prepare_file("right", right, max_megapixels=max_megapixels),
        )

    def prepare_file(
        self, eye: Eye, path: str | Path | None, *, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
    ) -> PreparedEye:
        """Read, decode and preprocess one eye's file; see `prepare_eye_file`."""
        return prepare_eye_file(eye, path, self._manifest.spec, max_megapixels=max_megapixels)

    def prepare(
        self, eye: Eye, frame: NDArray[np.uint8] | None, *, decode_ms: float | None = None
    ) -> PreparedEye:
        """Preprocess one eye's frame; see `prepare_eye`."""
        return prepare_eye(eye, frame, self._manifest.spec, decode_ms=decode_ms)

    def screen_prepared(self, left: PreparedEye, right: PreparedEye) -> ExamResult:
        """Screen two eyes that `prepare` or `prepare_file` made.

        Raises:
            UsageError: the eyes are exchanged, or were prepared for another bundle.
            EngineError: the engine failed; there is no result.
        """
        if left.eye != "left" or right.eye != "right":
            raise UsageError(f"expected the left and the right eye, got {left.eye}, {right.eye}")
        for eye in (left, right):
            self._require_own_preprocessing(eye)
        usable = [eye for eye in (left, right) if eye.tensor is not None]
        time_ms = _stage_times(left, right)
        logits, encoded = None, None
        if usable:
            start = time.perf_counter()
            images = np.stack([eye.tensor for eye in usable if eye.tensor is not None])
            encoded = self._backend.encode(images, [eye.eye for eye in usable])
            time_ms["encode"] = ms_since(start)
            start = time.perf_counter()
            logits = self._fuse(encoded, left, right)
            time_ms["head"] = ms_since(start)
        time_ms["total"] = sum(value for value in time_ms.values() if value is not None)
        by_eye = {eye.eye: i for i, eye in enumerate(usable)}
        return self._result(
            left=self._eye_result(left, encoded, by_eye),
            right=self._eye_result(right, encoded, by_eye),
            probabilities=self._probabilities(self._calibration, logits, 0),
            warnings=(*left.warnings, *right.warnings, *_same_photograph_warning(left, right)),
            time_ms=time_ms,
        )

    def _require_own_preprocessing(self, eye: PreparedEye) -> None:
        ours = self._manifest.spec
        if eye.picture is not None and eye.picture.spec != ours:
            raise UsageError(
                f"the {eye.eye} eye was prepared by preprocessing {eye.picture.spec.sha256[:12]}, "
                f"but bundle {self._manifest.name!r} needs {ours.sha256[:12]}; prepare it with the "
                "screener that screens it"
            )

    def _fuse(self, encoded: EncodedEyes, left: PreparedEye, right: PreparedEye) -> Float32Array:
        """Logits (1, K) of one patient; an unusable eye is zeros with its flag down."""
        features = iter(np.split(encoded.features, len(encoded.features)))
        absent = np.zeros_like(encoded.features[:1])
        of_left = next(features) if left.tensor is not None else absent
        of_right = next(features) if right.tensor is not None else absent
        return self._backend.fuse(of_left, of_right, _flag(left), _flag(right))

    def _probabilities(
        self, calibration: Calibration, logits: Float32Array | None, row: int
    ) -> dict[str, float]:
        if logits is None:
            return {}
        values = calibration.apply(logits[row])
        return {
            letter: float(value) for letter, value in zip(calibration.letters, values, strict=True)
        }

    def _eye_result(
        self, prepared: PreparedEye, encoded: EncodedEyes | None, rows: Mapping[Eye, int]
    ) -> EyeResult:
        probabilities: dict[str, float] = {}
        calibration = self._eye_calibration
        if encoded is not None and prepared.eye in rows and calibration is not None:
            probabilities = self._probabilities(calibration, encoded.logits, rows[prepared.eye])
        return EyeResult(
            eye=prepared.eye,
            status=prepared.status,
            reason=prepared.reason,
            hint=prepared.hint,
            field_of_view=prepared.field_of_view,
            probabilities=probabilities,
            picture=prepared.picture,
        )

    def _result(
        self,
        *,
        left: EyeResult,
        right: EyeResult,
        probabilities: Mapping[str, float],
        warnings: tuple[str, ...],
        time_ms: Mapping[str, float | None],
    ) -> ExamResult:
        thresholds, rules = self._point.threshold_of, self._point.rule_of
        classes = self._manifest.classes
        complete = left.status == "ok" and right.status == "ok"
        decision = decide(probabilities, thresholds, classes, complete=complete)
        return ExamResult(
            outcome=decision.outcome,
            refer=decision.refer,
            findings=decision.findings,
            classes=classes,
            operating_point=self._point.name,
            decisions={
                letter: ClassDecision(
                    value,
                    thresholds[letter],
                    rules[letter],
                    # one eye can show a finding, but never that the patient is normal
                    value >= thresholds[letter] and (complete or letter != classes.normal),
                )
                for letter, value in probabilities.items()
            },
            thresholds=thresholds,
            left=left,
            right=right,
            warnings=warnings,
            time_ms=time_ms,
            engine=self._engine,
            bundle=self._identity,
            certificate=self._certificate,
            intended_use=self._manifest.intended_use,
            package_version=__version__,
        )

    def _warm_up(self) -> None:
        size = self._manifest.spec.size
        self.prepare("left", _drawn_disc())
        encoded = self._backend.encode(np.zeros((2, 3, size, size), np.float32), EYES)
        flag = np.ones(1, np.float32)
        self._backend.fuse(encoded.features[:1], encoded.features[1:], flag, flag)


def _drawn_disc() -> NDArray[np.uint8]:
    """A bright disc on black, 256 pixels a side: what the preprocessing warms up on."""
    y, x = np.ogrid[-128:128, -128:128]
    disc = (x * x + y * y < 120 * 120).astype(np.uint8)
    return np.repeat(disc[:, :, None] * np.uint8(128), 3, axis=2)


def _open_onnxruntime(bundle: Bundle, graphs: GraphPair, threads: int | None) -> Backend:
    from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend

    encoder, head = bundle.graph_bytes(graphs)
    return OnnxRuntimeBackend(
        encoder,
        head,
        size=bundle.manifest.spec.size,
        class_count=len(bundle.manifest.classes),
        threads=threads,
    )


def _identity_of(bundle: Bundle, graphs: GraphPair) -> BundleIdentity:
    manifest = bundle.manifest
    return BundleIdentity(
        name=manifest.name,
        version=manifest.version,
        sha256=bundle.sha256,
        trust=bundle.trust,
        signer=bundle.signer,
        encoder_sha256=manifest.files[graphs.encoder].sha256,
        head_sha256=manifest.files[graphs.head].sha256,
        preprocess_sha256=manifest.spec.sha256,
    )


def _stage_times(left: PreparedEye, right: PreparedEye) -> dict[str, float | None]:
    decoded = [ms for ms in (left.decode_ms, right.decode_ms) if ms is not None]
    return {
        "decode": sum(decoded) if decoded else None,
        "preprocess_left": left.preprocess_ms,
        "preprocess_right": right.preprocess_ms,
        "encode": None,
        "head": None,
    }


def _same_photograph_warning(left: PreparedEye, right: PreparedEye) -> tuple[str, ...]:
    if left.picture is None or right.picture is None:
        return ()
    if not np.array_equal(left.picture.crop, right.picture.crop):
        return ()
    return ("both eyes are the same photograph; check that each eye was photographed",)


def _flag(eye: PreparedEye) -> Float32Array:
    return np.array([0.0 if eye.tensor is None else 1.0], np.float32)
