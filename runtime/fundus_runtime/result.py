"""The result of an exam: plain immutable values, and their JSON form.

Probabilities are calibrated and keyed by class letter. An empty mapping means that nothing could be
computed; it never means that nothing was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.certificate import CertificateSummary
from fundus_runtime.gates import GateFigure, GateVerdict
from fundus_runtime.heat_map import HeatMaps
from fundus_runtime.labels import EYES, ClassList, Eye
from fundus_runtime.outcome import Outcome
from fundus_runtime.preprocess import PreprocessSpec, visible_crop

__all__ = [
    "RESULT_FORMAT",
    "RESULT_SCHEMA_VERSION",
    "BundleIdentity",
    "ClassDecision",
    "EngineIdentity",
    "ExamResult",
    "EyePicture",
    "EyeResult",
    "EyeStatus",
]

RESULT_FORMAT = "fundus-edge result"
RESULT_SCHEMA_VERSION = 2

EyeStatus = Literal["ok", "absent", "ungradable"]


@dataclass(frozen=True, eq=False)
class EyePicture:
    """What the preprocessing made of one eye, for people to look at.

    Attributes:
        crop: uint8 (S, S, 3) RGB, resampled.
        mask: bool (S, S), where the fundus is.
        spec: how it was made.
    """

    crop: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    spec: PreprocessSpec

    def visible(self) -> NDArray[np.uint8]:
        """The picture after illumination correction, uint8 (S, S, 3) RGB."""
        return visible_crop(self.crop, self.mask, self.spec)


@dataclass(frozen=True)
class EyeResult:
    """One eye.

    Attributes:
        eye: `left` or `right`.
        status: `ok`, `absent` (no photograph was given) or `ungradable`.
        reason: why the eye was not used, in snake_case; None when it was.
        hint: what the operator should do; None when nothing.
        field_of_view: the disc in pixels of the photograph; None where none was found.
        quality: what the gates say, with every figure and threshold; None where there was no disc
            to judge.
        probabilities: of this eye alone, by class letter; empty when it was not used, or when the
            model was trained without labels of single eyes.
        heat_maps: where these probabilities come from, by class; None where there are none, and
            where the bundle's graphs do not tell.
        picture: what the preprocessing made of it; not part of the JSON form.
    """

    eye: Eye
    status: EyeStatus
    reason: str | None = None
    hint: str | None = None
    field_of_view: Mapping[str, Any] | None = None
    quality: GateVerdict | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    heat_maps: HeatMaps | None = field(default=None, repr=False, compare=False)
    picture: EyePicture | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The eye as plain JSON values."""
        return {
            "status": self.status,
            "reason": self.reason,
            "hint": self.hint,
            "field_of_view": None if self.field_of_view is None else dict(self.field_of_view),
            "quality": None if self.quality is None else self.quality.to_dict(),
            "probabilities": dict(self.probabilities),
            "heat_maps": None if self.heat_maps is None else self.heat_maps.to_dict(),
        }


@dataclass(frozen=True)
class ClassDecision:
    """One class of a patient.

    Attributes:
        probability: calibrated.
        threshold: of the operating point.
        rule: how the threshold was chosen.
        present: the probability is at or above the threshold; never for the normal class of an
            ungradable exam.
    """

    probability: float
    threshold: float
    rule: str
    present: bool


@dataclass(frozen=True)
class EngineIdentity:
    """What computed the result.

    Attributes:
        backend: the inference engine.
        provider: what really executed the graphs, as the engine reports it.
        threads: that one call of it uses.
        graphs: name of the form of the model.
        dialect: its dialect.
        precision: what it computes in.
        plan_sha256: of the TensorRT plans that ran, by `encoder` and `head`; None where the graphs
            of the bundle ran themselves.
        degraded: this is not what was asked for.
        degraded_reason: why.
    """

    backend: str
    provider: str
    threads: int
    graphs: str
    dialect: str
    precision: str
    plan_sha256: Mapping[str, str] | None = None
    degraded: bool = False
    degraded_reason: str | None = None


@dataclass(frozen=True)
class BundleIdentity:
    """Which model it was: names, the manifest's hash, who vouches, and the hashes of what ran.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        sha256: of its manifest.
        trust: `shipped`, `signed` or, in tools of the export alone, `unsigned`.
        signer: id of the trusted key that signed it; None where there is none.
        encoder_sha256: of the encoder's file.
        head_sha256: of the head's file.
        preprocess_sha256: of the preprocessing spec.
    """

    name: str
    version: str
    sha256: str
    trust: str
    signer: str | None
    encoder_sha256: str
    head_sha256: str
    preprocess_sha256: str


@dataclass(frozen=True)
class ExamResult:
    """What an exam of both eyes says, how sure it is, and what said it.

    Attributes:
        outcome: `ungradable`, `findings`, `normal` or `uncertain`.
        refer: whether to refer the patient; False for `normal` alone.
        findings: letters of the classes at their operating points, the normal class left out.
        classes: the class list.
        operating_point: name of the operating point.
        decisions: every class's probability and threshold; empty when no eye was usable.
        thresholds: of the operating point, by letter.
        left: the left eye.
        right: the right eye.
        likeness: of both photographs, which tells one that was given twice; None unless both eyes
            were usable.
        warnings: sentences for the operator.
        time_ms: how long each stage took, by the names of `stages.STAGES`; None where it did not
            run.
        engine: what computed it.
        bundle: with which model.
        certificate: how often the form of the model that ran decides otherwise than the validated
            one.
        intended_use: as the bundle states it.
        package_version: version of fundus-edge.
    """

    outcome: Outcome
    refer: bool
    findings: tuple[str, ...]
    classes: ClassList
    operating_point: str
    decisions: Mapping[str, ClassDecision]
    thresholds: Mapping[str, float]
    left: EyeResult
    right: EyeResult
    likeness: GateFigure | None
    warnings: tuple[str, ...]
    time_ms: Mapping[str, float | None]
    engine: EngineIdentity
    bundle: BundleIdentity
    certificate: CertificateSummary
    intended_use: str
    package_version: str

    @property
    def probabilities(self) -> dict[str, float]:
        """The patient's calibrated probabilities by letter; empty when no eye was usable."""
        return {letter: one.probability for letter, one in self.decisions.items()}

    def eye(self, eye: Eye) -> EyeResult:
        """One eye's part."""
        return self.left if eye == "left" else self.right

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values, schema version 2."""
        return {
            "format": RESULT_FORMAT,
            "schema_version": RESULT_SCHEMA_VERSION,
            "not_a_medical_device": True,
            "outcome": self.outcome,
            "refer": self.refer,
            "findings": list(self.findings),
            "probabilities": self.probabilities,
            "operating_point": self.operating_point,
            "thresholds": dict(self.thresholds),
            "decisions": {letter: asdict(one) for letter, one in self.decisions.items()},
            "eyes": {eye: self.eye(eye).to_dict() for eye in EYES},
            "likeness": None if self.likeness is None else self.likeness.to_dict(),
            "warnings": list(self.warnings),
            "time_ms": {
                stage: None if value is None else round(value, 3)
                for stage, value in self.time_ms.items()
            },
            "degraded": self.engine.degraded,
            "engine": asdict(self.engine),
            "bundle": asdict(self.bundle),
            "certificate": self.certificate.to_dict(),
            "classes": self.classes.to_dict(),
            "intended_use": self.intended_use,
            "package_version": self.package_version,
        }
