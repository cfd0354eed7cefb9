"""Rows of the `faithfulness` part: the export's certificates, measured here or recorded.

Shares and bounds are those at the bundle's default operating point. A row with `source` "bundle" is
the certificate that the bundle's manifest records, of the machine that exported it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_benchmarks.contenders.engines_at_hand import EngineAtHand
from fundus_export.certificate import Certificate, DialectAnswers, Evidence
from fundus_export.certificate.certify import certify_answers
from fundus_export.certificate.dialects import subject_of
from fundus_runtime.bundle import Bundle
from fundus_runtime.manifest import GraphPair
from fundus_training.metrics import CALIBRATION_BINS, bin_of_probability

__all__ = ["certified_row", "recorded_rows", "reliability"]

Row = dict[str, Any]

_RESAMPLES = 1000


def certified_row(
    bundle: Bundle, engine: EngineAtHand, evidence: Evidence, answers: DialectAnswers
) -> Row:
    """Certify what an engine answered on the patients of the evidence.

    Args:
        bundle: whose form the engine holds.
        engine: that answered.
        evidence: patients, and what the reference says of them.
        answers: of the engine, on the same patients.

    Raises:
        ExportError: the answers are of other patients, or of fewer than two.
    """
    certificate = certify_answers(
        evidence.reference,
        answers,
        evidence.fitted,
        evidence.classes,
        subject=subject_of(
            bundle, engine.graphs, provider=engine.executed_by, engine=engine.engine
        ),
        resamples=_RESAMPLES,
        split=evidence.split,
        id_order=evidence.ids,
    )
    labels = evidence.reference.labels
    curves = {
        # with the calibration that ships, which the patients' other half has not judged
        "reliability": reliability(labels, certificate.calibration.apply(answers.logits)),
        "reliability_reference": reliability(
            labels, evidence.fitted.patient.apply(evidence.reference.logits)
        ),
    }
    where = {"backend": engine.name, "provider": engine.provider, "precision": engine.precision}
    return _row(bundle, engine.graphs, certificate, "measured") | where | curves


def recorded_rows(bundle: Bundle, but: Iterable[str] = ()) -> list[Row]:
    """The certificates that the manifest records.

    Args:
        bundle: open.
        but: names of forms that need none.

    Raises:
        ExportError: a certificate was altered, or written by another version.
    """
    recorded: Mapping[str, Any] = bundle.manifest.reported.get("certificates", {})
    left_out = set(but)
    return [
        _row(bundle, bundle.manifest.graphs[name], Certificate.from_dict(values), "bundle")
        for name, values in recorded.items()
        if name not in left_out
    ]


def reliability(labels: NDArray[Any], probabilities: NDArray[Any]) -> list[dict[str, float]]:
    """How often what is said to be so likely is true, in the bins of the calibration error.

    Args:
        labels: N×K zeros and ones.
        probabilities: N×K.

    Returns:
        For each bin that is not empty: mean `probability`, `share` of positives, `count`.
    """
    truth, said = (np.ravel(values).astype(np.float64) for values in (labels, probabilities))
    place = bin_of_probability(said)
    count, total, positive = (
        np.bincount(place, weights=weights, minlength=CALIBRATION_BINS)
        for weights in (None, said, truth)
    )
    return [
        {
            "probability": float(total[k] / count[k]),
            "share": float(positive[k] / count[k]),
            "count": int(count[k]),
        }
        for k in np.flatnonzero(count)
    ]


def _row(bundle: Bundle, graphs: GraphPair, certificate: Certificate, source: str) -> Row:
    """What a certificate says; by default of ONNX Runtime on the CPU, where exports certify."""
    point, figures, plain = certificate.default, certificate.figures, certificate.to_dict()
    decisions, referrals = point.class_decisions, point.referrals
    return {
        "model": bundle.manifest.name,
        "dialect": graphs.dialect,
        "precision": graphs.precision,
        "backend": "onnxruntime",
        "provider": "cpu",
        "engine": certificate.subject.engine,
        "executed_by": certificate.subject.provider,
        "operating_point": certificate.default_point,
        "split": certificate.patients.split,
        "patients": certificate.patients.judged,
        "flips": decisions.count,
        "decisions": decisions.of,
        "flip_share": decisions.share,
        "flip_lower": decisions.low,
        "flip_upper": decisions.high,
        "refer_flips": referrals.count,
        "refer_decisions": referrals.of,
        "refer_share": referrals.share,
        "refer_lower": referrals.low,
        "refer_upper": referrals.high,
        "score": figures.dialect.challenge_score,
        "score_reference": figures.reference.challenge_score,
        "score_difference": figures.difference.challenge_score,
        "score_difference_lower": figures.score_difference_low,
        "score_difference_upper": figures.score_difference_high,
        "auc": dict(figures.dialect.auc_per_class),
        "auc_reference": dict(figures.reference.auc_per_class),
        "calibration_error": figures.dialect.calibration_error,
        "calibration_error_reference": figures.reference.calibration_error,
        "reliability": None,
        "reliability_reference": None,
        "passed": certificate.within_limits,
        "misses": list(certificate.misses),
        "limits": plain["limits"],
        "source": source,
    }
