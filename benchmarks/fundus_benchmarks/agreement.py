"""Before anything is timed: every contender answers alike on every frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fundus_benchmarks.peers import Peer
from fundus_runtime.screener import Screener

__all__ = ["require_agreement"]

# The peers find the disc by a bounding box and prepare it in floating point, and PyTorch computes
# in FP32 what the graphs compute in INT8: the same picture, not the same numbers. A wrong channel
# order, crop or normalisation moves probabilities by several times this.
_PROBABILITY_TOLERANCE = 0.1


def require_agreement(
    screener: Screener, peers: Mapping[str, Peer], frames: Sequence[NDArray[np.uint8]]
) -> None:
    """Compare the patient's probabilities over all pairs of frames.

    Raises:
        RuntimeError: a peer answers otherwise; its times would mean nothing.
    """
    for first in range(0, len(frames) - 1, 2):
        left, right = frames[first], frames[first + 1]
        ours = np.array(list(screener.screen(left, right, color="rgb").probabilities.values()))
        for name, peer in peers.items():
            theirs = screener.calibration.apply(peer.logits(left, right)[0])
            difference = float(np.abs(theirs - ours).max())
            if not difference <= _PROBABILITY_TOLERANCE:
                raise RuntimeError(
                    f"{name} differs by {difference:.3f} in a probability on frames {first} and "
                    f"{first + 1}, at most {_PROBABILITY_TOLERANCE} was expected"
                )
