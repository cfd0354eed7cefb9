"""Golden pairs: pictures in the bundle with the answers that every engine must give to them.

The pictures are the CC0 demonstration photograph and rendered fundi, taken worse by seeded steps;
none comes from a training collection. Answers are the PyTorch model's, after calibration. Since
processors differ they are compared within a tolerance, and on decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fundus_export.errors import ExportError
from fundus_export.rendered import degrade, render_fundus
from fundus_runtime.bundle import Bundle
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.photograph import decode_photograph
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import Screener

__all__ = [
    "PROBABILITY_TOLERANCE",
    "GoldenPair",
    "check_golden",
    "golden_entry",
    "golden_files",
    "golden_pairs",
]

PROBABILITY_TOLERANCE = 1e-3

_SIDE = 288
_SEED = 20_260_000

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class GoldenPair:
    """Two frames of one golden patient, H x W x 3 RGB.

    Attributes:
        name: of the pair, its number in two digits.
        left: the left eye.
        right: the right eye.
    """

    name: str
    left: Frame
    right: Frame

    def frame(self, eye: Eye) -> Frame:
        """The picture of one eye."""
        return self.left if eye == "left" else self.right


def golden_pairs(count: int = 8) -> tuple[GoldenPair, ...]:
    """The golden pairs, photographs and rendered ones in turn; the same for every bundle."""
    photograph = _demonstration_photograph()
    pairs = []
    for index in range(count):
        strength = index / max(count - 1, 1)
        left, right = photograph, np.ascontiguousarray(photograph[:, ::-1])
        if index % 2:
            left = render_fundus("left", side=_SIDE, seed=_SEED + index)
            right = render_fundus("right", side=_SIDE, seed=_SEED + 100 + index)
        left = degrade(left, strength=strength, seed=_SEED + 2 * index)
        right = degrade(right, strength=strength, seed=_SEED + 2 * index + 1)
        pairs.append(GoldenPair(f"{index:02d}", left, right))
    return tuple(pairs)


def golden_files(pairs: tuple[GoldenPair, ...]) -> dict[str, bytes]:
    """PNG files by their names in the bundle; lossless, so that decoders cannot differ."""
    return {_name(pair, eye): _png(pair.frame(eye)) for pair in pairs for eye in EYES}


def golden_entry(pairs: tuple[GoldenPair, ...], answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest's `golden`: where the pictures are, and what must come out."""
    return {
        "probability_tolerance": PROBABILITY_TOLERANCE,
        "source": "retina.jpg by Mikael Häggström (CC0) and rendered fundi, degraded by seed",
        "pairs": [
            {"left": _name(pair, "left"), "right": _name(pair, "right"), **answer}
            for pair, answer in zip(pairs, answers, strict=True)
        ],
    }


def check_golden(bundle: Bundle) -> float:
    """Screen a bundle's golden pairs from their files, as a robot would.

    A decision is compared where its probability is further from the threshold than the tolerance.

    Returns:
        The largest difference of a probability from the recorded one.

    Raises:
        ExportError: an answer is another one than was recorded.
    """
    golden = bundle.manifest.reported["golden"]
    tolerance = golden["probability_tolerance"]
    largest = 0.0
    with Screener.open(bundle) as screener:
        for pair in golden["pairs"]:
            files = {eye: bundle.file(pair[eye]) for eye in EYES}
            result = screener.screen_files(files["left"], files["right"])
            difference = _difference(result, pair)
            if not difference <= tolerance or _decides_otherwise(result, pair, tolerance):
                raise ExportError(
                    f"the runtime answers the golden pair {pair['left']}, {pair['right']} "
                    f"otherwise than PyTorch (a probability differs by {difference:.2e}, "
                    f"{tolerance:g} is allowed); this is a fault of the export, please report it"
                )
            largest = max(largest, difference)
    return largest


def _difference(result: ExamResult, pair: Mapping[str, Any]) -> float:
    """Largest difference of a probability; infinite where one is missing."""
    answers = (
        (result.probabilities, pair["probabilities"]),
        (result.left.probabilities, pair["left_probabilities"]),
        (result.right.probabilities, pair["right_probabilities"]),
    )
    if any(came.keys() != recorded.keys() for came, recorded in answers):
        return float("inf")
    return float(np.max([abs(came[k] - recorded[k]) for came, recorded in answers for k in came]))


def _decides_otherwise(result: ExamResult, pair: Mapping[str, Any], tolerance: float) -> bool:
    return any(
        decision.present != (letter in pair["present"])
        for letter, decision in result.decisions.items()
        if abs(decision.probability - decision.threshold) > tolerance
    )


def _name(pair: GoldenPair, eye: Eye) -> str:
    return f"golden/{pair.name}_{eye}.png"


def _demonstration_photograph() -> Frame:
    source = resources.files("fundus_runtime").joinpath("data/retina.jpg")
    whole = decode_photograph(source.read_bytes(), name="retina.jpg")
    return cv2.resize(whole, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _png(frame: Frame) -> bytes:
    _, data = cv2.imencode(".png", frame[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return data.tobytes()
