"""Pairs of eyes as tensors, for torch's DataLoader.

Each sample is a dict: `left` and `right` FP32 3 x S x S as `normalise_crop` makes them (zeros where
the eye is absent), `left_present` and `right_present` 0 or 1, `labels` FP32 K, `left_labels` and
`right_labels` FP32 K with `left_labelled` and `right_labelled` saying whether they are known, and
`index`, the sample's place in `records`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from fundus_runtime.labels import EYES, Eye
from fundus_runtime.preprocess import normalise_crop
from fundus_training.data.augment import (
    AugmentConfig,
    Pair,
    augment_pair,
    cut_mix,
    drop_eye,
    generator_for,
)
from fundus_training.data.crops import Crop, CropStore
from fundus_training.data.patients import PatientRecord
from fundus_training.errors import DataError

__all__ = ["PairDataset", "PairSample", "start_worker"]

_LOG = logging.getLogger(__name__)

PairSample = dict[str, torch.Tensor]


class PairDataset(Dataset[PairSample]):
    """Patients with at least one gradable eye, augmented anew in every epoch.

    A sample depends on (seed, epoch, index) alone, not on workers or on what was drawn before.

    Args:
        records: the patients of one part; those without any gradable eye are left out and logged.
        store: crops of at least these patients.
        augment: what to vary; None changes nothing, as for validation.
        seed: of the augmentation.

    Attributes:
        records: the patients that are in it, in order.

    Raises:
        DataError: no patient is left, or the store lacks one.
    """

    def __init__(
        self,
        records: Sequence[PatientRecord],
        store: CropStore,
        *,
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        rows = [(record, store.row_of(record.id)) for record in records]
        kept = [(r, row) for r, row in rows if any(store.is_gradable(row, eye) for eye in EYES)]
        if not kept:
            raise DataError(f"none of {len(rows)} patients has a gradable photograph to learn from")
        if len(kept) < len(rows):
            _LOG.warning("%d patients without a gradable eye are left out", len(rows) - len(kept))
        self.records: tuple[PatientRecord, ...] = tuple(record for record, _ in kept)
        self._rows = tuple(row for _, row in kept)
        self._store = store
        self._augment = augment or AugmentConfig.none()
        self._seed = seed
        # In shared memory, so that workers that live on from epoch to epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._alike = self._group_alike()

    def __len__(self) -> int:
        return len(self.records)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn; call it before iterating."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> PairSample:
        rng = generator_for(self._seed, int(self._epoch), index)
        pair = self._mixed(index, rng)
        pair = augment_pair(drop_eye(pair, self._augment, rng), self._augment, rng)
        return self._sample(pair, index)

    def _mixed(self, index: int, rng: np.random.Generator) -> Pair:
        """The pair, with a box of one that shows the same where CutMix is drawn."""
        pair = self._pair(index)
        chance, choice = rng.random(2).tolist()
        alike = self._alike[index]
        if chance >= self._augment.cutmix or len(alike) < 2:
            return pair
        # Anyone of the group but the pair itself: its own place is skipped.
        place = (alike.index(index) + 1 + int(choice * (len(alike) - 1))) % len(alike)
        return cut_mix(pair, self._pair(alike[place]), rng)

    def _pair(self, index: int) -> Pair:
        record, row = self.records[index], self._rows[index]
        crops: dict[Eye, Crop | None] = {eye: self._store.crop(row, eye) for eye in EYES}
        return Pair(
            crops["left"], crops["right"], record.labels, record.left_labels, record.right_labels
        )

    def _group_alike(self) -> tuple[tuple[int, ...], ...]:
        """For each index those with the same labels, eye by eye, and the same eyes present."""
        groups: dict[object, list[int]] = defaultdict(list)
        keys = []
        for index, (record, row) in enumerate(zip(self.records, self._rows, strict=True)):
            present = tuple(self._store.is_gradable(row, eye) for eye in EYES)
            keys.append((record.labels, record.left_labels, record.right_labels, present))
            groups[keys[-1]].append(index)
        frozen = {key: tuple(indices) for key, indices in groups.items()}
        return tuple(frozen[key] for key in keys)

    def _sample(self, pair: Pair, index: int) -> PairSample:
        sample = {
            "labels": torch.tensor(pair.labels, dtype=torch.float32),
            "index": torch.tensor(index),
        }
        for eye in EYES:
            crop = pair.eye(eye)
            labels = pair.left_labels if eye == "left" else pair.right_labels
            # An eye that cannot be seen has nothing to be taught, whatever is known of it.
            known = labels is not None and crop is not None
            sample[eye] = self._tensor(crop)
            sample[f"{eye}_present"] = torch.tensor(float(crop is not None))
            sample[f"{eye}_labels"] = torch.tensor(
                labels if labels is not None and known else [0] * len(pair.labels),
                dtype=torch.float32,
            )
            sample[f"{eye}_labelled"] = torch.tensor(float(known))
        return sample

    def _tensor(self, crop: Crop | None) -> torch.Tensor:
        size = self._store.spec.size
        if crop is None:
            return torch.zeros(3, size, size)
        return torch.from_numpy(normalise_crop(crop.image, crop.mask, self._store.spec))


def start_worker(worker: int) -> None:
    """For DataLoader's `worker_init_fn`: one thread a worker, or workers fight over the cores."""
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
