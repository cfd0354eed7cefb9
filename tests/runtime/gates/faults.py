"""Faults of a photograph in graded strength, and round things that are no fundus. uint8 RGB."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from fundus_runtime.preprocess.eye import FieldOfView

Frame = np.ndarray
Fault = Callable[[Frame, FieldOfView, float], Frame]


def _levels(values: np.ndarray) -> Frame:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _disc_grid(frame: Frame, disc: FieldOfView) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates about the disc's centre in units of its radius: across, down."""
    across = (np.arange(frame.shape[1]) + 0.5 - disc.center_x_px) / disc.radius_x_px
    down = (np.arange(frame.shape[0]) + 0.5 - disc.center_y_px) / disc.radius_y_px
    return across[None, :], down[:, None]


def blurred(frame: Frame, disc: FieldOfView, permille: float) -> Frame:
    """Gaussian blur; sigma in thousandths of the disc's diameter. The rim stays sharp."""
    sigma = permille / 1000 * 2 * disc.radius_x_px
    if sigma == 0:
        return frame
    across, down = _disc_grid(frame, disc)
    inside = (across**2 + down**2 <= 0.98).astype(np.float32)[:, :, None]
    total = cv2.GaussianBlur(frame * inside, (0, 0), sigma)
    weight = cv2.GaussianBlur(inside, (0, 0), sigma).reshape(inside.shape)
    return _levels(np.where(inside > 0, total / np.maximum(weight, 1e-3), frame))


def exposed(frame: Frame, disc: FieldOfView, gain: float) -> Frame:
    """Levels times `gain`, clipped."""
    return _levels(frame * np.float32(gain))


def dimmed(frame: Frame, disc: FieldOfView, stops: float) -> Frame:
    """Under-exposed by some halvings."""
    return exposed(frame, disc, 2.0**-stops)


def hazed(frame: Frame, disc: FieldOfView, share: float) -> Frame:
    """A grey veil over the disc, as of a small pupil or a cloudy lens; 0 to 1."""
    across, down = _disc_grid(frame, disc)
    veil = share * (across**2 + down**2 <= 1)[:, :, None]
    return _levels(frame * (1 - veil) + veil * np.array([150.0, 140.0, 120.0]))


def lid(frame: Frame, disc: FieldOfView, share: float) -> Frame:
    """The upper part of the disc's height nearly dark, with a soft edge, as of a lid or lashes."""
    _, down = _disc_grid(frame, disc)
    edge = 2 * share - 1
    light = np.clip((down - edge) / 0.1 + 0.5, 0.08, 1.0) if share > 0 else np.ones_like(down)
    return _levels(frame * light[:, :, None])


def vignetted(frame: Frame, disc: FieldOfView, share: float) -> Frame:
    """Dark beyond a radius of 1 - share, as a small pupil leaves it."""
    across, down = _disc_grid(frame, disc)
    radius = np.sqrt(across**2 + down**2)
    light = np.clip((1 - share - radius) / 0.15 + 1.0, 0.25, 1.0) if share > 0 else 1 + 0 * radius
    return _levels(frame * light[:, :, None])


def noisy(frame: Frame, disc: FieldOfView, sigma: float) -> Frame:
    """White noise of `sigma` levels on every pixel of a 1,880 px disc, less on a smaller one."""
    here = sigma / np.sqrt(1880 / (2 * disc.radius_x_px))
    return _levels(frame + np.random.default_rng(5).normal(0, here, frame.shape))


def cut(frame: Frame, disc: FieldOfView, share: float) -> Frame:
    """That share of the disc's width beyond the frame's left border."""
    first = disc.center_x_px - disc.radius_x_px + round(2 * disc.radius_x_px * share)
    return np.ascontiguousarray(frame[:, max(first, 0) :])


# each in rising strength, from none
FAULTS: dict[str, tuple[Fault, tuple[float, ...]]] = {
    "blur": (blurred, (0, 2, 4, 6, 8, 12, 16, 24)),
    "over": (exposed, (1, 1.3, 1.7, 2.2, 3, 4, 6, 9)),
    "under": (dimmed, (0, 0.5, 1, 1.5, 2, 2.5, 3, 4)),
    "haze": (hazed, (0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9)),
    "lid": (lid, (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
    "vignette": (vignetted, (0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)),
    "noise": (noisy, (0, 4, 8, 12, 16, 24, 32, 48)),
    "cut": (cut, (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
}
# the figure that must move one way as a fault grows, and which way
MOVES: dict[str, tuple[str, int]] = {
    "blur": ("detail", -1),
    "over": ("clipped_percent", 1),
    "under": ("level", -1),
    "haze": ("detail", -1),
    "lid": ("shaded_percent", 1),
    "vignette": ("shaded_percent", 1),
    "noise": ("noise", 1),
    "cut": ("visible_percent", -1),
}


def round_thing(color: tuple[int, int, int]) -> tuple[Frame, tuple[int, int], int]:
    """A disc of one colour on a dark surround; its centre and radius."""
    frame = np.full((972, 1296, 3), 4, np.uint8)
    center, radius = (648, 486), 440
    cv2.circle(frame, center, radius, color, -1)
    return frame, center, radius


def photographed(frame: Frame) -> Frame:
    """A little blur and noise, as of a camera."""
    soft = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.2)
    return _levels(soft + np.random.default_rng(7).normal(0, 2, frame.shape))


def lamp() -> Frame:
    """Bright, round, nearly white."""
    return photographed(round_thing((255, 252, 240))[0])


def moon() -> Frame:
    """Grey, with craters."""
    frame, center, radius = round_thing((188, 187, 184))
    rng = np.random.default_rng(3)
    for _ in range(150):
        turn, far = rng.uniform(0, 6.283), radius * 0.93 * float(np.sqrt(rng.uniform()))
        at = (int(center[0] + far * np.cos(turn)), int(center[1] + far * np.sin(turn)))
        level = int(rng.uniform(90, 150))
        cv2.circle(frame, at, int(rng.uniform(4, 30)), (level, level, level), 2)
    return photographed(frame)


def face() -> Frame:
    """A round face with eyes, brows, nose and mouth."""
    frame, (x, y), radius = round_thing((225, 172, 140))
    dark = (60, 40, 35)
    for side in (-1, 1):
        eye = (x + side * radius // 3, y - radius // 5)
        cv2.ellipse(frame, eye, (radius // 7, radius // 14), 0, 0, 360, (250, 250, 250), -1)
        cv2.circle(frame, eye, radius // 15, dark, -1)
        brow = (eye[0], y - radius // 3)
        cv2.ellipse(frame, brow, (radius // 6, radius // 20), 0, 180, 360, dark, 8)
    cv2.line(frame, (x, y - radius // 8), (x - radius // 14, y + radius // 8), (170, 120, 95), 6)
    mouth = (x, y + radius // 3)
    cv2.ellipse(frame, mouth, (radius // 3, radius // 6), 0, 10, 170, (150, 50, 50), 14)
    return photographed(frame)


def leaf() -> Frame:
    """Green, with veins."""
    frame, (x, y), radius = round_thing((80, 140, 50))
    for turn in np.linspace(0, 2 * np.pi, 40, endpoint=False):
        end = (int(x + radius * np.cos(turn)), int(y + radius * np.sin(turn)))
        cv2.line(frame, (x, y), end, (50, 90, 35), 4)
    return photographed(frame)


def plate(color: tuple[int, int, int]) -> Frame:
    """One colour, no structure."""
    return photographed(round_thing(color)[0])


@cache
def no_fundus() -> dict[str, Frame]:
    """Round bright things that the field-of-view rule takes for a disc."""
    return {
        "lamp": lamp(),
        "moon": moon(),
        "face": face(),
        "leaf": leaf(),
        "red plate": plate((200, 60, 40)),
        "orange plate": plate((230, 120, 40)),
        "green plate": plate((60, 170, 60)),
        "blue plate": plate((60, 90, 190)),
    }
