"""A ready pair: both eyes through the encoder at once, then graded like any exam."""

from __future__ import annotations

import numpy as np

from fundus_runtime.backends.protocol import EncodedEyes, Float32Array
from fundus_runtime.engine import Engine
from fundus_runtime.errors import UsageError
from fundus_runtime.grader import EncodedEye, Grader, conclude
from fundus_runtime.labels import Eye
from fundus_runtime.prepared import PreparedEye, refuse_same_photograph
from fundus_runtime.preparer import EyePreparer
from fundus_runtime.preprocess import PreprocessSpec
from fundus_runtime.result import ExamResult

__all__ = ["screen_pair"]


def screen_pair(
    preparer: EyePreparer,
    engine: Engine,
    grader: Grader,
    left: PreparedEye,
    right: PreparedEye,
    *,
    batch: Float32Array | None = None,
) -> ExamResult:
    """Screen two prepared eyes; the encoder runs at batch 2, or 1 where only one is usable.

    Args:
        preparer: of the screener.
        engine: of the screener.
        grader: of the screener.
        left: the left eye.
        right: the right eye.
        batch: (2, 3, S, S), where both tensors lie already; None where each has its own memory.

    Raises:
        UsageError: the eyes are exchanged, or were prepared for another bundle.
        EngineError: the engine failed; there is no result.
    """
    if left.eye != "left" or right.eye != "right":
        raise UsageError(f"expected the left and the right eye, got {left.eye}, {right.eye}")
    for eye in (left, right):
        _require_own_preprocessing(eye, preparer.spec, grader.manifest.name)
    likeness = preparer.likeness(left, right)
    if likeness is not None and not likeness.passed:
        right = refuse_same_photograph(right)
    usable = [eye for eye in (left, right) if eye.tensor is not None]
    encoded: dict[Eye, EncodedEyes] = {}
    encode_ms = None
    if usable:
        if batch is None or len(usable) < 2:
            batch = np.stack([eye.tensor for eye in usable if eye.tensor is not None])
        both, encode_ms = engine.encode(batch, [eye.eye for eye in usable])
        encoded = {eye.eye: _row(both, i) for i, eye in enumerate(usable)}
    eyes = (EncodedEye(eye, encoded.get(eye.eye)) for eye in (left, right))
    return conclude(engine, grader, *eyes, likeness=likeness, encode_ms=encode_ms)


def _row(batch: EncodedEyes, index: int) -> EncodedEyes:
    """One eye of a batch, as a batch of one."""
    own = slice(index, index + 1)
    return EncodedEyes(
        batch.features[own],
        None if batch.logits is None else batch.logits[own],
        None if batch.maps is None else batch.maps[own],
    )


def _require_own_preprocessing(eye: PreparedEye, ours: PreprocessSpec, bundle: str) -> None:
    if eye.picture is not None and eye.picture.spec != ours:
        raise UsageError(
            f"the {eye.eye} eye was prepared by preprocessing {eye.picture.spec.sha256[:12]}, "
            f"but bundle {bundle!r} needs {ours.sha256[:12]}; prepare it with the screener that "
            "screens it"
        )
