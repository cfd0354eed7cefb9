"""On which side the optic disc lies: left on a left eye's photograph, right on a right eye's.

A linear classifier on 16 x 16 tiles of red and green without their local mean, minus their mirror
image, so that a mirrored photograph gets the negative score. The weights were fitted on ODIR-5K
(research use); `docs/gates.md` says on whom, and how right it is on others.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.gates.local_mean import local_mean
from fundus_runtime.gates.readings import CELLS, GateReadings

__all__ = ["TILES", "side_features", "side_score"]

TILES = 16
_WINDOW = 11
# sixteenths of a level, so that the noise of a picture without structure stays small
_FLOOR = 8.0

Floats = NDArray[np.float64]


def side_score(readings: GateReadings) -> float:
    """Log odds that the photograph is of a left eye."""
    return float(side_features(readings) @ _weights())


def side_features(readings: GateReadings) -> Floats:
    """What the classifier sees: 256 values, those of the mirror image are their negatives."""
    counts = _tiles(readings.inside.astype(np.float64))
    halves = [
        _asymmetry(_tiles(readings.levels[:, :, channel].astype(np.float64)), counts)
        for channel in (0, 1)
    ]
    return np.concatenate(halves)


def _asymmetry(sums: Floats, counts: Floats) -> Floats:
    held = counts > 0
    structure = (sums / np.maximum(counts, 1.0) - local_mean(sums, counts, _WINDOW)) * held
    spread = np.sqrt((structure**2).sum() / max(int(held.sum()), 1))
    structure /= spread + _FLOOR
    difference: Floats = structure - structure[:, ::-1]
    return difference[:, : TILES // 2].ravel()


def _tiles(cells: Floats) -> Floats:
    side = CELLS // TILES
    tiles: Floats = cells.reshape(TILES, side, TILES, side).sum(axis=(1, 3))
    return tiles


@cache
def _weights() -> Floats:
    text = resources.files("fundus_runtime.gates").joinpath("side_weights.json").read_text("utf-8")
    return np.array(json.loads(text)["weights"], dtype=np.float64)
