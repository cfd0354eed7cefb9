"""Lesions drawn into photographs, to see whether a heat map finds them.

Three kinds that a screener must see: dark red blot haemorrhages, clusters of yellow hard exudates,
and pale cotton-wool spots with soft rims. Colours follow the fundus around them. Sizes are in disc
diameters, of which the field of view has about seven and a half across (45 degrees over 6).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fundus_runtime.preprocess import FieldOfView

__all__ = ["LESIONS", "disc_diameter_px", "draw_lesion", "place_in"]

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_DISCS_ACROSS = 7.5
# Away from the rim, where a lesion would be cut off and illumination is poorest.
_REACH = 0.75


def disc_diameter_px(field: FieldOfView) -> float:
    """About the optic disc's diameter in pixels of the photograph."""
    return (field.radius_x_px + field.radius_y_px) / _DISCS_ACROSS


def place_in(field: FieldOfView, rng: np.random.Generator) -> tuple[float, float]:
    """Column and row of a place, even over the inner part of the disc."""
    distance, angle = _REACH * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    return (
        field.center_x_px + distance * field.radius_x_px * np.cos(angle),
        field.center_y_px + distance * field.radius_y_px * np.sin(angle),
    )


def draw_lesion(
    frame: Frame, kind: str, at: tuple[float, float], size_px: float, rng: np.random.Generator
) -> Frame:
    """A copy of a photograph with a lesion.

    Args:
        frame: H x W x 3, RGB.
        kind: one of `LESIONS`.
        at: column and row of its centre.
        size_px: its extent, about a disc diameter.
        rng: decides number, places and shapes of its spots.
    """
    column, row, reach = int(at[0]), int(at[1]), max(2, int(size_px))
    rows = slice(max(0, row - reach), row + reach)
    columns = slice(max(0, column - reach), column + reach)
    level = frame[rows, columns].reshape(-1, 3).mean(axis=0)
    return LESIONS[kind](frame.astype(np.float64), at, size_px, level, rng)


def _haemorrhage(
    frame: Floats, at: tuple[float, float], size_px: float, level: Floats, rng: np.random.Generator
) -> Frame:
    for _ in range(rng.integers(3, 7)):
        radius = rng.uniform(0.10, 0.25) * size_px
        spot = _spot(frame, at, 0.45 * size_px, radius, 0.25, rng)
        frame = _covered(frame, 0.85 * spot, level * (0.5, 0.3, 0.3))
    return _frame(frame)


def _exudates(
    frame: Floats, at: tuple[float, float], size_px: float, level: Floats, rng: np.random.Generator
) -> Frame:
    for _ in range(rng.integers(10, 20)):
        radius = rng.uniform(0.04, 0.10) * size_px
        spot = _spot(frame, at, 0.5 * size_px, radius, 0.25, rng)
        frame = _covered(frame, 0.9 * spot, level * (1.25, 1.6, 1.3) + (20, 30, 10))
    return _frame(frame)


def _cotton_wool(
    frame: Floats, at: tuple[float, float], size_px: float, level: Floats, rng: np.random.Generator
) -> Frame:
    for _ in range(rng.integers(1, 3)):
        radius = rng.uniform(0.25, 0.40) * size_px
        spot = _spot(frame, at, 0.3 * size_px, radius, 0.5, rng)
        frame = _covered(frame, 0.85 * spot, level * (1.2, 1.6, 1.8) + (20, 40, 30))
    return _frame(frame)


LESIONS: dict[str, Callable[..., Frame]] = {
    "haemorrhages": _haemorrhage,
    "hard exudates": _exudates,
    "cotton-wool spots": _cotton_wool,
}


def _spot(
    frame: Floats,
    at: tuple[float, float],
    scatter_px: float,
    radius_px: float,
    softness: float,
    rng: np.random.Generator,
) -> Floats:
    """Opacity of one ellipse near a place, H x W."""
    distance, angle = rng.uniform(0, scatter_px), rng.uniform(0, 2 * np.pi)
    turn, flat = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    x = columns - at[0] - distance * np.cos(angle)
    y = rows - at[1] - distance * np.sin(angle)
    along = (x * np.cos(turn) + y * np.sin(turn)) / radius_px
    across = (y * np.cos(turn) - x * np.sin(turn)) / (radius_px * flat)
    opacity = (1 + softness - np.hypot(along, across)) / (2 * softness)
    return np.asarray(np.clip(opacity, 0, 1))


def _covered(frame: Floats, opacity: Floats, colour: Floats) -> Floats:
    share = opacity[:, :, None]
    return np.asarray(frame * (1 - share) + share * np.minimum(colour, 255))


def _frame(values: Floats) -> Frame:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
