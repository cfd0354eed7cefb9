"""Certifies every form of a bundle on every engine at hand, or reads the recorded certificates."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from fundus_benchmarks.contenders.engines_at_hand import (
    Missing,
    cpu_engines,
    gpu_engines,
    unasked_gpu_engines,
)
from fundus_benchmarks.faithfulness.rows import Row, certified_row, recorded_rows
from fundus_export.certificate import Evidence, answers_of_backend, gather_evidence
from fundus_export.certificate.evidence import (
    CHECKPOINT_NAME,
    calibration_photographs,
    load_bundle_checkpoint,
)
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import FundusError
from fundus_training.checkpoint import Checkpoint

__all__ = ["NO_DATA", "certify_bundle"]

NO_DATA = "no data at hand: give --data DIR, or set FUNDUS_DATA to a folder that holds odir/"

_LOG = logging.getLogger(__name__)


def certify_bundle(
    bundle: Bundle,
    data: Path | None,
    *,
    patients: int | None = None,
    cache_dir: Path | None = None,
) -> tuple[list[Row], Missing]:
    """The rows of one bundle, and what could not be measured.

    Args:
        bundle: with the checkpoint that it was exported from.
        data: the data set that this was trained on; None for the recorded certificates alone.
        patients: so many of the validation patients, spread evenly; None for all.
        cache_dir: where prepared photographs are kept.

    Raises:
        ExportError: a recorded certificate was altered.
    """
    what = f"{bundle.manifest.name} on validation patients"
    if data is None:
        unasked = unasked_gpu_engines(bundle, NO_DATA)
        return recorded_rows(bundle), [{"what": what, "why": NO_DATA}, *unasked]
    missing: Missing = []
    measured: dict[str, list[Row]] = {}
    try:
        evidence = _evidence(bundle, data, patients, cache_dir)
        for form, row in _certified(bundle, evidence, missing):
            measured.setdefault(form, []).append(row)
    except FundusError as error:
        missing.append({"what": what, "why": str(error)})
    rows = [row for of_form in measured.values() for row in of_form]
    return [*rows, *recorded_rows(bundle, but=measured)], missing


def _evidence(bundle: Bundle, data: Path, patients: int | None, cache_dir: Path | None) -> Evidence:
    """The patients, and what the PyTorch model says of them."""
    checkpoint = load_bundle_checkpoint(bundle, bundle.file(CHECKPOINT_NAME))
    seen = calibration_photographs(bundle, list(bundle.manifest.graphs))
    _LOG.info("%s: asking the PyTorch model", bundle.manifest.name)
    return gather_evidence(
        checkpoint if patients is None else _with_fewer(checkpoint, patients),
        data,
        calibrated_on=seen,
        cache_dir=cache_dir,
    )


def _with_fewer(checkpoint: Checkpoint, patients: int) -> Checkpoint:
    """The checkpoint with so many of its validation patients, spread evenly over their ids."""
    ids = checkpoint.split.val
    count = min(patients, len(ids))
    chosen = tuple(ids[(2 * k + 1) * len(ids) // (2 * count)] for k in range(count))
    return replace(checkpoint, split=replace(checkpoint.split, val=chosen))


def _certified(bundle: Bundle, evidence: Evidence, missing: Missing) -> Iterator[tuple[str, Row]]:
    """Rows by the name of the form."""
    for engine in chain(cpu_engines(bundle), gpu_engines(bundle, missing)):
        what = f"{engine.graphs.name}, {engine.name}, {engine.provider}"
        answers = answers_of_backend(engine.backend, evidence.patients, what=what)
        yield engine.graphs.name, certified_row(bundle, engine, evidence, answers)
