"""Evidence: the patients that a certificate may be judged on, and what the reference says of them.

Admitted are patients of the checkpoint's own validation (or test) ids. Refused are the training's,
anybody who shares a photograph with the training or with the quantiser's calibration, byte for
byte, and a checkpoint that is not the bundle's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from fundus_export.bundle_files import CHECKPOINT_NAME, RECIPE_NAME
from fundus_export.certificate.answers import ValidationPatients, reference_answers
from fundus_export.errors import ExportError
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_of_file
from fundus_runtime.labels import EYES, ClassList
from fundus_training.calibrate import FittedCalibration
from fundus_training.checkpoint import Checkpoint, load_checkpoint
from fundus_training.commands.inputs import load_matching_records, part_of_records
from fundus_training.data.records import PatientRecord, RecordSet
from fundus_training.predict import Predictions

__all__ = [
    "CHECKPOINT_NAME",
    "RECIPE_NAME",
    "Evidence",
    "calibration_photographs",
    "gather_evidence",
    "load_bundle_checkpoint",
]


@dataclass(frozen=True)
class Evidence:
    """What dialects of one checkpoint are judged by.

    Attributes:
        patients: with their photographs.
        reference: what the PyTorch model says of them.
        fitted: its calibration and operating points.
        classes: the K classes.
        split: which part of the checkpoint's split they are.
        ids: the ids of that part, as the checkpoint lists them.
    """

    patients: ValidationPatients
    reference: Predictions
    fitted: FittedCalibration
    classes: ClassList
    split: str
    ids: tuple[str, ...]


def gather_evidence(
    checkpoint: Checkpoint,
    data: Path,
    *,
    split: str = "val",
    calibrated_on: Collection[str] = (),
    cache_dir: Path | None = None,
    progress: bool = True,
) -> Evidence:
    """Choose the patients, refuse those who were seen, and ask the PyTorch model about the rest.

    Args:
        checkpoint: calibrated.
        data: the data set that it was trained on.
        split: `val`, or `test`.
        calibrated_on: SHA-256 of every photograph that a quantiser saw.
        cache_dir: where prepared photographs are kept.
        progress: show progress bars on stderr.

    Raises:
        ExportError: a part that is refused, photographs that were seen, or no calibration.
        DataError: the data cannot be read or lacks patients of the split.
        TrainingError: the model answers NaN or infinity.
    """
    if checkpoint.calibration is None:
        raise ExportError(
            "the checkpoint has no calibration and no operating points, so that there is no "
            "decision to compare with; run `fundus-train calibrate` on it and export again"
        )
    chosen = _admitted(load_matching_records(data, checkpoint), checkpoint, split, calibrated_on)
    patients = ValidationPatients.open(
        chosen, checkpoint.spec, cache_dir=cache_dir, progress=progress
    )
    return Evidence(
        patients=patients,
        reference=reference_answers(checkpoint, patients, progress=progress),
        fitted=checkpoint.calibration,
        classes=checkpoint.classes,
        split=split,
        ids=checkpoint.split.val if split == "val" else checkpoint.split.test,
    )


def _admitted(
    data: RecordSet, checkpoint: Checkpoint, split: str, calibrated_on: Collection[str]
) -> list[PatientRecord]:
    if split not in ("val", "test"):
        raise ExportError(
            f"patients of the part {split!r} are refused: the model was trained on some of them, "
            "and on those it agrees with itself too easily; use --split val"
        )
    chosen = part_of_records(data, checkpoint, "val" if split == "val" else "test")
    trained_on = set(checkpoint.split.train)
    trained = _hashes(record for record in data.records if record.id in trained_on)
    _refuse_shared(chosen, trained, "the training", "take them out of the data")
    _refuse_shared(
        chosen,
        calibrated_on,
        "the calibration of the INT8 graphs",
        "calibrate on photographs of training patients and export again",
    )
    return chosen


def _refuse_shared(chosen: list[PatientRecord], seen: Collection[str], by: str, mend: str) -> None:
    known = frozenset(seen)
    shared = [record for record in chosen if known and not known.isdisjoint(_hashes([record]))]
    if shared:
        raise ExportError(
            f"{len(shared)} of {len(chosen)} patients have a photograph that {by} saw as well, "
            f"byte for byte, so that they are no evidence; {mend}"
        )


def _hashes(records: Iterable[PatientRecord]) -> set[str]:
    paths = (record.photograph(eye) for record in records for eye in EYES)
    return {sha256_of_file(path) for path in paths if path is not None}


def load_bundle_checkpoint(bundle: Bundle, path: Path) -> Checkpoint:
    """The checkpoint, if it is the one that the bundle was exported from.

    Raises:
        CheckpointError: the file is no checkpoint.
        ExportError: it is another one, or has another preprocessing or class list.
    """
    checkpoint = load_checkpoint(path)
    manifest = bundle.manifest
    for what, ours, theirs in (
        ("the class list", list(checkpoint.classes.letters), list(manifest.classes.letters)),
        ("the normal class", checkpoint.classes.normal, manifest.classes.normal),
        ("the preprocess hash", checkpoint.spec.sha256, manifest.spec.sha256),
    ):
        if ours != theirs:
            raise ExportError(
                f"{what} of {path} is {ours}, but that of bundle {bundle.path} is {theirs}; give "
                "the checkpoint that the bundle was exported from"
            )
    recorded, actual = _recorded_checkpoint(bundle), sha256_of_file(path)
    if recorded != actual:
        raise ExportError(
            f"bundle {bundle.path} was exported from a checkpoint {recorded[:12]}, but {path} is "
            f"{actual[:12]}; give that checkpoint (the bundle carries it as {CHECKPOINT_NAME})"
        )
    return checkpoint


def _recorded_checkpoint(bundle: Bundle) -> str:
    record = bundle.manifest.files.get(CHECKPOINT_NAME)
    if record is None:
        raise ExportError(
            f"bundle {bundle.path} does not record which checkpoint it was exported from (it "
            f"carries no {CHECKPOINT_NAME}); export it again"
        )
    return record.sha256


def calibration_photographs(bundle: Bundle, dialects: Iterable[str]) -> frozenset[str]:
    """SHA-256 of every photograph that the quantiser of these dialects saw.

    Raises:
        ExportError: a dialect is INT8 and the bundle does not say what it was calibrated on.
    """
    graphs = [bundle.manifest.graphs[name] for name in dialects]
    quantised = [pair.name for pair in graphs if pair.precision == "int8"]
    if not quantised:
        return frozenset()
    if RECIPE_NAME not in bundle.manifest.files:
        raise ExportError(
            f"bundle {bundle.path} has {', '.join(quantised)} but no {RECIPE_NAME}, so that nobody "
            "can tell which photographs they were calibrated on; export it again"
        )
    try:
        recipe = json.loads(bundle.file(RECIPE_NAME).read_text("utf-8"))
        return frozenset(str(file["sha256"]) for file in recipe["images"]["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{bundle.path}: {RECIPE_NAME} does not list the calibration photographs ({error!r}); "
            "export the bundle again"
        ) from error
