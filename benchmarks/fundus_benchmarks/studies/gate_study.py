"""What the gates say of real eyes: measured once, then asked many questions.

Eyes come from a data folder with `eyepacs/` (graded good, usable, reject) and `odir/` (which eye is
in the file's name). Patients stay together in every split.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from fundus_runtime.errors import UngradableError
from fundus_runtime.gates import GateThresholds, GateVerdict
from fundus_runtime.gates.figures import quality_features
from fundus_runtime.gates.laterality import side_features
from fundus_runtime.gates.native import measure
from fundus_runtime.gates.readings import GateReadings
from fundus_runtime.gates.verdict import verdict_of
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import FieldOfView, NativePreprocessor, PreprocessSpec

__all__ = [
    "Eye",
    "cross_validated_quality",
    "fit_quality",
    "fit_side",
    "graded_eyes",
    "held_out_side",
    "interval_95",
    "measured",
    "odir_eyes",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FOLDS = 10
_HELD_OUT = 5  # every fifth patient id of ODIR
_SIDE_PENALTY = 0.01
# of the reject eyes of the training folds; the default bound was set so, too
_REFUSED_REJECT = 0.9


@dataclass(frozen=True, eq=False)
class Eye:
    """One eye's photograph as the gates see it; no readings where the field of view was refused."""

    patient: str
    side: str
    label: str
    readings: GateReadings | None
    field_of_view: FieldOfView | None
    reason: str | None

    def verdict(self, thresholds: GateThresholds) -> GateVerdict | None:
        """What the gates say; None where the field of view was refused."""
        if self.readings is None or self.field_of_view is None:
            return None
        return verdict_of(self.readings, self.field_of_view, thresholds, declared_eye=None)

    def refusal(self, thresholds: GateThresholds) -> str | None:
        """The reason why it is refused, None where it is not."""
        verdict = self.verdict(thresholds)
        return self.reason if verdict is None else verdict.reason


def graded_eyes(data: Path) -> list[Eye]:
    """The eyes of EyePACS that carry a quality grade."""
    with (data / "eyepacs" / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    named = [
        (data / "eyepacs" / f"{row['patient']}_{side}.jpg", row["patient"], side, grade)
        for row in rows
        for side in ("left", "right")
        if (grade := row[f"{side}_quality_eyeq"])
    ]
    return list(measured(named, "graded eyes"))


def odir_eyes(data: Path) -> list[Eye]:
    """Every eye of ODIR, labelled with its diagnostic keywords."""
    with (data / "odir" / "annotations.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    named = [
        (data / "odir" / "images" / row[f"{name}-Fundus"], row["ID"], name.lower(), row[key])
        for row in rows
        for name in ("Left", "Right")
        if (key := f"{name}-Diagnostic Keywords")
    ]
    return list(measured(named, "ODIR"))


def measured(named: Sequence[tuple[Path, str, str, str]], what: str) -> Iterator[Eye]:
    """Read and measure photographs: (file, patient, side, label)."""
    finder = NativePreprocessor(PreprocessSpec(size=32))
    for path, patient, side, label in tqdm(named, desc=what, unit="eye"):
        frame = read_photograph(path)
        try:
            field = finder.crop(frame, color="rgb").field_of_view
        except UngradableError as error:
            yield Eye(patient, side, label, None, None, error.reason)
            continue
        yield Eye(patient, side, label, measure(frame, field, color="rgb"), field, None)


def fit_quality(eyes: Iterable[Eye]) -> tuple[Floats, float]:
    """Weights and constant of the log odds that an eye is not graded reject."""
    seen = [eye for eye in eyes if eye.readings is not None]
    features = np.array([quality_features(e.readings) for e in seen if e.readings is not None])
    model = LogisticRegression(C=1e4, max_iter=1000)
    model.fit(features, [eye.label != "reject" for eye in seen])
    return model.coef_[0], float(model.intercept_[0])


@dataclass(frozen=True)
class QualityStudy:
    """Of eyes that neither weights nor bound were fitted on.

    Attributes:
        auc: reject against the rest, the mean over seeds.
        refused: share refused, by grade, where the bound refuses 90 % of training's rejects.
    """

    auc: float
    refused: dict[str, float]


def cross_validated_quality(eyes: Sequence[Eye], *, seeds: int = 5) -> QualityStudy:
    """Ten folds of patients; eyes without a field of view count as refused, at the worst score."""
    grades = np.array([eye.label for eye in eyes])
    aucs, refusals = [], []
    for seed in range(seeds):
        score, refused = _one_cross_validation(eyes, np.random.default_rng(seed))
        aucs.append(roc_auc_score(grades == "reject", -score))
        refusals.append([refused[grades == g].mean() for g in ("good", "usable", "reject")])
    means = np.mean(refusals, axis=0)
    named = zip(("good", "usable", "reject"), means.tolist(), strict=True)
    return QualityStudy(float(np.mean(aucs)), dict(named))


def _one_cross_validation(eyes: Sequence[Eye], rng: np.random.Generator) -> tuple[Floats, Bools]:
    patients = sorted({eye.patient for eye in eyes})
    rng.shuffle(patients)
    fold_of = {patient: k % _FOLDS for k, patient in enumerate(patients)}
    fold = np.array([fold_of[eye.patient] for eye in eyes])
    score, refused = np.full(len(eyes), -1e3), np.ones(len(eyes), np.bool_)
    for k in range(_FOLDS):
        training = [eye for eye, f in zip(eyes, fold, strict=True) if f != k]
        weights, constant = fit_quality(training)
        bound = np.quantile(
            [_score(e, weights, constant) for e in training if e.label == "reject"],
            _REFUSED_REJECT,
        )
        for i in np.flatnonzero(fold == k).tolist():
            score[i] = _score(eyes[i], weights, constant)
            refused[i] = score[i] < bound
    return score, refused


def _score(eye: Eye, weights: Floats, constant: float) -> float:
    if eye.readings is None:
        return -1e3
    return float(np.array(quality_features(eye.readings)) @ weights) + constant


def held_out_side(eye: Eye) -> bool:
    """Whether the side's classifier may not be fitted on an eye of ODIR."""
    return int(eye.patient) % _HELD_OUT == 0


def fit_side(eyes: Iterable[Eye]) -> Floats:
    """Weights of the side's classifier: every photograph counts with its mirror image."""
    seen = [eye for eye in eyes if eye.readings is not None]
    features = np.array([side_features(e.readings) for e in seen if e.readings is not None])
    left = np.array([eye.side == "left" for eye in seen])
    model = LogisticRegression(C=_SIDE_PENALTY, fit_intercept=False, max_iter=1000)
    model.fit(np.concatenate([features, -features]), np.concatenate([left, ~left]))
    weights: Floats = model.coef_[0]
    return weights


def interval_95(hits: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a share."""
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return float(middle - reach), float(middle + reach)
