"""Normal eyes of real patients whom a model was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fundus_runtime.labels import EYES
from fundus_training.checkpoint import load_checkpoint
from fundus_training.data.records import load_records

__all__ = ["normal_eyes"]


def normal_eyes(data: Path, checkpoint: Path, *, seed: int = 0) -> list[Path]:
    """Photographs of eyes whose own labels are N alone, in a shuffled order.

    Args:
        data: a data set with labels of single eyes.
        checkpoint: its validation and test patients are taken.
        seed: of the order.
    """
    split = load_checkpoint(checkpoint).split
    kept = {*split.val, *split.test}
    records = load_records(data)
    normal = tuple(int(letter == "N") for letter in records.classes.letters)
    found = [
        path
        for record in records.records
        for eye in EYES
        if record.id in kept and record.eye_labels(eye) == normal
        if (path := record.photograph(eye)) is not None
    ]
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[index] for index in order]
