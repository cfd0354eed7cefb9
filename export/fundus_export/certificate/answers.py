"""What the PyTorch model and a dialect say of the validation patients.

Eyes are preprocessed photographs 3×S×S as the runtime prepares them. An eye that is absent or
ungradable takes no part: its logits are NaN, the head gets zeros and its flag down, as on the
device. A dialect is asked as `Screener` asks it, both eyes of a patient at batch 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fundus_export.errors import ExportError
from fundus_runtime.backends.protocol import Backend, Float32Array
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.preprocess import PreprocessSpec, normalise_crop
from fundus_training.checkpoint import Checkpoint, build_model
from fundus_training.data.crops import CropStore
from fundus_training.data.records import PatientRecord
from fundus_training.predict import Predictions, predict

__all__ = ["DialectAnswers", "ValidationPatients", "answers_of_backend", "reference_answers"]


@dataclass(frozen=True)
class DialectAnswers:
    """Uncalibrated logits of N patients.

    Attributes:
        ids: N patients.
        logits: N×K, both eyes together.
        left: N×K of the left eyes alone; NaN where the eye is not there or the model says nothing
            of an eye alone.
        right: N×K of the right eyes alone, likewise.
    """

    ids: tuple[str, ...]
    logits: npt.NDArray[np.float32]
    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]

    def eye(self, eye: Eye) -> npt.NDArray[np.float32]:
        """One side's logits."""
        return self.left if eye == "left" else self.right


@dataclass(frozen=True)
class ValidationPatients:
    """Patients and their crops, at hand for any number of dialects.

    Attributes:
        records: the patients, those without a gradable eye among them.
        store: their crops.
    """

    records: tuple[PatientRecord, ...]
    store: CropStore

    @classmethod
    def open(
        cls,
        records: Sequence[PatientRecord],
        spec: PreprocessSpec,
        *,
        cache_dir: Path | None = None,
        progress: bool = True,
    ) -> ValidationPatients:
        """Prepare the photographs, or take them from the cache.

        Raises:
            DataError: photographs cannot be read.
        """
        store = CropStore.open(records, spec, cache_dir=cache_dir, progress=progress)
        return cls(tuple(records), store)

    def gradable(self) -> list[PatientRecord]:
        """Patients with at least one gradable eye, in order."""
        return [
            record
            for record in self.records
            if any(self._is_gradable(record, eye) for eye in ("left", "right"))
        ]

    def eye(self, record: PatientRecord, eye: Eye) -> Float32Array | None:
        """One preprocessed eye 3×S×S, or None where it is absent or ungradable."""
        crop = self.store.crop(self.store.row_of(record.id), eye)
        return None if crop is None else normalise_crop(crop.image, crop.mask, self.store.spec)

    def complete_pairs(self, count: int) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Both eyes of up to `count` patients who have both, spread evenly over all of them."""
        both = [
            record
            for record in self.records
            if self._is_gradable(record, "left") and self._is_gradable(record, "right")
        ]
        count = min(count, len(both))
        for place in range(count):
            record = both[(2 * place + 1) * len(both) // (2 * count)]
            left, right = self.eye(record, "left"), self.eye(record, "right")
            if left is not None and right is not None:
                yield left, right

    def _is_gradable(self, record: PatientRecord, eye: Eye) -> bool:
        return self.store.is_gradable(self.store.row_of(record.id), eye)


def reference_answers(
    checkpoint: Checkpoint, patients: ValidationPatients, *, progress: bool = True
) -> Predictions:
    """What the PyTorch model says, FP32, evaluation mode.

    Raises:
        DataError: no patient has a gradable eye.
        TrainingError: the model answers NaN or infinity.
    """
    return predict(
        build_model(checkpoint),
        patients.records,
        checkpoint.spec,
        store=patients.store,
        progress=progress,
    )


def answers_of_backend(
    backend: Backend, patients: ValidationPatients, *, progress: bool = True, what: str = "dialect"
) -> DialectAnswers:
    """What an engine says of all patients with a gradable eye.

    Args:
        backend: holds the dialect's graphs.
        patients: the patients.
        progress: show a progress bar on stderr.
        what: the bar's name.

    Raises:
        EngineError: the engine failed or answered NaN or infinity.
        ExportError: there is no such patient.
    """
    gradable = patients.gradable()
    if not gradable:
        raise ExportError(
            f"none of {len(patients.records)} patients has a gradable photograph to answer for"
        )
    shown = tqdm(gradable, desc=what, unit="patient", disable=not progress)
    rows = [
        _answer(backend, patients.eye(record, "left"), patients.eye(record, "right"))
        for record in shown
    ]
    logits, left, right = (np.stack(column) for column in zip(*rows, strict=True))
    return DialectAnswers(tuple(record.id for record in gradable), logits, left, right)


def _answer(
    backend: Backend, left: Float32Array | None, right: Float32Array | None
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Logits K of one patient, its left eye and its right eye."""
    given = [(eye, one) for eye, one in zip(EYES, (left, right), strict=True) if one is not None]
    encoded = backend.encode(np.stack([one for _, one in given]), [eye for eye, _ in given])
    features = dict.fromkeys(EYES, np.zeros_like(encoded.features[:1]))
    for row, (eye, _) in enumerate(given):
        features[eye] = encoded.features[row : row + 1]
    fused = backend.fuse(features["left"], features["right"], _flag(left), _flag(right))[0]
    logits = dict.fromkeys(EYES, np.full_like(fused, np.nan))
    if encoded.logits is not None:
        logits |= {eye: encoded.logits[row] for row, (eye, _) in enumerate(given)}
    return fused, logits["left"], logits["right"]


def _flag(eye: Float32Array | None) -> Float32Array:
    return np.array([0.0 if eye is None else 1.0], np.float32)
