"""From two encoded eyes to the result of an exam: head, calibration, decisions, provenance.

A grader holds what is the same for every exam of a screener.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fundus_runtime.backends.protocol import Backend, EncodedEyes, Float32Array
from fundus_runtime.bundle import Bundle
from fundus_runtime.calibration import Calibration, OperatingPoint
from fundus_runtime.certificate import certificate_of
from fundus_runtime.engine import Engine
from fundus_runtime.errors import EngineError
from fundus_runtime.gates import GateFigure
from fundus_runtime.heat_map import HeatMaps
from fundus_runtime.manifest import GraphPair
from fundus_runtime.outcome import decide
from fundus_runtime.prepared import PreparedEye
from fundus_runtime.preprocess import FieldOfView, crop_box
from fundus_runtime.result import (
    BundleIdentity,
    ClassDecision,
    EngineIdentity,
    ExamResult,
    EyeResult,
)
from fundus_runtime.stages import stage_times
from fundus_runtime.version import __version__

__all__ = ["EncodedEye", "Grader", "conclude"]


class EncodedEye(NamedTuple):
    """One eye as the head takes it.

    Attributes:
        prepared: what its photograph gave.
        encoded: of this eye alone, batch 1; None where the eye takes no part.
        encode_ms: time of the encoder, where this eye went through it alone.
    """

    prepared: PreparedEye
    encoded: EncodedEyes | None = None
    encode_ms: float | None = None


class Grader:
    """Grades exams with one bundle at one operating point.

    Args:
        bundle: verified.
        backend: what computes; only asked what it is.
        graphs: the form of the model that it runs.
        point: the operating point.
        precision: what the backend computes in; None for the graphs' own.
        degraded_reason: why this is not what was asked for; None where it is.
        plan_sha256: of the TensorRT plans, by `encoder` and `head`; None where none run.
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
    ) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self.point = point
        self.calibration = manifest.calibration_of(graphs)
        self.eye_calibration = manifest.eye_calibration_of(graphs)
        self.engine = EngineIdentity(
            backend=backend.name,
            provider=backend.provider,
            threads=backend.threads,
            graphs=graphs.name,
            dialect=graphs.dialect,
            precision=precision or graphs.precision,
            plan_sha256=None if plan_sha256 is None else dict(plan_sha256),
            degraded=degraded_reason is not None,
            degraded_reason=degraded_reason,
        )
        self.bundle = _identity_of(bundle, graphs)
        self.certificate = certificate_of(manifest, graphs, point.name, provider=backend.provider)

    def grade(
        self,
        left: EncodedEye,
        right: EncodedEye,
        logits: Float32Array | None,
        *,
        likeness: GateFigure | None,
        time_ms: Mapping[str, float | None],
    ) -> ExamResult:
        """The result of an exam.

        Args:
            left: the left eye.
            right: the right eye.
            logits: (1, K), uncalibrated, of the patient; None where no eye took part.
            likeness: of both photographs.
            time_ms: how long the stages took.

        Raises:
            ResultError: a probability came out that is none.
        """
        thresholds, rules = self.point.threshold_of, self.point.rule_of
        classes = self.manifest.classes
        complete = left.prepared.usable and right.prepared.usable
        probabilities = {} if logits is None else _probabilities(self.calibration, logits)
        decision = decide(probabilities, thresholds, classes, complete=complete)
        return ExamResult(
            outcome=decision.outcome,
            refer=decision.refer,
            findings=decision.findings,
            classes=classes,
            operating_point=self.point.name,
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
            left=self._eye_result(left),
            right=self._eye_result(right),
            likeness=likeness,
            warnings=(*left.prepared.warnings, *right.prepared.warnings),
            time_ms=time_ms,
            engine=self.engine,
            bundle=self.bundle,
            certificate=self.certificate,
            intended_use=self.manifest.intended_use,
            package_version=__version__,
        )

    def _eye_result(self, eye: EncodedEye) -> EyeResult:
        prepared = eye.prepared
        return EyeResult(
            eye=prepared.eye,
            status=prepared.status,
            reason=prepared.reason,
            hint=prepared.hint,
            field_of_view=prepared.field_of_view,
            quality=prepared.gates,
            probabilities=self._eye_probabilities(eye.encoded),
            heat_maps=self._heat_maps(eye),
            picture=prepared.picture,
        )

    def _eye_probabilities(self, encoded: EncodedEyes | None) -> dict[str, float]:
        if encoded is None or encoded.logits is None or self.eye_calibration is None:
            return {}
        return _probabilities(self.eye_calibration, encoded.logits)

    def _heat_maps(self, eye: EncodedEye) -> HeatMaps | None:
        encoded, disc = eye.encoded, eye.prepared.field_of_view
        if encoded is None or encoded.maps is None or self.eye_calibration is None or disc is None:
            return None
        spec = self.manifest.spec
        box = crop_box(FieldOfView(**disc), spec)
        return HeatMaps.from_encoder(encoded.maps[0], self.eye_calibration, box, size=spec.size)


def conclude(
    engine: Engine,
    grader: Grader,
    left: EncodedEye,
    right: EncodedEye,
    *,
    likeness: GateFigure | None,
    encode_ms: float | None = None,
    timeout: float | None = None,
) -> ExamResult:
    """Run the head on two eyes and grade the patient.

    Args:
        engine: what runs the head.
        grader: what grades.
        left: the left eye.
        right: the right eye.
        likeness: of both photographs.
        encode_ms: time of the encoder, where both eyes went through it together.
        timeout: seconds to wait while the engine works for others.

    Raises:
        EngineError: the engine failed, or a usable eye did not go through the encoder.
        ExamTimeoutError: it was busy for longer.
    """
    for eye in (left, right):
        _require_encoded_if_usable(eye)
    logits, head_ms = None, None
    if known := left.encoded or right.encoded:
        of_left, of_right = (
            np.zeros_like(known.features) if eye.encoded is None else eye.encoded.features
            for eye in (left, right)
        )
        present = (left.encoded is not None, right.encoded is not None)
        logits, head_ms = engine.fuse((of_left, of_right), present, timeout=timeout)
    times = stage_times(
        left.prepared,
        right.prepared,
        encode_ms=encode_ms,
        encode_left_ms=left.encode_ms,
        encode_right_ms=right.encode_ms,
        head_ms=head_ms,
    )
    return grader.grade(left, right, logits, likeness=likeness, time_ms=times)


def _require_encoded_if_usable(eye: EncodedEye) -> None:
    # the head would take it for an absent eye, and the exam could still read as normal
    if eye.prepared.usable != (eye.encoded is not None):
        state = "usable, but was not" if eye.prepared.usable else "not usable, but was"
        raise EngineError(f"the {eye.prepared.eye} eye is {state} encoded; begin the exam again")


def _probabilities(calibration: Calibration, logits: Float32Array) -> dict[str, float]:
    values = calibration.apply(logits[0])
    return {letter: float(value) for letter, value in zip(calibration.letters, values, strict=True)}


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
