from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fundus_export.certificate import Certificate, CertificateLimits, certify_answers
from fundus_export.certificate.bounds import Share
from fundus_export.certificate.layer_errors import OVERFLOW_DB, LayerError
from fundus_export.certificate.text import text_of_certificates
from fundus_export.errors import ExportError
from fundus_runtime.labels import ClassList


@pytest.fixture
def certify(
    drawn: Any, reference_of: Any, answers_of: Any, calibrated: Any, classes: ClassList
) -> Callable[..., Certificate]:
    """The certificate of drawn logits, changed by `change` for the dialect."""

    def certificate(
        change: Callable[[np.ndarray], Any] = lambda logits: logits,
        *,
        patients: int = 420,
        **options: Any,
    ) -> Certificate:
        logits = drawn(patients)
        return certify_answers(
            reference_of(logits), answers_of(change(logits)), calibrated(), classes, **options
        )

    return certificate


def with_default_point(certificate: Certificate, **changes: Any) -> Certificate:
    point = replace(certificate.default, **changes)
    return replace(certificate, points={**certificate.points, certificate.default_point: point})


def bounded(high: float) -> Share:
    return Share(count=7, of=420, share=7 / 420, low=0.0, high=high)


def test_the_reference_certifies_itself_without_a_change(certify: Any) -> None:
    certificate = certify()

    assert certificate.within_limits
    assert certificate.refit.kept
    for point in certificate.points.values():
        assert point.class_decisions.count == point.referrals.count == point.outcomes.count == 0
    assert certificate.default.referrals.high == pytest.approx(1 - 0.025 ** (1 / 420))
    assert certificate.figures.difference.challenge_score == 0
    assert certificate.worst_pair.difference == 0


def test_a_shift_of_all_logits_is_refitted_away(certify: Any) -> None:
    certificate = certify(lambda logits: 1.2 * logits + 0.7)

    assert not certificate.refit.kept
    # what the pull towards the reference's own calibration leaves
    assert certificate.default.class_decisions.count <= 2
    assert certificate.calibration.classes[0].temperature == pytest.approx(1.2, rel=0.02)
    assert certificate.calibration.classes[0].bias == pytest.approx(-0.7 / 1.2, rel=0.02)
    assert certificate.eye_calibration is not None
    assert certificate.eye_calibration.classes[0].bias == pytest.approx(-0.7 / 1.2, rel=0.02)
    assert certificate.within_limits


def test_noise_is_counted_as_change(certify: Any) -> None:
    noise = np.random.default_rng(5).normal(0, 0.5, (420, 3))
    certificate = certify(lambda logits: logits + noise)

    assert not certificate.within_limits
    assert certificate.default.class_decisions.share > 0.02
    (miss,) = (miss for miss in certificate.misses if miss.startswith("class decisions at even: "))
    assert f"{certificate.default.class_decisions.high:.2%}" in miss
    assert "2.00% is allowed" in miss


def test_a_patient_is_not_judged_by_a_fit_that_saw_them(certify: Any) -> None:
    """A patient who answers wildly moves the other half's fit, never the one they are judged by."""

    def with_outlier(size: float) -> Certificate:
        def change(logits: np.ndarray) -> np.ndarray:
            after = 1.1 * logits + 0.3
            after[0, 1] = size
            return after

        return certify(change, seed=1)

    mild, wild = with_outlier(9.0), with_outlier(90.0)

    assert wild.worst_pair.place == mild.worst_pair.place == 0
    assert wild.worst_pair.letter == "D"
    assert wild.worst_pair.dialect == 1.0
    assert mild.worst_pair.dialect == pytest.approx(sigmoid((9.0 - 0.3) / 1.1), abs=1e-4)


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize(("what", "limit"), [("class_decisions", 0.02), ("referrals", 0.05)])
def test_bounds_may_reach_the_limit_but_not_pass_it(certify: Any, what: str, limit: float) -> None:
    perfect = certify()
    at = with_default_point(perfect, **{what: bounded(limit)})
    beyond = with_default_point(perfect, **{what: bounded(limit + 1e-9)})

    assert at.within_limits
    (miss,) = beyond.misses
    assert "7 of 420 changed, 1.67%" in miss


@pytest.mark.parametrize(("drop", "within"), [(0.005, True), (0.00501, False), (-0.2, True)])
def test_challenge_score_may_fall_by_its_limit(certify: Any, drop: float, within: bool) -> None:
    perfect = certify()
    figures = perfect.figures
    lower = replace(figures.dialect, challenge_score=figures.reference.challenge_score - drop)
    difference = replace(figures.difference, challenge_score=-drop)
    certificate = replace(perfect, figures=replace(figures, dialect=lower, difference=difference))

    assert certificate.within_limits is within
    assert all("challenge score down by" in miss for miss in certificate.misses)


def test_undefined_challenge_score_is_a_miss(
    drawn: Any, reference_of: Any, answers_of: Any, calibrated: Any, classes: ClassList
) -> None:
    logits = drawn(420)
    nobody_ill = reference_of(logits, np.zeros((420, 3), np.int64))
    certificate = certify_answers(nobody_ill, answers_of(logits), calibrated(), classes)

    assert certificate.figures.reference.challenge_score is None
    assert any("undefined" in miss for miss in certificate.misses)


@pytest.mark.parametrize(("patients", "within"), [(400, True), (399, False)])
def test_four_hundred_patients_are_needed(certify: Any, patients: int, within: bool) -> None:
    certificate = certify(patients=patients)

    assert certificate.within_limits is within
    if not within:
        assert certificate.misses == (
            "too few patients: 399 with both eyes, at least 400 are needed",
        )


def test_patients_with_one_eye_do_not_count_towards_them(
    drawn: Any, reference_of: Any, answers_of: Any, calibrated: Any, classes: ClassList
) -> None:
    logits = drawn(400)
    reference = reference_of(logits)
    reference.right.present[0] = False
    certificate = certify_answers(reference, answers_of(logits), calibrated(), classes)

    assert (certificate.patients.judged, certificate.patients.complete) == (400, 399)
    assert certificate.default.class_decisions.of == 1200
    assert certificate.default.referrals.of == 399
    assert certificate.eyes is not None
    assert certificate.eyes.eyes == 799
    assert not certificate.within_limits


def test_other_points_refuse_only_when_asked(certify: Any) -> None:
    perfect = certify()
    keen = replace(perfect.points["keen"], class_decisions=bounded(0.03))
    lax = replace(perfect, points={**perfect.points, "keen": keen})
    strict = replace(lax, limits=CertificateLimits(every_point=True))

    assert lax.within_limits
    assert lax.misses_at("keen")
    assert strict.misses == lax.misses_at("keen")


def test_eyes_without_labels_have_no_certificate_of_their_own(
    drawn: Any, reference_of: Any, answers_of: Any, calibrated: Any, classes: ClassList
) -> None:
    logits = drawn(50)
    fitted = replace(calibrated(), eyes=0)
    certificate = certify_answers(reference_of(logits), answers_of(logits + 1), fitted, classes)

    assert certificate.eyes is None
    assert certificate.eye_calibration is None
    assert Certificate.from_dict(certificate.to_dict()) == certificate


def test_the_worst_pair_is_named_by_its_place_in_the_list_of_ids(certify: Any) -> None:
    def change(logits: np.ndarray) -> np.ndarray:
        after = logits.copy()
        after[7, 1] = -np.sign(after[7, 1]) * 30
        return after

    ids = [f"patient-{row:03d}" for row in range(420)]
    certificate = certify(change, id_order=["another", *reversed(ids)])

    assert certificate.worst_pair.place == 1 + 419 - 7
    assert certificate.worst_pair.decisions_changed == ("D",)
    assert "patient-" not in json.dumps(certificate.to_dict())


def test_answers_for_other_patients_are_refused(
    drawn: Any, reference_of: Any, answers_of: Any, calibrated: Any, classes: ClassList
) -> None:
    with pytest.raises(ExportError, match="answered for 9 patients and the reference for 10"):
        certify_answers(reference_of(drawn(10)), answers_of(drawn(9)), calibrated(), classes)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(certify: Any, value: float) -> None:
    def change(logits: np.ndarray) -> np.ndarray:
        after = logits.copy()
        after[3, 0] = value
        return after

    with pytest.raises(ExportError, match="NaN or infinity"):
        certify(change)


def test_certificate_survives_its_json_form(certify: Any) -> None:
    layers = [
        LayerError("encoder", f"t{k}", "Conv", float(k), float(k) - 1) for k in range(100)
    ] + [LayerError("head", "exact", "Transpose", 200.0, 200.0)]
    certificate = certify(lambda logits: logits + 0.1, layer_errors=layers, resamples=50)
    plain = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))

    assert Certificate.from_dict(plain) == certificate
    assert len(certificate.layer_errors) == 40
    assert certificate.figures.score_difference_low is not None


def test_layer_that_overflows_is_a_miss(certify: Any) -> None:
    overflowing = LayerError("head", "squares", "Mul", OVERFLOW_DB, OVERFLOW_DB)
    certificate = certify(layer_errors=[overflowing])

    assert certificate.misses == ("head squares (Mul) answers infinity or NaN",)


def test_altered_verdict_is_refused(certify: Any) -> None:
    plain = certify(patients=100).to_dict()

    with pytest.raises(ExportError, match="it was altered"):
        Certificate.from_dict({**plain, "within_limits": True, "misses": []})


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain.pop("points"),
        lambda plain: plain.update(surplus=1),
        lambda plain: plain["patients"].update(judged="many"),
        lambda plain: plain["points"]["even"]["referrals"].update(high=None),
        lambda plain: plain["points"]["even"]["referrals"].update(count=1.5),
        lambda plain: plain.pop("within_limits"),
    ],
)
def test_malformed_certificate_is_refused(certify: Any, change: Any) -> None:
    plain = json.loads(json.dumps(certify().to_dict()))
    change(plain)

    with pytest.raises(ExportError, match="certify again"):
        Certificate.from_dict(plain)


def test_text_names_what_was_missed(certify: Any) -> None:
    noise = np.random.default_rng(5).normal(0, 0.5, (420, 3))
    bad = certify(lambda logits: logits + noise)
    text = text_of_certificates([certify(), bad])

    assert "NOT WITHIN LIMITS" in text
    assert all(f"missed: {miss}" in text for miss in bad.misses)
    assert "keen" in text
