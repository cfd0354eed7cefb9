"""What plans answer: the bundle's golden pairs, and the patients of a certificate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fundus_export.errors import ExportError
from fundus_runtime.backends.protocol import Backend
from fundus_runtime.bundle import Bundle
from fundus_runtime.golden import GoldenReport, check_golden
from fundus_runtime.manifest import GraphPair
from fundus_runtime.screener import Screener

__all__ = [
    "GOLDEN_PAIRS_AT_LEAST",
    "Certify",
    "answer_golden_pairs",
    "prepare_certificate",
    "require_golden_pairs",
]

Certify = Callable[[Backend], Mapping[str, Any]]

# Without a certificate they are all that shows what the plans answer.
GOLDEN_PAIRS_AT_LEAST = 32

_SHOWN = 8


def require_golden_pairs(bundle: Bundle, pair: GraphPair) -> int:
    """Check, before anything is built, that the bundle can show what the plans answer.

    Args:
        bundle: verified.
        pair: the form that is to be built.

    Returns:
        How many different golden pairs there are; the same two pictures count once.

    Raises:
        ExportError: there are too few, none with this form's answers, or they are malformed.
    """
    entry = bundle.manifest.reported.get("golden")
    found = 0 if entry is None else _different_golden_pairs(bundle, pair, entry)
    if found < GOLDEN_PAIRS_AT_LEAST:
        raise ExportError(
            f"bundle {bundle.path} carries {found} different golden pairs, expected at "
            f"least {GOLDEN_PAIRS_AT_LEAST}: fewer do not show what the plans answer; export the "
            "bundle again"
        )
    return found


def _different_golden_pairs(bundle: Bundle, pair: GraphPair, entry: Any) -> int:
    """How many there are by their pictures' hashes."""
    files = bundle.manifest.files
    try:
        values = json.loads(bundle.file(entry["answers"]).read_bytes())
        pairs, answers = values["pairs"], values["answers"]
        different = {(files[eyes["left"]].sha256, files[eyes["right"]].sha256) for eyes in pairs}
        recorded = len(answers[pair.name]["logits"]) if pair.name in answers else None
        if recorded not in (None, len(pairs)):
            raise ValueError(f"{len(pairs)} pairs, but {recorded} answers")
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{bundle.path}: the golden pairs are malformed ({error!r}); export the bundle again"
        ) from error
    if recorded is None:
        raise ExportError(
            f"bundle {bundle.path} has golden answers of {', '.join(sorted(answers))}, none of "
            f"{pair.name}, which is to be built; export it again"
        )
    return len(different)


def answer_golden_pairs(bundle: Bundle, pair: GraphPair, backend: Backend) -> GoldenReport:
    """Screen the golden pairs on the engine.

    Raises:
        ExportError: there are too few, or one is answered otherwise than recorded.
        BundleError: the golden answers are malformed.
        EngineError: the engine failed.
    """
    require_golden_pairs(bundle, pair)
    point = bundle.manifest.operating_points.get()
    report = check_golden(bundle, screener=Screener(bundle, backend, pair, point))
    if report is None:  # of a bundle with golden pairs there is one
        raise ExportError(f"bundle {bundle.path} carries no golden pairs; export it again")
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
