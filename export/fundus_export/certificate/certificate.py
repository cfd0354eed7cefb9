"""The certificate's typed form, and the verdict that follows from its counts.

Its JSON form is what the manifest holds under `certificates`. The verdict is derived, never stored
by itself: reading a certificate whose stated verdict is not the one that its counts give is an
error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fundus_export.certificate.agreement import PointAgreement
from fundus_export.certificate.bounds import Share
from fundus_export.certificate.figures import ComparedFigures
from fundus_export.certificate.layer_errors import OVERFLOW_DB, LayerError
from fundus_export.certificate.limits import CertificateLimits
from fundus_export.certificate.plain_form import from_plain, to_plain
from fundus_export.errors import ExportError
from fundus_runtime.calibration import Calibration

__all__ = [
    "Certificate",
    "EyeAgreement",
    "JudgedPatients",
    "RefittedCalibration",
    "Subject",
    "WorstPair",
]

_DERIVED = ("within_limits", "misses")


@dataclass(frozen=True)
class Subject:
    """What was certified; empty where it is not known, as during a search.

    Attributes:
        dialect: which rules the graphs keep.
        provider: what executed them.
        engine: its name and version.
        cpu_features: vector instruction sets of the processor that did.
        encoder_sha256: of the encoder's file.
        head_sha256: of the head's file.
        checkpoint_sha256: of the reference's file.
        preprocess_sha256: of the preprocessing spec.
    """

    dialect: str
    provider: str = ""
    engine: str = ""
    cpu_features: tuple[str, ...] = ()
    encoder_sha256: str = ""
    head_sha256: str = ""
    checkpoint_sha256: str = ""
    preprocess_sha256: str = ""


@dataclass(frozen=True)
class JudgedPatients:
    """Who it was judged on.

    Attributes:
        split: part of the checkpoint's own split.
        judged: patients with a gradable eye.
        complete: those of them with both.
        without_gradable_eye: patients that nothing could be asked about.
        ids_sha256: hash of the judged patients' ids.
        halves_seed: seed of the two halves.
        first_half_sha256: hash of the first half's ids.
    """

    split: str
    judged: int
    complete: int
    without_gradable_eye: int
    ids_sha256: str
    halves_seed: int
    first_half_sha256: str


@dataclass(frozen=True)
class RefittedCalibration:
    """What the dialect's logits are to be read with.

    Attributes:
        kept: it is the checkpoint's, which fits as it is.
        patient: of the fused logits, from all judged patients.
        eye: of the per-eye logits, or None where these mean nothing.
    """

    kept: bool
    patient: Calibration
    eye: Calibration | None


@dataclass(frozen=True)
class EyeAgreement:
    """The per-eye outputs, on all gradable eyes.

    Attributes:
        eyes: how many.
        class_decisions: changed at the eyes' own default thresholds.
        largest_difference: of any calibrated probability.
        calibration_error: of the dialect on eyes with known labels, None where there are none.
        reference_calibration_error: of the reference on the same.
    """

    eyes: int
    class_decisions: Share
    largest_difference: float
    calibration_error: float | None
    reference_calibration_error: float | None


@dataclass(frozen=True)
class WorstPair:
    """The largest difference of any patient's probability.

    A patient is named by its place in the checkpoint's own list of ids alone: whoever holds data
    and checkpoint finds the photographs, and nobody learns an id from a manifest. A hash of an id
    would only look anonymous, since there are few ids to try.

    Attributes:
        place: in the checkpoint's ids of this part, from 0.
        letter: the class.
        reference: probability of the reference.
        dialect: probability of the dialect.
        decisions_changed: of this patient at the default operating point.
    """

    place: int
    letter: str
    reference: float
    dialect: float
    decisions_changed: tuple[str, ...]

    @property
    def difference(self) -> float:
        """How far apart they are."""
        return abs(self.dialect - self.reference)


@dataclass(frozen=True)
class Certificate:
    """How often a dialect decides otherwise than the validated model, with bounds.

    Attributes:
        subject: what was certified.
        patients: on whom.
        limits: what it must keep.
        default_point: the operating point at which the limits hold.
        thresholds: at every operating point, as they were validated.
        points: what changed at every operating point.
        figures: of both on the same patients.
        eyes: the per-eye outputs, None where these mean nothing.
        worst_pair: the largest difference.
        refit: what the dialect's logits are to be read with.
        layer_errors: the worst layers first; empty where they were not measured.
    """

    subject: Subject
    patients: JudgedPatients
    limits: CertificateLimits
    default_point: str
    thresholds: Mapping[str, Mapping[str, float]]
    points: Mapping[str, PointAgreement]
    figures: ComparedFigures
    eyes: EyeAgreement | None
    worst_pair: WorstPair
    refit: RefittedCalibration
    layer_errors: tuple[LayerError, ...] = ()

    @property
    def calibration(self) -> Calibration:
        """To ship for the fused logits."""
        return self.refit.patient

    @property
    def eye_calibration(self) -> Calibration | None:
        """To ship for the per-eye logits."""
        return self.refit.eye

    @property
    def default(self) -> PointAgreement:
        """What changed at the default operating point."""
        return self.points[self.default_point]

    @property
    def within_limits(self) -> bool:
        """Whether no limit is missed."""
        return not self.misses

    @property
    def misses(self) -> tuple[str, ...]:
        """Every limit that is missed, with its figures."""
        names = tuple(self.points) if self.limits.every_point else (self.default_point,)
        at_points = (miss for name in names for miss in self.misses_at(name))
        return (*self._overall_misses(), *at_points)

    def misses_at(self, name: str) -> tuple[str, ...]:
        """The limits that decisions at one operating point miss."""
        point, limits = self.points[name], self.limits
        return (
            *_missed(f"class decisions at {name}", point.class_decisions, limits.class_decisions),
            *_missed(f"refer or not at {name}", point.referrals, limits.referrals),
        )

    def _overall_misses(self) -> Iterator[str]:
        judged, least = self.patients.complete, self.limits.patients
        if judged < least:
            yield f"too few patients: {judged} with both eyes, at least {least} are needed"
        # nobody knows what an infinity turns into on another patient
        for layer in self.layer_errors:
            if OVERFLOW_DB in (layer.own_db, layer.accumulated_db):
                yield f"{layer.graph} {layer.tensor} ({layer.operator}) answers infinity or NaN"
        allowed = self.limits.challenge_score_drop
        difference = self.figures.difference.challenge_score
        if difference is None:
            yield "the challenge score is undefined on these patients: no drop can be ruled out"
        elif -difference > allowed:
            yield (
                f"challenge score down by {-difference:.4f}, from "
                f"{self.figures.reference.challenge_score:.4f} to "
                f"{self.figures.dialect.challenge_score:.4f}; {allowed:g} is allowed"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the verdict included."""
        plain: dict[str, Any] = to_plain(self)
        return {**plain, "within_limits": self.within_limits, "misses": list(self.misses)}

    @classmethod
    def from_dict(cls, values: Any) -> Certificate:
        """Read a certificate back.

        Raises:
            ExportError: it is none, or its verdict is not what its counts give.
        """
        if not isinstance(values, Mapping) or not set(_DERIVED) <= set(values):
            raise ExportError(f"a certificate needs the keys {', '.join(_DERIVED)}; certify again")
        plain = {key: value for key, value in values.items() if key not in _DERIVED}
        certificate = from_plain(cls, plain, "certificate")
        stated = values["within_limits"], values["misses"]
        if stated != (certificate.within_limits, list(certificate.misses)):
            raise ExportError(
                f"the certificate of {certificate.subject.dialect} states {stated}, but its counts "
                f"give {(certificate.within_limits, list(certificate.misses))}; it was altered: "
                "certify again"
            )
        return certificate


def _missed(what: str, share: Share, limit: float) -> tuple[str, ...]:
    if share.high <= limit:
        return ()
    return (
        f"{what}: {share.count} of {share.of} changed, {share.share:.2%}, upper 95 % bound "
        f"{share.high:.2%}; {limit:.2%} is allowed",
    )
