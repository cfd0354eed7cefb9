"""Rendered fundi and degraded photographs: test pictures that belong to nobody.

Frames are H x W x 3 RGB, 8 bits. Everything is drawn from a seed, so that a golden picture can be
made again anywhere.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from fundus_runtime.labels import Eye

__all__ = ["degrade", "render_fundus"]

Frame = npt.NDArray[np.uint8]


def render_fundus(eye: Eye, *, side: int = 320, seed: int = 0) -> Frame:
    """A drawn fundus: shaded disc on black, optic disc on the nasal side, macula, vessels.

    Args:
        eye: which eye; the optic disc lies on the left of a left eye's picture.
        side: pixels.
        seed: everything else.
    """
    rng = np.random.default_rng(seed)
    y, x = (axis.astype(np.float32) for axis in np.mgrid[0:side, 0:side])
    center, radius = (side - 1) / 2, side * 0.47
    distance = np.hypot(x - center, y - center)
    tone = np.array([165.0, 85.0, 45.0]) * rng.uniform(0.75, 1.2) + rng.uniform(-12, 12, 3)
    shading = (
        1.0 - 0.35 * (distance / radius) ** 2 + 0.1 * (x - center) / radius * rng.uniform(-1, 1)
    )
    grain = cv2.resize(rng.normal(0, 7, (side // 8, side // 8)).astype(np.float32), (side, side))
    picture = (shading[:, :, None] * tone + grain[:, :, None]).astype(np.float32)
    nasal = -1.0 if eye == "left" else 1.0
    head_x = center + nasal * radius * rng.uniform(0.42, 0.55)
    head_y = center + radius * rng.uniform(-0.08, 0.08)
    _spot(picture, x, y, (head_x, head_y), radius * 0.15, (95.0, 95.0, 70.0))
    _spot(picture, x, y, (center - nasal * radius * 0.12, center), radius * 0.2, (-40, -32, -18))
    _draw_vessels(picture, (head_x, head_y), -nasal, radius, rng)
    inside = np.clip(radius - distance + 0.5, 0.0, 1.0)[:, :, None]
    return _levels(picture * inside)


def degrade(frame: Frame, *, strength: float, seed: int = 0) -> Frame:
    """The same photograph taken worse: blurred, dimmer or brighter, tinted and noisy.

    Args:
        frame: H x W x 3.
        strength: 0 leaves it as it is, 1 is poor but gradable.
        seed: of tint, exposure and noise.
    """
    rng = np.random.default_rng(seed)
    picture = frame.astype(np.float32)
    if strength > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.2 + 1.5 * strength).astype(np.float32)
    picture *= (1.0 + strength * rng.uniform(-0.3, 0.2, 3)).astype(np.float32)
    lit = frame.max(axis=2, keepdims=True) > 0
    noise = rng.normal(0.0, 6.0 * strength, frame.shape).astype(np.float32)
    return _levels(np.where(lit, picture + noise, picture))


def _spot(
    picture: npt.NDArray[np.float32],
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.float32],
    at: tuple[float, float],
    radius: float,
    color: tuple[float, float, float],
) -> None:
    weight = np.exp(-((((x - at[0]) ** 2 + (y - at[1]) ** 2) / (radius * radius)) ** 2))
    picture += weight[:, :, None].astype(np.float32) * np.asarray(color, dtype=np.float32)


def _draw_vessels(
    picture: npt.NDArray[np.float32],
    root: tuple[float, float],
    temporal: float,
    radius: float,
    rng: np.random.Generator,
) -> None:
    """Four arcades from the optic disc, arching around the macula."""
    layer = np.zeros(picture.shape[:2], dtype=np.uint8)
    sides: tuple[Literal[-1, 1], ...] = (-1, 1)
    for up in sides:
        for reach in (1.5, 0.9):
            t = np.linspace(0.0, 1.0, 24)
            wobble = rng.normal(0.0, 0.012, t.size).cumsum()
            px = root[0] + temporal * radius * reach * t
            py = root[1] + up * radius * (0.62 * np.sin(np.pi * 0.62 * t) + wobble)
            line = np.stack([px, py], axis=1).round().astype(np.int32)
            cv2.polylines(layer, [line], False, 255, max(1, round(radius * 0.022)), cv2.LINE_AA)
    dark = cv2.GaussianBlur(layer, (0, 0), 0.8).astype(np.float32)[:, :, None] / 255.0
    picture -= dark * np.array([45.0, 42.0, 22.0], dtype=np.float32)


def _levels(picture: npt.NDArray[np.float32]) -> Frame:
    frame: Frame = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return frame
