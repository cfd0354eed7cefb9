"""A peer that prepares another picture is found before anything is timed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fundus_benchmarks.contenders.agreement import require_same_picture
from fundus_benchmarks.contenders.peers import preprocess_with_opencv
from fundus_runtime.latency.frames import camera_frames
from fundus_runtime.preprocess import PreprocessSpec
from fundus_runtime.preprocess.native import NativePreprocessor

SPEC = PreprocessSpec()
FRAMES = camera_frames(2)
Faulty = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize("frame", FRAMES, ids=["left", "right"])
def test_opencvs_users_prepare_the_same_picture(frame: np.ndarray) -> None:
    eye = NativePreprocessor(SPEC).prepare(frame, color="rgb")
    require_same_picture(eye, preprocess_with_opencv(frame, SPEC), SPEC, "a frame")


@pytest.mark.parametrize(
    "faulty",
    [
        lambda eye: eye[::-1],
        lambda eye: eye[:, :, ::-1],
        lambda eye: np.roll(eye, 1, axis=2),
        lambda eye: 0.9 * eye + 0.1,
        np.zeros_like,
    ],
    ids=["channels exchanged", "mirrored", "a pixel aside", "other normalisation", "nothing"],
)
def test_another_picture_is_refused(faulty: Faulty) -> None:
    eye = NativePreprocessor(SPEC).prepare(FRAMES[0], color="rgb")
    theirs = np.ascontiguousarray(faulty(preprocess_with_opencv(FRAMES[0], SPEC)))
    with pytest.raises(RuntimeError, match="a frame otherwise"):
        require_same_picture(eye, theirs, SPEC, "a frame")
