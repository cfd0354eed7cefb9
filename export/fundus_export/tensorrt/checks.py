"""What plans answer: the bundle's golden pairs, and the patients of a certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fundus_export.errors import ExportError
from fundus_runtime.backends.protocol import Backend
from fundus_runtime.bundle import Bundle
from fundus_runtime.golden import GoldenReport, check_golden
from fundus_runtime.manifest import GraphPair
from fundus_runtime.screener import Screener

__all__ = ["Certify", "answer_golden_pairs", "prepare_certificate"]

Certify = Callable[[Backend], Mapping[str, Any]]

_SHOWN = 8


def answer_golden_pairs(bundle: Bundle, pair: GraphPair, backend: Backend) -> GoldenReport:
    """Screen the golden pairs on the engine.

    Raises:
        ExportError: there are none, or one is answered otherwise than recorded.
        EngineError: the engine failed.
    """
    point = bundle.manifest.operating_points.get()
    report = check_golden(bundle, screener=Screener(bundle, backend, pair, point))
    if report is None:
        raise ExportError(
            f"bundle {bundle.path} carries no golden pairs, so that nothing shows what the plans "
            "answer; export it again"
        )
    if not report.passed:
        raise ExportError(
            f"the engine answers {len(report.wrong)} of {report.pairs} golden pairs otherwise than "
            f"the validated model: {', '.join(report.wrong[:_SHOWN])}; a probability differs by "
            f"{report.largest_difference:.1e}, allowed are {report.tolerance:.1e}. The plans are "
            "not kept; build with a wider precision"
        )
    return report


def prepare_certificate(
    bundle: Bundle, pair: GraphPair, data: Path, *, cache_dir: Path | None = None
) -> Certify:
    """Ask the PyTorch model about the validation patients now, and the engine once it is built.

    Everything that can be wrong with the data is found before a build of many minutes. This is
    the one place of the engine's way that needs torch.

    Raises:
        FundusError: bundle, checkpoint and data do not belong together, or patients were seen.
    """
    from fundus_export.certificate import Subject, certify_backend, gather_evidence
    from fundus_export.certificate.evidence import (
        CHECKPOINT_NAME,
        calibration_photographs,
        load_bundle_checkpoint,
    )

    manifest = bundle.manifest
    checkpoint = load_bundle_checkpoint(bundle, bundle.file(CHECKPOINT_NAME))
    evidence = gather_evidence(
        checkpoint,
        data,
        calibrated_on=calibration_photographs(bundle, [pair.name]),
        cache_dir=cache_dir,
    )

    def certify(backend: Backend) -> Mapping[str, Any]:
        subject = Subject(
            dialect=pair.dialect,
            provider=backend.provider,
            engine=backend.name,
            encoder_sha256=manifest.files[pair.encoder].sha256,
            head_sha256=manifest.files[pair.head].sha256,
            checkpoint_sha256=manifest.files[CHECKPOINT_NAME].sha256,
            preprocess_sha256=manifest.spec.sha256,
        )
        certificate = certify_backend(backend, evidence, subject)
        if not certificate.within_limits:
            raise ExportError(
                f"the engine misses the certificate's limits: {'; '.join(certificate.misses)}. The "
                "plans are not kept; build with a wider precision, or make the bundle again with "
                "more layers raised"
            )
        return certificate.to_dict()

    return certify
