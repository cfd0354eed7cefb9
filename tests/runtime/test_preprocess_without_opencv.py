"""The preprocessing where OpenCV is not installed, as on a robot, and its NumPy stand-in."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fundus_runtime.preprocess
from fundus_runtime.preprocess.illumination import box_sum

WITHOUT_OPENCV = "import sys\nsys.modules['cv2'] = None\n"


def run_without_opencv(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OPENCV + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "statement",
    [
        "from fundus_runtime.preprocess import preprocess",
        "import fundus_runtime.preprocess; fundus_runtime.preprocess.thumbnail_stride",
        "import fundus_runtime.preprocess.reference",
    ],
)
def test_reference_without_opencv_is_an_error_that_says_what_to_install(statement: str) -> None:
    words = run_without_opencv(
        "from fundus_runtime.errors import FundusError, ReferenceMissingError\n"
        f"try:\n    {statement}\n"
        "except ReferenceMissingError as error:\n"
        "    assert isinstance(error, FundusError) and isinstance(error, ImportError)\n"
        "    print(error)\n"
    )
    assert "pip install opencv-python-headless" in words


def test_frames_are_prepared_without_opencv() -> None:
    run_without_opencv(
        "import numpy as np\n"
        "from fundus_runtime.preprocess import NativePreprocessor, PreprocessSpec, visible_crop\n"
        "y, x = np.ogrid[:300, :320]\n"
        "disc = (y - 150) ** 2 + (x - 160) ** 2 < 120**2\n"
        "frame = (disc[:, :, None] * np.array([200, 90, 40])).astype(np.uint8)\n"
        "eye = NativePreprocessor(PreprocessSpec()).prepare(frame, color='rgb')\n"
        "assert visible_crop(eye.crop, eye.mask, PreprocessSpec()).shape == (224, 224, 3)\n"
    )


def test_every_public_name_is_there_and_others_are_not() -> None:
    for name in fundus_runtime.preprocess.__all__:
        assert getattr(fundus_runtime.preprocess, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fundus_runtime.preprocess.nothing  # noqa: B018


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    half=st.integers(0, 80),
    channels=st.sampled_from([0, 3]),
    seed=st.integers(0, 99),
)
def test_box_sums_equal_opencv_to_the_bit(
    height: int, width: int, half: int, channels: int, seed: int
) -> None:
    shape = (height, width, channels) if channels else (height, width)
    levels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    window = 2 * half + 1
    expected = cv2.boxFilter(
        levels, -1, (window, window), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    assert np.array_equal(box_sum(levels, window), expected.reshape(shape))


def test_box_sums_too_large_for_fp32_are_rounded_as_opencv_rounds_them() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (700, 700)).astype(np.float32)
    expected = cv2.boxFilter(
        levels, -1, (601, 601), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    assert expected.max() > 2**24
    assert np.array_equal(box_sum(levels, 601), expected)
