from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus_runtime.errors import ResultError
from fundus_runtime.labels import ODIR_CLASSES, ClassList
from fundus_runtime.outcome import Decision, decide

LETTERS = ODIR_CLASSES.letters
HALF = dict.fromkeys(LETTERS, 0.5)


def probabilities_of(present: tuple[bool, ...]) -> dict[str, float]:
    return {letter: 0.9 if one else 0.1 for letter, one in zip(LETTERS, present, strict=True)}


@pytest.mark.parametrize("complete", [True, False])
def test_every_combination_of_classes_follows_the_rule(complete: bool) -> None:
    for present in itertools.product([False, True], repeat=len(LETTERS)):
        decision = decide(probabilities_of(present), HALF, ODIR_CLASSES, complete=complete)
        normal, *others = present
        expected = (
            "ungradable"
            if not complete
            else "findings"
            if any(others)
            else "normal"
            if normal
            else "uncertain"
        )
        assert decision.outcome == expected
        assert decision.refer == (expected != "normal")
        assert decision.findings == tuple(
            letter for letter, one in zip(LETTERS[1:], others, strict=True) if one
        )


def test_nothing_screened_is_ungradable_and_referred() -> None:
    assert decide({}, HALF, ODIR_CLASSES, complete=False) == Decision("ungradable", True, ())


def test_a_probability_at_its_threshold_is_present() -> None:
    thresholds = dict.fromkeys(LETTERS, 0.3)
    probabilities = dict.fromkeys(LETTERS, 0.1)
    probabilities["G"] = 0.3
    assert decide(probabilities, thresholds, ODIR_CLASSES, complete=True).findings == ("G",)
    probabilities["G"] = math.nextafter(0.3, 0)
    assert decide(probabilities, thresholds, ODIR_CLASSES, complete=True).outcome == "uncertain"


classes_without_normal = ClassList(("a", "b"), ("first", "second"), None)
numbers = st.floats(0, 1)


@given(first=numbers, second=numbers, complete=st.booleans())
def test_a_list_without_a_normal_class_never_ends_as_normal(
    first: float, second: float, complete: bool
) -> None:
    decision = decide(
        {"a": first, "b": second}, {"a": 0.5, "b": 0.5}, classes_without_normal, complete=complete
    )
    assert decision.outcome != "normal"
    assert decision.refer


@given(values=st.lists(numbers, min_size=8, max_size=8), complete=st.booleans())
def test_only_normal_is_not_referred(values: list[float], complete: bool) -> None:
    probabilities = dict(zip(LETTERS, values, strict=True))
    decision = decide(probabilities, HALF, ODIR_CLASSES, complete=complete)
    assert decision.refer == (decision.outcome != "normal")
    assert (decision.outcome == "ungradable") == (not complete)
    assert "N" not in decision.findings


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.5])
@pytest.mark.parametrize("complete", [True, False])
def test_impossible_probabilities_are_never_a_decision(value: float, complete: bool) -> None:
    probabilities = dict.fromkeys(LETTERS, 0.1) | {"M": value}
    with pytest.raises(ResultError, match="probabilities of M"):
        decide(probabilities, HALF, ODIR_CLASSES, complete=complete)
    with pytest.raises(ResultError, match="thresholds of M"):
        decide(dict.fromkeys(LETTERS, 0.1), HALF | {"M": value}, ODIR_CLASSES, complete=complete)


def test_missing_or_unknown_classes_are_refused() -> None:
    with pytest.raises(ResultError, match="probabilities are for"):
        decide({"N": 0.9}, HALF, ODIR_CLASSES, complete=True)
    with pytest.raises(ResultError, match="probabilities are for"):
        decide({}, HALF, ODIR_CLASSES, complete=True)
    with pytest.raises(ResultError, match="thresholds are for"):
        decide(dict.fromkeys(LETTERS, 0.1), {"N": 0.5}, ODIR_CLASSES, complete=True)
