"""How latency grows with the frame: 1 to 20 megapixels, the disc always the same share."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_benchmarks.contenders.agreement import require_same_answers
from fundus_benchmarks.contenders.models import edge_bundle
from fundus_benchmarks.growth.curves import Curve, Effort, points_in_turns
from fundus_benchmarks.ratios.turns import Contender
from fundus_runtime.latency.exams import ready_pair
from fundus_runtime.latency.frames import camera_frames
from fundus_runtime.screener import Screener

__all__ = ["megapixels", "resized"]

Frame = NDArray[np.uint8]

_MEGAPIXELS = (1, 2, 5, 10, 20)
_QUALITY = 90
# Of a pair's probabilities, in the mean: the same frames, scaled, and with noise of their own.
_SAME_FRAMES = 0.05
_SERIES = {
    "pair": "pair at once",
    "eye": "one eye: preprocessing and gates",
    "file": "one eye from a JPEG file: decode, preprocessing and gates",
}


def megapixels(effort: Effort) -> list[Curve]:
    """The edge model's pair, and one eye's way to it, from an array and from a JPEG file."""
    drawn = camera_frames(2)
    pairs = {
        count: [resized(frame, count, seed) for seed, frame in enumerate(drawn)]
        for count in _MEGAPIXELS
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Screener.open(edge_bundle().bundle, threads=effort.threads) as screener,
    ):
        _require_same_results(screener, pairs)
        contenders: dict[tuple[str, float], Contender] = {}
        for count, pair in pairs.items():
            file = Path(folder, f"{count}.jpg")
            Image.fromarray(pair[0]).save(file, quality=_QUALITY)
            contenders |= _contenders(screener, pair, file)
        points = points_in_turns(contenders, effort.seconds)
        settings = {"dialect": screener.engine.dialect, "threads": effort.threads}
    return [
        Curve(
            *(f"megapixels_{series}", f"{what}, against the size of the frame", "edge"),
            *("frame", "megapixels", points[series]),
            settings=settings,
        )
        for series, what in _SERIES.items()
    ]


def resized(frame: Frame, count: float, seed: int) -> Frame:
    """The frame with about `count` megapixels of the same shape, and a sensor's noise of its own.

    Args:
        frame: uint8 RGB.
        count: 10^6 pixels.
        seed: of the noise.
    """
    height, width = frame.shape[:2]
    scale = math.sqrt(1e6 * count / (height * width))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = (round(scale * width), round(scale * height))
    scaled = np.asarray(cv2.resize(frame, size, interpolation=way), np.uint8)
    noise = np.random.default_rng(seed).integers(0, 5, scaled.shape, dtype=np.uint8)
    return scaled + np.minimum(noise, 255 - scaled)


def _contenders(
    screener: Screener, pair: Sequence[Frame], file: Path
) -> dict[tuple[str, float], Contender]:
    height, width = pair[0].shape[:2]
    count = round(height * width / 1e6, 2)

    def eye(_: int) -> None:
        screener.prepare("left", pair[0], color="rgb")

    def from_file(_: int) -> None:
        screener.prepare_file("left", file)

    return {
        ("pair", count): lambda _: ready_pair(screener, pair, 0)[1],
        ("eye", count): eye,
        ("file", count): from_file,
    }


def _require_same_results(screener: Screener, pairs: Mapping[int, Sequence[Frame]]) -> None:
    """Every size must be screened, with the answer that the camera's own gets.

    Raises:
        RuntimeError: a frame is refused, or answers otherwise.
    """
    answers = {}
    for count, (left, right) in pairs.items():
        result = screener.screen(left, right, color="rgb")
        for eye in (result.left, result.right):
            if eye.status != "ok":
                raise RuntimeError(
                    f"the {eye.eye} frame of {count} megapixels is {eye.status} ({eye.reason}); "
                    "nothing would be measured"
                )
        answers[count] = list(result.probabilities.values())
    for count, answer in answers.items():
        require_same_answers(f"{count} megapixels", [answer], [answers[5]], tolerance=_SAME_FRAMES)
