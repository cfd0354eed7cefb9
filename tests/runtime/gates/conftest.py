"""The photograph that comes with the package, as the gates' good eye; makes `faults` importable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest

from fundus_runtime.errors import UngradableError
from fundus_runtime.gates import GateThresholds, GateVerdict, judge
from fundus_runtime.photograph import decode_photograph
from fundus_runtime.preprocess import FieldOfView, NativePreprocessor, PreprocessSpec

sys.path.insert(0, str(Path(__file__).parent))

Judged = GateVerdict | str


@pytest.fixture(scope="session")
def eye() -> np.ndarray:
    """A good photograph of a left eye, at 800 px."""
    source = resources.files("fundus_runtime").joinpath("data/retina.jpg")
    frame = decode_photograph(source.read_bytes(), name="retina.jpg")
    factor = 800 / min(frame.shape[:2])
    return cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def field_of() -> Callable[[np.ndarray], FieldOfView]:
    finder = NativePreprocessor(PreprocessSpec(size=32))
    return lambda frame: finder.crop(frame, color="rgb").field_of_view


@pytest.fixture(scope="session")
def verdict_on(field_of) -> Callable[..., Judged]:
    """The verdict on an RGB frame, or the reason why it has no field of view."""

    def verdict(frame: np.ndarray, declared: str | None = None, **bounds: float) -> Judged:
        try:
            field = field_of(frame)
        except UngradableError as error:
            return error.reason
        return judge(frame, field, GateThresholds(**bounds), declared_eye=declared, color="rgb")

    return verdict
