"""Heat maps: where in an eye the probability of each class comes from.

The encoder gives each class a map over a grid of places whose mean is the eye's logit, exactly.
A cell's evidence is its value after the calibration, in logits: the eye's probability is the
sigmoid of the mean of the evidence. `shares` are the sigmoids of the cells themselves: what the
probability would be if all of the eye looked like this place.

The maps explain the output of one eye, not the patient's, which rests on both eyes together. A
grid cell stands for its part of the crop, whose box is in pixels of the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.calibration import Calibration
from fundus_runtime.errors import ResultError, UsageError
from fundus_runtime.preprocess.eye import CropBox

__all__ = ["HeatMaps"]

_DECIMALS = 3


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """One eye's maps.

    Attributes:
        letters: the classes, in order.
        evidence: float32 (K, h, w), calibrated logits; row 0 lies on top, column 0 on the left.
        box: what the grid covers, in pixels of the photograph.
    """

    letters: tuple[str, ...]
    evidence: NDArray[np.float32]
    box: CropBox

    def __post_init__(self) -> None:
        shape = self.evidence.shape
        if len(shape) != 3 or shape[0] != len(self.letters) or 0 in shape:
            raise UsageError(
                f"heat maps of {len(self.letters)} classes came as an array of shape {shape}, "
                "expected (classes, rows, columns)"
            )

    @classmethod
    def from_encoder(
        cls, maps: NDArray[np.float32], calibration: Calibration, box: CropBox
    ) -> HeatMaps:
        """Maps of an eye as the encoder gave them.

        Args:
            maps: (K, h, w), in logits.
            calibration: of single eyes.
            box: what was cropped.

        Raises:
            ResultError: a value is not finite.
        """
        if not np.isfinite(maps).all():
            raise ResultError(
                "the encoder gave a heat map that is not finite; screen again, and report it with "
                "the bundle's hash if it happens again"
            )
        return cls(calibration.letters, calibration.logits(maps, axis=0), box)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.evidence.shape[1], self.evidence.shape[2]

    def of(self, letter: str) -> NDArray[np.float32]:
        """One class's evidence (h, w).

        Raises:
            UsageError: there is no such class.
        """
        if letter not in self.letters:
            raise UsageError(f"there is no class {letter!r}; there are {' '.join(self.letters)}")
        chosen: NDArray[np.float32] = self.evidence[self.letters.index(letter)]
        return chosen

    def shares(self, letter: str) -> NDArray[np.float32]:
        """One class's probability (h, w), if all of the eye looked like this place."""
        return _sigmoid(self.of(letter))

    def peak(self, letter: str) -> tuple[int, int]:
        """Row and column of the cell that speaks most for a class."""
        row, column = divmod(int(self.of(letter).argmax()), self.grid[1])
        return row, column

    def cell_at(self, x_px: float, y_px: float) -> tuple[int, int] | None:
        """Row and column of the cell that a pixel of the photograph lies in; None outside."""
        rows, columns = self.grid
        row = int(np.floor((y_px - self.box.top_px) / self.box.height_px * rows))
        column = int(np.floor((x_px - self.box.left_px) / self.box.width_px * columns))
        return (row, column) if 0 <= row < rows and 0 <= column < columns else None

    def cell_box(self, row: int, column: int) -> CropBox:
        """A cell in pixels of the photograph; neighbours share their edges."""
        rows, columns = self.grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise UsageError(f"there is no cell {row}, {column} in a grid of {rows} x {columns}")
        box = self.box
        return CropBox(
            box.left_px + column * box.width_px // columns,
            box.top_px + row * box.height_px // rows,
            box.left_px + (column + 1) * box.width_px // columns,
            box.top_px + (row + 1) * box.height_px // rows,
        )

    def on_frame(self, letter: str, *, height: int, width: int) -> NDArray[np.float32]:
        """One class's evidence for each pixel of the photograph, between cells interpolated.

        Args:
            letter: the class.
            height: of the photograph.
            width: of the photograph.

        Returns:
            float32 (height, width); NaN outside the crop.
        """
        box, (rows, columns) = self.box, self.grid
        ys, xs = np.arange(height) + 0.5, np.arange(width) + 0.5
        frame = np.full((height, width), np.nan, np.float32)
        inside_y = (ys > box.top_px) & (ys < box.bottom_px)
        inside_x = (xs > box.left_px) & (xs < box.right_px)
        at_y = (ys[inside_y] - box.top_px) / box.height_px * rows - 0.5
        at_x = (xs[inside_x] - box.left_px) / box.width_px * columns - 0.5
        along_x = _interpolation(at_x, columns)
        values = _interpolation(at_y, rows) @ self.of(letter).astype(np.float64) @ along_x.T
        frame[np.ix_(inside_y, inside_x)] = values
        return frame

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values: the box in pixels, and the evidence of each class by rows."""
        return {
            "box": {
                "left_px": self.box.left_px,
                "top_px": self.box.top_px,
                "right_px": self.box.right_px,
                "bottom_px": self.box.bottom_px,
            },
            "rows": self.grid[0],
            "columns": self.grid[1],
            "evidence": {
                letter: [
                    [round(float(value), _DECIMALS) for value in row] for row in self.of(letter)
                ]
                for letter in self.letters
            },
        }


def _interpolation(at: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Weights (len(at), count) of the cells for places in units of cells, centres at 0, 1, ..."""
    at = np.clip(at, 0.0, count - 1.0)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(count)))


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    # by halves of the argument: exp would overflow on large negative ones
    return (0.5 * (1.0 + np.tanh(0.5 * values.astype(np.float64)))).astype(np.float32)
