"""Heat maps: where in an eye the probability of each class comes from.

The encoder gives each class a map over a grid of places whose mean is the eye's logit, exactly.
A cell's evidence is its value after the calibration, in logits: the eye's probability is the
sigmoid of the mean of the evidence. What is above 0 speaks for the class, what is below against it.

The maps explain the output of one eye, not the patient's, which rests on both eyes together.

Cell (r, c) is centred on pixel (r s, c s) of the network's input, s the stride, a power of two:
strided convolutions look around the first pixel of each stretch, so that the grid lies half a cell
further up and left than one that divides the crop evenly. Places are in pixels of the photograph.
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
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """One eye's maps.

    Attributes:
        letters: the classes, in order.
        evidence: float32 (K, h, w), calibrated logits; row 0 lies on top, column 0 on the left.
        box: the crop that the network saw, in pixels of the photograph.
        size: S, the side of the network's input.
    """

    letters: tuple[str, ...]
    evidence: NDArray[np.float32]
    box: CropBox
    size: int

    def __post_init__(self) -> None:
        shape = self.evidence.shape
        if len(shape) != 3 or shape[0] != len(self.letters) or 0 in shape:
            raise UsageError(
                f"heat maps of {len(self.letters)} classes came as an array of shape {shape}, "
                "expected (classes, rows, columns)"
            )

    @classmethod
    def from_encoder(
        cls, maps: NDArray[np.float32], calibration: Calibration, box: CropBox, *, size: int
    ) -> HeatMaps:
        """Maps of an eye as the encoder gave them.

        Args:
            maps: (K, h, w), in logits.
            calibration: of single eyes.
            box: what was cropped.
            size: S.

        Raises:
            ResultError: a value is not finite.
        """
        if not np.isfinite(maps).all():
            raise ResultError(
                "the encoder gave a heat map that is not finite; screen again, and report it with "
                "the bundle's hash if it happens again"
            )
        return cls(calibration.letters, calibration.logits(maps, axis=0), box, size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.evidence.shape[1], self.evidence.shape[2]

    @property
    def cell_size_px(self) -> tuple[float, float]:
        """Height and width of a cell in the photograph."""
        rows, columns = self.grid
        return (
            _stride(self.size, rows) * self.box.height_px / self.size,
            _stride(self.size, columns) * self.box.width_px / self.size,
        )

    @property
    def first_cell_px(self) -> tuple[float, float]:
        """Row and column of the first cell's centre in the photograph."""
        half_y, half_x = (side / self.size / 2 for side in (self.box.height_px, self.box.width_px))
        return self.box.top_px + half_y, self.box.left_px + half_x

    def of(self, letter: str) -> NDArray[np.float32]:
        """One class's evidence (h, w).

        Raises:
            UsageError: there is no such class.
        """
        if letter not in self.letters:
            raise UsageError(f"there is no class {letter!r}; there are {' '.join(self.letters)}")
        chosen: NDArray[np.float32] = self.evidence[self.letters.index(letter)]
        return chosen

    def peak(self, letter: str) -> tuple[int, int]:
        """Row and column of the cell that speaks most for a class."""
        row, column = divmod(int(self.of(letter).argmax()), self.grid[1])
        return row, column

    def cell_at(self, x_px: float, y_px: float) -> tuple[int, int] | None:
        """Row and column of the cell nearest to a place of the photograph; None off the crop."""
        box = self.box
        if not (box.left_px <= x_px < box.right_px and box.top_px <= y_px < box.bottom_px):
            return None
        row, column = (
            min(max(round(float(at)), 0), count - 1)
            for at, count in zip(self._in_cells(y_px, x_px), self.grid, strict=True)
        )
        return row, column

    def cell_box(self, row: int, column: int) -> CropBox:
        """A cell in whole pixels of the photograph; it may reach beyond the crop.

        Raises:
            UsageError: there is no such cell.
        """
        rows, columns = self.grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise UsageError(f"there is no cell {row}, {column} in a grid of {rows} x {columns}")
        (height, width), (first_y, first_x) = self.cell_size_px, self.first_cell_px
        return CropBox(
            round(first_x + (column - 0.5) * width),
            round(first_y + (row - 0.5) * height),
            round(first_x + (column + 0.5) * width),
            round(first_y + (row + 0.5) * height),
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
        box = self.box
        ys, xs = (np.arange(count, dtype=np.float64) + 0.5 for count in (height, width))
        inside_y = (ys > box.top_px) & (ys < box.bottom_px)
        inside_x = (xs > box.left_px) & (xs < box.right_px)
        frame = np.full((height, width), np.nan, np.float32)
        frame[np.ix_(inside_y, inside_x)] = self._at(letter, ys[inside_y], xs[inside_x])
        return frame

    def over_crop(self, letter: str, *, side: int) -> NDArray[np.float32]:
        """One class's evidence (side, side) over the crop, between cells interpolated."""
        steps = (np.arange(side) + 0.5) / side
        ys = self.box.top_px + steps * self.box.height_px
        return self._at(letter, ys, self.box.left_px + steps * self.box.width_px)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values: places in pixels, and the evidence of each class by rows."""
        (cell_y, cell_x), (first_y, first_x) = self.cell_size_px, self.first_cell_px
        return {
            "box": {
                "left_px": self.box.left_px,
                "top_px": self.box.top_px,
                "right_px": self.box.right_px,
                "bottom_px": self.box.bottom_px,
            },
            "rows": self.grid[0],
            "columns": self.grid[1],
            "first_cell_x_px": round(first_x, _DECIMALS),
            "first_cell_y_px": round(first_y, _DECIMALS),
            "cell_width_px": round(cell_x, _DECIMALS),
            "cell_height_px": round(cell_y, _DECIMALS),
            "evidence": {
                letter: [
                    [round(float(value), _DECIMALS) for value in row] for row in self.of(letter)
                ]
                for letter in self.letters
            },
        }

    def _in_cells(self, y_px: float | Floats, x_px: float | Floats) -> tuple[Any, Any]:
        """Places in units of cells, the first one's centre at 0."""
        (height, width), (first_y, first_x) = self.cell_size_px, self.first_cell_px
        return (y_px - first_y) / height, (x_px - first_x) / width

    def _at(self, letter: str, ys_px: Floats, xs_px: Floats) -> NDArray[np.float32]:
        rows, columns = self.grid
        at_y, at_x = self._in_cells(ys_px, xs_px)
        down, across = _interpolation(at_y, rows), _interpolation(at_x, columns)
        return (down @ self.of(letter).astype(np.float64) @ across.T).astype(np.float32)


def _stride(size: int, count: int) -> int:
    """The power of two that leaves `count` cells of `size` pixels, every halving rounded up."""
    stride = 1
    while -(-size // stride) > count:
        stride *= 2
    return stride


def _interpolation(at: Floats, count: int) -> Floats:
    """Weights (len(at), count) of the cells for places in units of cells, centres at 0, 1, ..."""
    at = np.clip(at, 0.0, count - 1.0)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(count)))
