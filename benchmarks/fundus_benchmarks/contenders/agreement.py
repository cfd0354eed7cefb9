"""Before anything is timed: every contender does the same work on every frame.

Weights are random, so that probabilities tell little of a picture and move with any of its edges.
Preparation is therefore compared in the prepared eyes, and the models on the same prepared eyes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_benchmarks.contenders.peers import Peer, preprocess_with_opencv
from fundus_runtime.preprocess import EyeTensor, PreprocessSpec
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.screener import Screener

__all__ = [
    "BF16_TOLERANCE",
    "FP32_TOLERANCE",
    "INT8_TOLERANCE",
    "TOLERANCES",
    "require_agreement",
    "require_same_answers",
    "require_same_picture",
]

Answer = Sequence[float] | NDArray[np.floating[Any]]

# Of the normalised values, away from the rim, where the peers let the dark surround bleed into the
# local mean. On the drawn frames a correct preparation is 0.02 away, exchanged channels and a shift
# of one pixel 0.09.
_MEAN_TOLERANCE = 0.04
# Of probabilities, in the mean over all pairs and classes. PyTorch computes in FP32 what graphs
# compute in INT8, and OpenVINO rounds INT8 elsewhere: 0.03 to 0.04 with random weights. Other ones
# are 0.3 away, and the same ones without a picture 0.16.
INT8_TOLERANCE = 0.08
# Eight bits of a product's operands are kept, with random weights that is 0.01.
BF16_TOLERANCE = 0.05
# The same arithmetic in another order.
FP32_TOLERANCE = 0.001
# By what an engine computes in. FP16 and TF32 keep three more bits than BF16.
TOLERANCES = {
    "fp32": FP32_TOLERANCE,
    "tf32": BF16_TOLERANCE,
    "fp16": BF16_TOLERANCE,
    "int8": INT8_TOLERANCE,
}


def require_agreement(
    screener: Screener, peers: Mapping[str, Peer], frames: Sequence[NDArray[np.uint8]]
) -> None:
    """Compare the prepared eyes of all frames, then the probabilities of all pairs of them.

    Raises:
        RuntimeError: a peer does otherwise; its times would mean nothing.
    """
    spec = screener.manifest.spec
    native = NativePreprocessor(spec)
    eyes = [native.prepare(frame, color="rgb") for frame in frames]
    for index, (frame, eye) in enumerate(zip(frames, eyes, strict=True)):
        require_same_picture(eye, preprocess_with_opencv(frame, spec), spec, f"frame {index}")
    ours, pairs = [], []
    for first in range(0, len(frames) - 1, 2):
        result = screener.screen(frames[first], frames[first + 1], color="rgb")
        ours.append(list(result.probabilities.values()))
        pairs.append(np.stack([eye.tensor for eye in eyes[first : first + 2]]))
    for name, peer in peers.items():
        theirs = [screener.calibration.apply(peer.logits_of(pair)[0]) for pair in pairs]
        require_same_answers(name, theirs, ours, tolerance=INT8_TOLERANCE)


def require_same_answers(
    name: str, theirs: Sequence[Answer], ours: Sequence[Answer], *, tolerance: float
) -> float:
    """Compare the probabilities of several pairs; the mean of their differences.

    Args:
        name: who answered.
        theirs: of each pair.
        ours: likewise, of whom to trust.
        tolerance: of the mean.

    Raises:
        RuntimeError: they differ by more; its times would mean nothing.
    """
    difference = float(np.abs(np.array(theirs) - np.array(ours)).mean())
    if not difference <= tolerance:
        raise RuntimeError(
            f"{name} differs by {difference:.3f} in the mean of all probabilities, at most "
            f"{tolerance} was expected"
        )
    return difference


def require_same_picture(
    eye: EyeTensor, theirs: NDArray[np.float32], spec: PreprocessSpec, what: str
) -> None:
    """Compare an eye that a peer prepared with ours.

    Raises:
        RuntimeError: it is another picture, or the same in other values.
    """
    window = np.ones((spec.illumination_window_px + 2,) * 2, np.uint8)
    inner = cv2.erode(eye.mask.astype(np.uint8), window) != 0
    difference = float(np.abs(theirs - eye.tensor)[:, inner].mean())
    if not difference <= _MEAN_TOLERANCE:
        raise RuntimeError(
            f"the peers prepare {what} otherwise: {difference:.3f} in the mean, at most "
            f"{_MEAN_TOLERANCE} was expected"
        )
