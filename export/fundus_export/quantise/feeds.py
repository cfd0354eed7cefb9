"""What encoder and head are fed with while ranges are measured, made of calibration photographs.

Every feed is one exam: arrays are float32 with a batch of 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from fundus_export.quantise.cpu_graph import CpuGraph
from fundus_export.quantise.images import CalibrationImages
from fundus_runtime.backends.protocol import HEAD_INPUTS, Float32Array, encoder_feeds
from fundus_runtime.labels import EYES, Eye

__all__ = ["ABSENT_EVERY", "eye_feeds", "feature_pair_count", "feature_pairs"]

# Exams with one eye are the exception on a robot as here: they must widen the head's ranges where
# the absent eye stands, not outweigh the others in a percentile.
ABSENT_EVERY = 8
_PRESENT, _ABSENT = np.ones(1, np.float32), np.zeros(1, np.float32)

Feed = dict[str, Float32Array]


def eye_feeds(encoder: bytes, images: CalibrationImages) -> Iterator[Feed]:
    """The encoder's feeds: every eye, `len(images.files)` in all.

    An encoder that treats the eyes differently is told which one it sees. Photographs whose names
    do not say so are taken for left and right eyes by turns, as both encoders must be measured.

    Args:
        encoder: the FP32 encoder, serialised.
        images: the photographs.

    Raises:
        ExportError: the encoder cannot be loaded, or a photograph changed meanwhile.
    """
    graph = CpuGraph(encoder, "the encoder")
    unknown = 0
    for file, eye in zip(images.files, images.eyes(), strict=True):
        side = file.eye
        if side is None:
            side, unknown = EYES[unknown % 2], unknown + 1
        yield _encoder_feed(graph, eye[None], [side])


def feature_pairs(encoder: bytes, images: CalibrationImages) -> Iterator[Feed]:
    """The head's feeds: what an encoder makes of every pair, `feature_pair_count` in all.

    Every pair comes with both eyes present. One in `ABSENT_EVERY`, and at least two, comes a second
    time with one eye absent, left and right by turns, as the runtime would feed it: zeros and flag
    0. Which ones depends on the photographs' content alone.

    Args:
        encoder: the FP32 encoder, serialised.
        images: the photographs.

    Raises:
        ExportError: the encoder cannot be run, or a photograph changed meanwhile.
    """
    graph = CpuGraph(encoder, "the encoder")
    absent = _absent_eyes(images)
    for row, pair in enumerate(images.pairs()):
        features = graph.run(_encoder_feed(graph, np.stack(pair), EYES))["features"]
        left, right = features[:1], features[1:]
        yield _head_feed(left, right, _PRESENT, _PRESENT)
        if absent.get(row) == "left":
            yield _head_feed(np.zeros_like(left), right, _ABSENT, _PRESENT)
        elif absent.get(row) == "right":
            yield _head_feed(left, np.zeros_like(right), _PRESENT, _ABSENT)


def feature_pair_count(images: CalibrationImages) -> int:
    """How many feeds `feature_pairs` yields."""
    return len(images.pair_files) + len(_absent_eyes(images))


def _encoder_feed(graph: CpuGraph, images: Float32Array, eyes: Sequence[Eye]) -> Feed:
    feeds = encoder_feeds(images, eyes)
    return {name: feeds[name] for name in graph.inputs}


def _head_feed(
    left: Float32Array, right: Float32Array, left_present: Float32Array, right_present: Float32Array
) -> Feed:
    return dict(zip(HEAD_INPUTS, (left, right, left_present, right_present), strict=True))


def _absent_eyes(images: CalibrationImages) -> dict[int, str]:
    """Rows of `pair_files` that come again without an eye, and without which."""
    hashes = [
        hashlib.sha256(f"{left.sha256}{right.sha256}".encode()).digest()
        for left, right in images.pair_files
    ]
    count = max(2, -(-len(hashes) // ABSENT_EVERY))
    chosen = sorted(range(len(hashes)), key=hashes.__getitem__)[:count]
    return {row: "right" if turn % 2 else "left" for turn, row in enumerate(chosen)}
