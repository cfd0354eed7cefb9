"""Runs through I/O binding, with the CPU in the GPU's place."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from fundus_runtime.backends.io_binding import BoundSession

OUTPUTS = ("features", "eye_logits")


@pytest.fixture
def session(graphs):
    return onnxruntime.InferenceSession(graphs["encoder"](), providers=["CPUExecutionProvider"])


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 64, 64)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_answers_are_those_of_a_plain_run(session, count: int) -> None:
    feeds = {"image": images(count)}
    bound = BoundSession(session, OUTPUTS, device="cpu")
    for came, expected in zip(bound.run(feeds), session.run(OUTPUTS, feeds), strict=True):
        np.testing.assert_array_equal(came, expected)


def test_batches_in_turn_use_their_own_memory(session) -> None:
    bound = BoundSession(session, OUTPUTS, device="cpu")
    for seed, count in enumerate((1, 2, 1, 2, 2)):
        feeds = {"image": images(count, seed)}
        np.testing.assert_array_equal(bound.run(feeds)[0], session.run(OUTPUTS, feeds)[0])


def test_memory_for_ever_new_batches_does_not_pile_up(session) -> None:
    bound = BoundSession(session, OUTPUTS, device="cpu")
    for count in range(1, 20):
        feeds = {"image": images(count)}
        np.testing.assert_array_equal(bound.run(feeds)[0], session.run(OUTPUTS, feeds)[0])
    assert len(bound._bound) <= 8


def test_an_answer_and_the_callers_array_stay_as_they_were(session) -> None:
    bound = BoundSession(session, OUTPUTS, device="cpu")
    given = images(1)
    kept_given = given.copy()
    first = bound.run({"image": given})
    kept = [value.copy() for value in first]
    bound.run({"image": images(1, seed=1)})
    np.testing.assert_array_equal(given, kept_given)
    for value, was in zip(first, kept, strict=True):
        np.testing.assert_array_equal(value, was)


def test_arrays_that_are_not_contiguous_are_taken(session) -> None:
    feeds = {"image": images(4)[::2]}
    bound = BoundSession(session, OUTPUTS, device="cpu")
    expected = session.run(OUTPUTS, {"image": feeds["image"].copy()})
    np.testing.assert_array_equal(bound.run(feeds)[0], expected[0])
