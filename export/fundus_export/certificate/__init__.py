"""The parity certificate: how often a dialect decides otherwise than the validated model."""

from __future__ import annotations

from fundus_export.certificate.answers import (
    DialectAnswers,
    ValidationPatients,
    answers_of_backend,
    reference_answers,
)
from fundus_export.certificate.certificate import Certificate, Subject
from fundus_export.certificate.certify import certify_answers, certify_backend
from fundus_export.certificate.dialects import onnxruntime_in_words, open_on_cpu
from fundus_export.certificate.evidence import Evidence, gather_evidence
from fundus_export.certificate.layer_errors import LayerError, measure_layer_errors
from fundus_export.certificate.limits import CertificateLimits

__all__ = [
    "Certificate",
    "CertificateLimits",
    "DialectAnswers",
    "Evidence",
    "LayerError",
    "Subject",
    "ValidationPatients",
    "answers_of_backend",
    "certify_answers",
    "certify_backend",
    "gather_evidence",
    "measure_layer_errors",
    "onnxruntime_in_words",
    "open_on_cpu",
    "reference_answers",
]
