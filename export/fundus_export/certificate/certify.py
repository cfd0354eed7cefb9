"""Makes a certificate of answers: refit, count, compare.

`certify_answers` computes alone, in a fraction of a second, so that a search may call it often. A
search that chooses among many candidates by the very counts that then certify the chosen one
flatters it a little: the bounds are those of one look. Rank the candidates by other photographs
and keep the looks few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fundus_export.certificate.agreement import Judged, agreement_at
from fundus_export.certificate.answers import DialectAnswers, answers_of_backend
from fundus_export.certificate.bounds import share_of_clusters
from fundus_export.certificate.certificate import (
    Certificate,
    EyeAgreement,
    JudgedPatients,
    RefittedCalibration,
    Subject,
    WorstPair,
)
from fundus_export.certificate.evidence import Evidence
from fundus_export.certificate.figures import ComparedFigures
from fundus_export.certificate.halves import Halves, cross_fitted, ids_sha256, split_in_halves
from fundus_export.certificate.layer_errors import CEILING_DB, LayerError
from fundus_export.certificate.limits import CertificateLimits
from fundus_export.certificate.refit import needs_refit, refit_to_reference
from fundus_export.errors import ExportError
from fundus_runtime.backends.protocol import Backend
from fundus_runtime.calibration import Calibration
from fundus_runtime.labels import EYES, ClassList
from fundus_training.calibrate import FittedCalibration
from fundus_training.metrics import called_at, expected_calibration_error
from fundus_training.predict import Predictions

__all__ = ["LAYERS_KEPT", "certify_answers", "certify_backend"]

LAYERS_KEPT = 40

Probabilities = npt.NDArray[np.float32]


def certify_backend(
    backend: Backend,
    evidence: Evidence,
    subject: Subject,
    *,
    limits: CertificateLimits | None = None,
    seed: int = 0,
    layer_errors: Sequence[LayerError] = (),
    resamples: int = 0,
    progress: bool = True,
) -> Certificate:
    """Ask an engine about all patients of the evidence, and certify what it answers.

    Args:
        backend: holds the dialect.
        evidence: patients and what the reference says of them.
        subject: what runs there.
        limits: by default those of `CertificateLimits`.
        seed: of the two halves and the resamples.
        layer_errors: of `measure_layer_errors`, if they were measured.
        resamples: for the interval of the challenge score's difference; 0 for none.
        progress: show a progress bar on stderr.

    Raises:
        EngineError: the engine failed or answered NaN or infinity.
    """
    answers = answers_of_backend(
        backend, evidence.patients, progress=progress, what=subject.dialect
    )
    return certify_answers(
        evidence.reference,
        answers,
        evidence.fitted,
        evidence.classes,
        subject=subject,
        limits=limits,
        seed=seed,
        layer_errors=layer_errors,
        resamples=resamples,
        split=evidence.split,
        id_order=evidence.ids,
    )


def certify_answers(
    reference: Predictions,
    dialect: DialectAnswers,
    fitted: FittedCalibration,
    classes: ClassList,
    *,
    subject: Subject | None = None,
    limits: CertificateLimits | None = None,
    seed: int = 0,
    layer_errors: Sequence[LayerError] = (),
    resamples: int = 0,
    split: str = "val",
    id_order: Sequence[str] | None = None,
) -> Certificate:
    """Certify a dialect by its answers.

    Args:
        reference: what the PyTorch model says of the patients.
        dialect: what the dialect says of the same.
        fitted: the checkpoint's calibration and operating points, as they were validated.
        classes: the K classes.
        subject: what answered.
        limits: by default those of `CertificateLimits`.
        seed: of the two halves and the resamples.
        layer_errors: of `measure_layer_errors`; the worst are kept.
        resamples: for the interval of the challenge score's difference; 0 for none.
        split: part of the checkpoint's split that the patients are.
        id_order: the ids of that part, for the place of the worst pair; by default the reference's.

    Raises:
        ExportError: other patients than the reference's, fewer than two, or NaN among the logits.
    """
    _require_comparable(reference, dialect)
    halves = split_in_halves(reference.ids, reference.labels, seed=seed)
    judged, patient = _judged(reference, dialect, fitted, halves)
    eye, eyes = _eyes(reference, dialect, fitted, halves) if fitted.eyes else (None, None)
    return Certificate(
        subject=subject or Subject("unnamed"),
        patients=JudgedPatients(
            split=split,
            judged=len(reference),
            complete=int(reference.complete.sum()),
            without_gradable_eye=len(reference.left_out),
            ids_sha256=ids_sha256(reference.ids),
            halves_seed=seed,
            first_half_sha256=halves.first_sha256,
        ),
        limits=limits or CertificateLimits(),
        default_point=fitted.points.default,
        thresholds={point.name: point.threshold_of for point in fitted.points.points},
        points={point.name: agreement_at(point, judged, classes) for point in fitted.points.points},
        figures=ComparedFigures.of(
            reference.labels,
            judged.reference,
            judged.dialect,
            classes.letters,
            resamples=resamples,
            seed=seed,
        ),
        eyes=eyes,
        worst_pair=_worst_pair(judged, fitted, reference.ids, id_order or reference.ids),
        refit=RefittedCalibration(
            patient is fitted.patient and eye in (None, fitted.eye), patient, eye
        ),
        layer_errors=tuple(one for one in layer_errors if one.own_db < CEILING_DB)[:LAYERS_KEPT],
    )


def _require_comparable(reference: Predictions, dialect: DialectAnswers) -> None:
    if dialect.ids != reference.ids:
        raise ExportError(
            f"the dialect answered for {len(dialect.ids)} patients and the reference for "
            f"{len(reference.ids)}, or in another order; ask both about the same patients"
        )
    present = [np.isfinite(dialect.logits)]
    for eye in EYES:
        # all eyes that are there, or none where the model says nothing of an eye alone
        answered = np.isfinite(reference.eye(eye).logits).all(axis=1)
        present.append(np.isfinite(dialect.eye(eye)[answered]))
    if not all(bool(finite.all()) for finite in present):
        raise ExportError(
            "the dialect answers NaN or infinity, so that nothing can be decided with it; export "
            "it again, with the layers that overflow in higher precision"
        )


def _judged(
    reference: Predictions,
    dialect: DialectAnswers,
    fitted: FittedCalibration,
    halves: Halves,
) -> tuple[Judged, Calibration]:
    """Both models' probabilities, and the dialect's calibration to ship."""
    owner = np.arange(len(reference))
    after, shipped = _calibrated(reference.logits, dialect.logits, fitted.patient, halves, owner)
    judged = Judged(fitted.patient.apply(reference.logits), after, reference.complete)
    return judged, shipped


def _calibrated(
    reference: Probabilities,
    dialect: Probabilities,
    calibration: Calibration,
    halves: Halves,
    owner: npt.NDArray[np.int64],
) -> tuple[Probabilities, Calibration]:
    """The dialect's M×K probabilities, no row by its own fit, and the calibration from all rows."""
    if not needs_refit(reference, dialect, calibration):
        return calibration.apply(dialect), calibration

    def fit_and_apply(
        fit: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        return refit_to_reference(dialect[fit], reference[fit], calibration).apply(dialect[rows])

    after = cross_fitted(halves, owner, fit_and_apply)
    return after, refit_to_reference(dialect, reference, calibration)


def _eyes(
    reference: Predictions,
    dialect: DialectAnswers,
    fitted: FittedCalibration,
    halves: Halves,
) -> tuple[Calibration, EyeAgreement]:
    present = {eye: np.flatnonzero(reference.eye(eye).present) for eye in EYES}
    owner = np.concatenate([present[eye] for eye in EYES])
    logits, came, labels, labelled = (
        np.concatenate([side(eye)[present[eye]] for eye in EYES])
        for side in (
            lambda eye: reference.eye(eye).logits,
            dialect.eye,
            lambda eye: reference.eye(eye).labels,
            lambda eye: reference.eye(eye).labelled,
        )
    )
    before = fitted.eye.apply(logits)
    after, shipped = _calibrated(logits, came, fitted.eye, halves, owner)
    thresholds = fitted.eye_points.get().thresholds
    changed = called_at(before, thresholds) != called_at(after, thresholds)
    errors = [
        expected_calibration_error(labels[labelled], p[labelled]) if labelled.any() else None
        for p in (after, before)
    ]
    agreement = EyeAgreement(
        eyes=len(owner),
        class_decisions=share_of_clusters(changed, owner),
        largest_difference=float(np.abs(before - after).max()),
        calibration_error=errors[0],
        reference_calibration_error=errors[1],
    )
    return shipped, agreement


def _worst_pair(
    judged: Judged, fitted: FittedCalibration, ids: Sequence[str], id_order: Sequence[str]
) -> WorstPair:
    difference = np.abs(judged.reference - judged.dialect)
    row, column = divmod(int(difference.argmax()), difference.shape[1])
    point = fitted.points.get()
    changed = called_at(judged.reference[row], point.thresholds) != called_at(
        judged.dialect[row], point.thresholds
    )
    return WorstPair(
        place=list(id_order).index(ids[row]),
        letter=point.letters[column],
        reference=float(judged.reference[row, column]),
        dialect=float(judged.dialect[row, column]),
        decisions_changed=tuple(np.array(point.letters)[changed].tolist()),
    )
