"""How well a model finds referable diabetic retinopathy on graded pairs of another camera.

Positive is a DR grade of 2 or more. The per-eye output of the diabetic class is judged against each
eye's grade, the bilateral output against the worse eye's. Areas do not depend on calibration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fundus_runtime.labels import EYES, ClassList, Eye
from fundus_training.data.grades import GradedPair, Quality
from fundus_training.data.records import PatientRecord
from fundus_training.errors import DataError
from fundus_training.figures import Resampling, auc_figure
from fundus_training.predict import Predictions

__all__ = ["DIABETIC", "REFERABLE_GRADE", "evaluate_grades", "records_from_grades"]

DIABETIC = "D"
REFERABLE_GRADE = 2

Array = npt.NDArray[Any]

# From best to worst: a patient's quality is that of the worse eye.
_QUALITIES: tuple[Quality, ...] = ("good", "usable", "reject")


@dataclass(frozen=True)
class _Case:
    """One eye or patient: the index of its patient, truth, score and quality where known."""

    patient: int
    referable: bool
    score: float
    quality: Quality | None


def records_from_grades(pairs: Sequence[GradedPair], classes: ClassList) -> list[PatientRecord]:
    """The pairs as records without labels of their own, to predict on."""
    unknown = (0,) * len(classes)
    return [PatientRecord(pair.id, pair.left, pair.right, unknown) for pair in pairs]


def evaluate_grades(
    predictions: Predictions,
    pairs: Sequence[GradedPair],
    classes: ClassList,
    *,
    resampling: Resampling | None = None,
) -> dict[str, Any]:
    """AUC of the diabetic class for a grade of 2 or more, per eye and per patient.

    Args:
        predictions: of `records_from_grades(pairs)`.
        pairs: grades and qualities.
        classes: the model's classes.
        resampling: how intervals are made; by default 1000 resamples of patients.

    Raises:
        DataError: the model has no diabetic class.
    """
    if DIABETIC not in classes.letters:
        raise DataError(
            f"DR grades need a class {DIABETIC!r} but the model has {' '.join(classes.letters)}; "
            "evaluate it on a data set of its own classes"
        )
    chosen = resampling or Resampling()
    column = classes.letters.index(DIABETIC)
    graded = {pair.id: pair for pair in pairs}
    ordered = [graded[patient] for patient in predictions.ids]
    eyes = list(_eye_cases(predictions, ordered, column))
    patients = list(_patient_cases(predictions, ordered, column))
    return {
        "class": DIABETIC,
        "positive": f"DR grade {REFERABLE_GRADE} or more",
        "data": _data(predictions, pairs),
        "bootstrap": {"resamples": chosen.resamples, "seed": chosen.seed, "level": 0.95},
        "eye": _by_quality(eyes, len(ordered), chosen) if eyes else None,
        "patient": _by_quality(patients, len(ordered), chosen),
    }


def _data(predictions: Predictions, pairs: Sequence[GradedPair]) -> dict[str, Any]:
    place = {patient: row for row, patient in enumerate(predictions.ids)}

    def is_gradable(pair: GradedPair, eye: Eye) -> bool:
        return pair.id in place and bool(predictions.eye(eye).present[place[pair.id]])

    refused = [
        _quality(pair, eye) or "unknown"
        for pair in pairs
        for eye in EYES
        if not is_gradable(pair, eye)
    ]
    return {
        "patients": len(pairs),
        "eyes": 2 * len(pairs),
        "ungradable_eyes": len(refused),
        "ungradable_eyes_by_quality": dict(sorted(Counter(refused).items())),
        "patients_without_gradable_eye": len(predictions.left_out),
    }


def _eye_cases(
    predictions: Predictions, pairs: Sequence[GradedPair], column: int
) -> Iterator[_Case]:
    for eye in EYES:
        scores = predictions.eye(eye).logits[:, column]
        for row in np.flatnonzero(np.isfinite(scores)).tolist():
            grade = pairs[row].left_grade if eye == "left" else pairs[row].right_grade
            quality = _quality(pairs[row], eye)
            yield _Case(row, grade >= REFERABLE_GRADE, float(scores[row]), quality)


def _patient_cases(
    predictions: Predictions, pairs: Sequence[GradedPair], column: int
) -> Iterator[_Case]:
    for row, pair in enumerate(pairs):
        score = float(predictions.logits[row, column])
        yield _Case(row, pair.grade >= REFERABLE_GRADE, score, _worse_quality(pair))


def _quality(pair: GradedPair, eye: Eye) -> Quality | None:
    return pair.left_quality if eye == "left" else pair.right_quality


def _worse_quality(pair: GradedPair) -> Quality | None:
    if pair.left_quality is None or pair.right_quality is None:
        return None
    return max(pair.left_quality, pair.right_quality, key=_QUALITIES.index)


def _by_quality(cases: Sequence[_Case], patients: int, resampling: Resampling) -> dict[str, Any]:
    groups = {
        quality or "unknown": [case for case in cases if case.quality == quality]
        for quality in (*_QUALITIES, None)
    }
    return {
        **_area(cases, patients, resampling),
        "by_quality": {
            name: _area(group, patients, resampling) for name, group in groups.items() if group
        },
    }


def _area(cases: Sequence[_Case], patients: int, resampling: Resampling) -> dict[str, Any]:
    referable = np.array([case.referable for case in cases])
    scores = np.array([case.score for case in cases])
    owner = np.array([case.patient for case in cases])
    return {
        "cases": len(cases),
        "positives": int(referable.sum()),
        "auc": auc_figure(referable, scores, owner, patients, resampling),
    }
