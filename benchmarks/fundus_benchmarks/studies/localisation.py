"""How often a heat map finds a lesion that was drawn into a normal eye.

Each eye is screened as it is and with one lesion, by the runtime, as a robot would. The class
concerned is the one, other than normal, whose per-eye logit rises most. The lesion is found where
that class's evidence rises most within one grid cell of the lesion's centre: in its cell or one of
the eight around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fundus_benchmarks.studies.lesions import LESIONS, disc_diameter_px, draw_lesion, place_in
from fundus_runtime.errors import FundusError
from fundus_runtime.heat_map import HeatMaps
from fundus_runtime.preprocess import FieldOfView
from fundus_runtime.result import EyeResult
from fundus_runtime.screener import Screener

__all__ = ["Found", "find_lesions", "share_found"]

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """One eye with a lesion.

    Attributes:
        kind: of the lesion.
        letter: the class concerned.
        probability_before: of that class, without the lesion.
        probability_after: with it.
        cells_off: from the lesion's cell to the largest rise, the larger of rows and columns.
    """

    kind: str
    letter: str
    probability_before: float
    probability_after: float
    cells_off: int


def find_lesions(
    screener: Screener, frames: Iterable[Frame], *, size: float = 1.0, seed: int = 0
) -> Iterator[Found]:
    """Draw a lesion into each eye and look for it; kinds take turns.

    Args:
        screener: its bundle must have heat maps.
        frames: normal eyes, RGB; those that the gates refuse are left out.
        size: of the lesion, in disc diameters.
        seed: of places and shapes.

    Raises:
        FundusError: the bundle has no heat maps.
    """
    rng, kinds, taken = np.random.default_rng(seed), list(LESIONS), 0
    for frame in frames:
        plain = _screened(screener, frame)
        if plain.status != "ok" or plain.field_of_view is None:
            continue
        field, kind = FieldOfView(**plain.field_of_view), kinds[taken % len(kinds)]
        at = place_in(field, rng)
        drawn = draw_lesion(frame, kind, at, size * disc_diameter_px(field), rng)
        ill = _screened(screener, drawn)
        if ill.status == "ok":
            taken += 1
            yield _compared(plain, ill, kind, at)


def share_found(found: Iterable[Found], *, within: int = 1) -> float:
    """Share of the lesions that the largest rise lies within so many cells of."""
    return float(np.mean([one.cells_off <= within for one in found]))


def _screened(screener: Screener, frame: Frame) -> EyeResult:
    return screener.screen(frame, None, color="rgb").left


def _compared(plain: EyeResult, ill: EyeResult, kind: str, at: tuple[float, float]) -> Found:
    before, after = _maps(plain), _maps(ill)
    letters = [letter for letter in before.letters if letter != "N"]
    rises = {letter: after.of(letter) - before.of(letter) for letter in letters}
    letter = max(letters, key=lambda one: float(rises[one].mean()))
    row, column = divmod(int(rises[letter].argmax()), before.grid[1])
    cell = before.cell_at(*at)
    assert cell is not None  # lesions lie within the disc, which the crop holds
    off = max(abs(row - cell[0]), abs(column - cell[1]))
    return Found(kind, letter, plain.probabilities[letter], ill.probabilities[letter], off)


def _maps(eye: EyeResult) -> HeatMaps:
    if eye.heat_maps is None:
        raise FundusError("the bundle's graphs have no heat maps; export it again")
    return eye.heat_maps
