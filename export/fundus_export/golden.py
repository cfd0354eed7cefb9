"""Golden pairs: pictures in the bundle with the answers that every engine must give to them.

The pictures are the CC0 demonstration photograph and rendered fundi, taken worse by seeded steps;
none comes from a training collection. Answers are logits: the PyTorch model's for `fp32`, those of
the graphs themselves, as they were certified on the CPU, for every other dialect. Since processors
differ, probabilities are compared within a tolerance, and on decisions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fundus_export.errors import ExportError
from fundus_export.parity import Answers
from fundus_export.quantise.scheme import precision_of
from fundus_export.rendered import degrade, render_fundus
from fundus_runtime.bundle import Bundle
from fundus_runtime.golden import check_golden
from fundus_runtime.labels import EYES, Eye
from fundus_runtime.photograph import decode_photograph
from fundus_runtime.screener import Screener

__all__ = [
    "ANSWERS_NAME",
    "PROBABILITY_TOLERANCES",
    "GoldenPair",
    "golden_answers",
    "golden_entry",
    "golden_files",
    "golden_pairs",
    "require_golden",
]

ANSWERS_NAME = "golden/answers.json"
# FP32 differs by the order of sums, FP16 by its 11 bits. In INT8 another engine may round a value
# that lies between two steps the other way, and the next layers carry that on.
PROBABILITY_TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2}

_SIDE = 256
_SEED = 20_260_000
_PICTURES = 16
# Sixteen eyes a side make thirty-two patients: each left eye comes with two right ones.
_PAIRS = 2 * _PICTURES
_SECOND_PARTNER = 5

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class GoldenPair:
    """Two frames of one golden patient, H x W x 3 RGB.

    Attributes:
        left: the left eye.
        right: the right eye.
        left_file: its name in the bundle.
        right_file: the right eye's name in the bundle.
    """

    left: Frame
    right: Frame
    left_file: str
    right_file: str

    def frame(self, eye: Eye) -> Frame:
        """The picture of one eye."""
        return self.left if eye == "left" else self.right

    def file(self, eye: Eye) -> str:
        """The name of one eye's picture."""
        return self.left_file if eye == "left" else self.right_file


def golden_pairs(count: int = _PAIRS) -> tuple[GoldenPair, ...]:
    """The golden pairs, photographs and rendered ones in turn; the same for every bundle."""
    pictures = [_pictures(index) for index in range(_PICTURES)]
    pairs = []
    for index in range(count):
        left = index % _PICTURES
        right = left if index < _PICTURES else (left + _SECOND_PARTNER) % _PICTURES
        names = (f"golden/{left:02d}_left.png", f"golden/{right:02d}_right.png")
        pairs.append(GoldenPair(pictures[left][0], pictures[right][1], *names))
    return tuple(pairs)


def _pictures(index: int) -> tuple[Frame, Frame]:
    """A left and a right eye, the worse the larger the index."""
    strength = index / (_PICTURES - 1)
    left = _demonstration_photograph()
    right = np.ascontiguousarray(left[:, ::-1])
    if index % 2:
        left = render_fundus("left", side=_SIDE, seed=_SEED + index)
        right = render_fundus("right", side=_SIDE, seed=_SEED + 100 + index)
    return (
        degrade(left, strength=strength, seed=_SEED + 2 * index),
        degrade(right, strength=strength, seed=_SEED + 2 * index + 1),
    )


def golden_files(
    pairs: tuple[GoldenPair, ...], answers: Mapping[str, Answers] | None = None
) -> dict[str, bytes]:
    """Files by their names in the bundle: PNG, so that decoders cannot differ, and the answers.

    Args:
        pairs: the pictures.
        answers: what every dialect answers them; None for the pictures alone.
    """
    files = {pair.file(eye): pair.frame(eye) for pair in pairs for eye in EYES}
    written = {name: _png(frame) for name, frame in files.items()}
    if answers is not None:
        written[ANSWERS_NAME] = golden_answers(pairs, answers)
    return written


def golden_answers(pairs: tuple[GoldenPair, ...], answers: Mapping[str, Answers]) -> bytes:
    """The file of expected answers: logits of every pair and eye, by dialect."""
    values = {
        "pairs": [{"left": pair.left_file, "right": pair.right_file} for pair in pairs],
        "answers": {
            dialect: {
                "probability_tolerance": PROBABILITY_TOLERANCES[precision_of(dialect)],
                "logits": _rows(came.both),
                "left_logits": _rows(came.left, len(pairs)),
                "right_logits": _rows(came.right, len(pairs)),
            }
            for dialect, came in answers.items()
        },
    }
    return (json.dumps(values, sort_keys=True, allow_nan=False) + "\n").encode()


def golden_entry() -> dict[str, Any]:
    """The manifest's `golden`: where the answers are, and what the pictures are."""
    return {
        "answers": ANSWERS_NAME,
        "source": "retina.jpg by Mikael Häggström (CC0) and rendered fundi, degraded by seed",
    }


def _rows(logits: npt.NDArray[np.float32] | None, count: int = 0) -> list[list[float]]:
    if logits is None:
        return [[] for _ in range(count)]
    return [[round(float(value), 6) for value in row] for row in logits]


def require_golden(bundle: Bundle, screener: Screener | None = None) -> None:
    """Screen a bundle's golden pairs from their files, as a robot would.

    Args:
        bundle: with its answers.
        screener: of the form to check; None for the one that a CPU takes.

    Raises:
        ExportError: an answer is another one than was recorded.
    """
    report = check_golden(bundle, screener=screener)
    if report is None or not report.passed:
        found = "it carries none" if report is None else f"wrong: {', '.join(report.wrong)}"
        raise ExportError(
            f"the runtime does not answer the bundle's golden pairs as recorded ({found}); "
            "this is a fault of the export, please report it with the checkpoint's config"
        )


def _demonstration_photograph() -> Frame:
    source = resources.files("fundus_runtime").joinpath("data/retina.jpg")
    whole = decode_photograph(source.read_bytes(), name="retina.jpg")
    return cv2.resize(whole, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _png(frame: Frame) -> bytes:
    _, data = cv2.imencode(".png", frame[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return data.tobytes()
