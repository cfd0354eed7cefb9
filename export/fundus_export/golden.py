"""Golden pairs: pictures in the bundle with the answers that every engine must give to them.

The pictures are the CC0 demonstration photograph and rendered fundi, taken worse by seeded steps;
none comes from a training collection. Answers are the PyTorch model's, after calibration. Since
processors differ they are compared within a tolerance, and on decisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fundus_export.errors import ExportError
from fundus_export.rendered import degrade, render_fundus
from fundus_runtime.bundle import Bundle
from fundus_runtime.golden import check_golden
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.photograph import decode_photograph

__all__ = [
    "PROBABILITY_TOLERANCE",
    "GoldenPair",
    "golden_entry",
    "golden_files",
    "golden_pairs",
    "require_golden",
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


def require_golden(bundle: Bundle) -> None:
    """Screen a bundle's golden pairs from their files, as a robot would.

    Raises:
        ExportError: an answer is another one than was recorded.
    """
    report = check_golden(bundle)
    if report is None or not report.passed:
        found = "it carries none" if report is None else f"wrong: {', '.join(report.wrong)}"
        raise ExportError(
            f"the runtime does not answer the bundle's golden pairs as PyTorch does ({found}); "
            "this is a fault of the export, please report it with the checkpoint's config"
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
