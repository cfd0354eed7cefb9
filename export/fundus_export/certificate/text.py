"""Certificates as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fundus_export.certificate.agreement import PointAgreement
from fundus_export.certificate.bounds import Share
from fundus_export.certificate.certificate import Certificate
from fundus_export.certificate.layer_errors import LayerError

__all__ = ["text_of_certificate", "text_of_certificates"]

_LAYERS_SHOWN = 5


def text_of_certificates(certificates: Sequence[Certificate]) -> str:
    """A line for each dialect, then each one's details."""
    head = f"{'dialect':<10} {'class decisions':>22} {'refer or not':>22} {'score':>8}  verdict"
    return "\n".join(
        [
            "changed against the PyTorch model (share, upper 95 % bound), default operating point",
            head,
            "-" * len(head),
            *(_line(one) for one in certificates),
            *(f"\n{text_of_certificate(one)}" for one in certificates),
        ]
    )


def text_of_certificate(certificate: Certificate) -> str:
    """All that a person would look at first."""
    return "\n".join(_details(certificate))


def _line(certificate: Certificate) -> str:
    point = certificate.default
    return (
        f"{certificate.subject.dialect:<10} {_bounded(point.class_decisions):>22} "
        f"{_bounded(point.referrals):>22} "
        f"{_signed(certificate.figures.difference.challenge_score):>8}  {_verdict(certificate)}"
    )


def _details(certificate: Certificate) -> Iterator[str]:
    patients, subject = certificate.patients, certificate.subject
    yield f"{subject.dialect}: {_verdict(certificate)}"
    yield from (f"  missed: {miss}" for miss in certificate.misses)
    where = ", ".join(part for part in (subject.engine, subject.provider) if part)
    yield (
        f"  {patients.judged} {patients.split} patients ({patients.complete} with both eyes, "
        f"{patients.without_gradable_eye} more without a gradable one){where and f', {where}'}"
    )
    yield "  calibration: " + (
        "the checkpoint's, which fits as it is"
        if certificate.refit.kept
        else "refitted to the reference's probabilities, counted across two halves"
    )
    yield (
        f"  {'operating point':<16} {'class decisions':>17} {'refer or not':>13} "
        f"{'lost':>5} {'gained':>6} {'patients':>9}"
    )
    yield from (_point(certificate, name) for name in certificate.points)
    yield from _default_point(certificate.default)
    yield from _figures(certificate)
    yield from _worst(certificate)
    yield from _layers(certificate.layer_errors)


def _point(certificate: Certificate, name: str) -> str:
    point = certificate.points[name]
    beyond = "  beyond the limits" if certificate.misses_at(name) else ""
    return (
        f"  {name:<16} {_counted(point.class_decisions):>17} {_counted(point.referrals):>13} "
        f"{point.referrals_lost:>5} {point.referrals_gained:>6} "
        f"{point.patients_with_a_change.count:>9}{beyond}"
    )


def _default_point(point: PointAgreement) -> Iterator[str]:
    classes = (f"{letter} {share.count}" for letter, share in point.per_class.items())
    yield f"  default point by class: {', '.join(classes)}"
    moves = (f"{move} {count}" for move, count in point.outcome_changes.items())
    yield f"  default point, outcomes changed: {', '.join(moves) or 'none'}"


def _figures(certificate: Certificate) -> Iterator[str]:
    before, after = certificate.figures.reference, certificate.figures.dialect
    yield (
        f"  challenge score {_number(before.challenge_score)} -> {_number(after.challenge_score)}, "
        f"kappa {_number(before.kappa)} -> {_number(after.kappa)}, "
        f"calibration error {before.calibration_error:.4f} -> {after.calibration_error:.4f}"
    )
    areas = (
        f"{letter} {_signed(area)}"
        for letter, area in certificate.figures.difference.auc_per_class.items()
    )
    yield f"  AUC by class: {', '.join(areas)}"
    if certificate.eyes is not None:
        eyes = certificate.eyes
        yield (
            f"  {eyes.eyes} eyes alone: {_counted(eyes.class_decisions)} class decisions, largest "
            f"difference of a probability {eyes.largest_difference:.3f}"
        )


def _worst(certificate: Certificate) -> Iterator[str]:
    worst = certificate.worst_pair
    changed = " ".join(worst.decisions_changed)
    yield (
        f"  worst pair: number {worst.place} of the checkpoint's {certificate.patients.split} ids, "
        f"{worst.letter} {worst.reference:.3f} -> {worst.dialect:.3f}"
        f"{f', decides otherwise on {changed}' if changed else ', no decision changed'}"
    )


def _layers(errors: Sequence[LayerError]) -> Iterator[str]:
    if errors:
        yield "  layers with the largest errors of their own (accumulated), dB:"
    for one in errors[:_LAYERS_SHOWN]:
        yield (
            f"    {one.own_db:6.1f} ({one.accumulated_db:.1f})  {one.graph} {one.tensor}, "
            f"{one.operator}"
        )


def _verdict(certificate: Certificate) -> str:
    return "within limits" if certificate.within_limits else "NOT WITHIN LIMITS"


def _bounded(share: Share) -> str:
    return f"{share.share:.2%} (<= {share.high:.2%})"


def _counted(share: Share) -> str:
    return f"{share.count} of {share.of}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
