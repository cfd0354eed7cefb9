"""Contenders take turns, and figures are medians over rounds."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fundus_benchmarks.ratios.turns import Rounds, take_turns


def test_contenders_take_turns_and_the_first_rounds_are_left_out() -> None:
    seen: list[tuple[str, int]] = []
    rounds = take_turns(
        {
            "own": lambda turn: seen.append(("own", turn)) or 3.0 + turn,
            "whole": lambda turn: seen.append(("whole", turn)) or time.sleep(0.002),
        },
        seconds=0.0,
    )
    assert seen[:4] == [("own", 0), ("whole", 0), ("own", 1), ("whole", 1)]
    assert list(rounds.ms["own"]) == [3.0 + turn for turn in range(2, len(seen) // 2)]
    assert rounds.timings["own"].count >= 7
    assert rounds.timings["whole"].p50_ms >= 2


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    rounds = Rounds({"slow": np.array([2.0, 30.0, 4.0]), "fast": np.array([1.0, 10.0, 1.0])})
    assert rounds.ratio("slow", "fast") == 3.0


def test_what_lies_beyond_the_parts_is_compared_within_a_round() -> None:
    rounds = Rounds(
        {"whole": np.array([10.0, 40.0, 11.0]), "a": np.array([4.0, 20.0, 4.0])}
        | {"b": np.array([5.0, 19.0, 5.0])}
    )
    assert rounds.beyond_ms("whole", ("a", "b")) == pytest.approx(1.0)
