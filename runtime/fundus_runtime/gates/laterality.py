"""On which side the optic disc lies: left on a left eye's photograph, right on a right eye's.

A linear classifier on 16 x 16 tiles of red and green without their local mean, minus their mirror
image, so that a mirrored photograph gets the negative score. The weights were fitted on ODIR-5K
(research use); `docs/gates.md` says on whom, and how right it is on others.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.gates import native
from fundus_runtime.gates.readings import CELLS, GateReadings

__all__ = ["TILES", "side_features", "side_score"]

TILES = 16
_WINDOW = 11
# sixteenths of a level, so that the noise of a picture without structure stays small
_FLOOR = 8.0

Floats = NDArray[np.float64]


def side_score(readings: GateReadings) -> float:
    """Log odds that the photograph is of a left eye."""
    return native.side_score(readings.levels, readings.inside, _weights())


def side_features(readings: GateReadings) -> Floats:
    """What the classifier sees: 256 values, those of the mirror image are their negatives.

    The reference of the native score, and what its weights are fitted on.
    """
    counts = _tiles(readings.inside)
    held = counts > 0
    sums = _tiles(np.moveaxis(readings.levels[:, :, :2], 2, 0))
    around = _around(sums) / np.maximum(_around(counts), 1.0)
    structure = (sums / np.maximum(counts, 1.0) - around) * held
    square_sums = (structure**2).reshape(2, -1).sum(axis=1)
    spread = np.sqrt(square_sums / max(int(held.sum()), 1))
    structure /= spread[:, None, None] + _FLOOR
    asymmetry: Floats = structure - structure[:, :, ::-1]
    return asymmetry[:, :, : TILES // 2].ravel()


def _tiles(cells: NDArray[Any]) -> Floats:
    """Sums (..., 16, 16) of cells (..., 96, 96): exact, since they are whole numbers."""
    members = _members()
    tiles: Floats = members @ np.array(cells, np.float64, order="C") @ members.T
    return tiles


def _around(tiles: Floats) -> Floats:
    """Sums of the box about each tile: exact, too."""
    near = _near()
    boxes: Floats = near @ tiles @ near
    return boxes


@cache
def _near() -> Floats:
    """Which tiles are in the box about a tile, along one side: 16 x 16."""
    tile = np.arange(TILES)
    near: Floats = (np.abs(tile[:, None] - tile) <= _WINDOW // 2).astype(np.float64)
    return near


@cache
def _members() -> Floats:
    """Which cells are in a tile, along one side: 16 x 96."""
    members: Floats = np.repeat(np.eye(TILES), CELLS // TILES, axis=1)
    return members


@cache
def _weights() -> Floats:
    text = resources.files("fundus_runtime.gates").joinpath("side_weights.json").read_text("utf-8")
    return np.array(json.loads(text)["weights"], dtype=np.float64)
