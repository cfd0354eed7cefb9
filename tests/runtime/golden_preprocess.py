"""Writes `data/golden_preprocess.npz`: drawn fundi and what the reference makes of them.

Run it after a change of the definition alone: `python tests/runtime/golden_preprocess.py`.
Every other implementation is held to this file. No photograph is in it.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fundus_runtime.preprocess import PreprocessSpec, crop_eye, normalise_crop

PATH = Path(__file__).parent / "data" / "golden_preprocess.npz"

SPEC = PreprocessSpec(size=40, illumination_window_px=9)


def eye(
    height: int, width: int, center: tuple[float, float], radius: tuple[float, float], seed: int
) -> np.ndarray:
    """A disc that darkens to its rim, with an optic disc, vessels and a little grain."""
    random = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    across, down = (x + 0.5 - center[0]) / radius[0], (y + 0.5 - center[1]) / radius[1]
    distance2 = across**2 + down**2
    bright = 1 + 0.8 * np.exp(-((across - 0.5) ** 2 + down**2) / 0.02)
    level = 150 * (1 - 0.5 * distance2) * bright * (distance2 <= 1)
    frame = level[:, :, None] * np.array([1.0, 0.55, 0.3])
    for turn in random.uniform(0, 6.28, 7):
        start = (center[0] + 0.5 * radius[0], center[1])
        end = (center[0] + np.cos(turn) * radius[0], center[1] + np.sin(turn) * radius[1])
        points = [tuple(int(v) for v in point) for point in (start, end)]
        mark = cv2.line(np.zeros((height, width), np.uint8), *points, 1, 2)
        frame *= np.where(mark[:, :, None] > 0, 0.6, 1.0)
    grain = random.integers(0, 4, (height // 4 + 1, width // 4 + 1)).repeat(4, 0).repeat(4, 1)
    frame += grain[:height, :width, None]
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def cases() -> dict[str, tuple[np.ndarray, PreprocessSpec]]:
    """Frames in RGB, and the specs to prepare them by."""
    whole = eye(150, 190, (95.0, 75.0), (64.0, 64.0), 1)
    notched = cv2.circle(whole.copy(), (140, 30), 9, (150, 80, 45), -1)
    banded = whole.copy()
    banded[:36], banded[118:] = 0, 0
    return {
        "whole": (whole, SPEC),
        "divided": (whole, replace(SPEC, illumination="divide", illumination_gain=1.0)),
        "uncorrected": (whole, replace(SPEC, illumination="none", mask_permille=1000)),
        "notched": (notched, SPEC),
        "banded": (banded, SPEC),
        "cut": (eye(120, 190, (95.0, 40.0), (62.0, 62.0), 2), SPEC),
        "squashed": (eye(150, 190, (95.0, 75.0), (52.0, 70.0), 3), SPEC),
        "enlarged": (eye(90, 100, (50.0, 46.0), (35.0, 35.0), 4), replace(SPEC, size=80)),
        "wide crop": (whole, replace(SPEC, crop_permille=1150, size=48)),
        "two to one": (whole, replace(SPEC, size=64)),
    }


def answers(name: str, frame: np.ndarray, spec: PreprocessSpec) -> dict[str, Any]:
    crop = crop_eye(frame, spec)
    parts: dict[str, Any] = {
        "frame": frame,
        "spec": spec.canonical().decode(),
        "field_of_view": list(crop.field_of_view.to_dict().values()),
        "box": list(asdict(crop.box).values()),
        "image": crop.image,
        "mask": crop.mask,
    }
    # The tensor follows from image and mask; one of each kind keeps the file small.
    if name in ("whole", "divided", "uncorrected"):
        parts["tensor"] = normalise_crop(crop.image, crop.mask, spec)
    return parts


def main() -> None:
    arrays = {
        f"{name}/{part}": value
        for name, (frame, spec) in cases().items()
        for part, value in answers(name, frame, spec).items()
    }
    np.savez_compressed(PATH, **arrays)
    print(f"wrote {PATH}, {PATH.stat().st_size} bytes")


if __name__ == "__main__":
    main()
