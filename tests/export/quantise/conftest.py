"""A folder of drawn photographs: pairs, a single eye, and files that are none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fundus_export.quantise.images import CalibrationImages, Minimum, open_calibration_images
from fundus_export.rendered import render_fundus
from fundus_runtime.labels import EYES
from fundus_runtime.preprocess import PreprocessSpec

SPEC = PreprocessSpec(size=32, illumination_window_px=5)
PAIRS = 10

Draw = Callable[..., Path]


@pytest.fixture(scope="session")
def spec() -> PreprocessSpec:
    return SPEC


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Write a drawn fundus; black instead is a photograph that cannot be graded."""

    def write(path: Path, *, seed: int = 0, black: bool = False) -> Path:
        frame = render_fundus("right" if "right" in path.name else "left", side=96, seed=seed)
        if black:
            frame = np.zeros_like(frame)
        assert cv2.imwrite(str(path), frame[:, :, ::-1])
        return path

    return write


@pytest.fixture(scope="session")
def drawn_folder(draw: Draw, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ten pairs, 0 to 9, and one photograph that says no eye; no test may change it."""
    folder = tmp_path_factory.mktemp("photographs")
    for pair in range(PAIRS):
        for eye in EYES:
            draw(folder / f"{pair}_{eye}.png", seed=10 * pair + (eye == "right"))
    draw(folder / "macula.PNG", seed=1000)
    (folder / "list.csv").write_text("id\n")
    (folder / "more").mkdir()
    draw(folder / "more" / "99_left.png", seed=1001)
    before = {path.name: path.stat().st_mtime_ns for path in os.scandir(folder)}
    yield folder
    assert {path.name: path.stat().st_mtime_ns for path in os.scandir(folder)} == before


@pytest.fixture(scope="session")
def images(drawn_folder: Path) -> CalibrationImages:
    return open_calibration_images(drawn_folder, SPEC, minimum=Minimum(2, 1), progress=False)
