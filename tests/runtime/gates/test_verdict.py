"""What the gates say: of a good eye, of graded faults, of what is no fundus, of both eyes."""

from __future__ import annotations

import numpy as np
import pytest
from faults import FAULTS, MOVES, no_fundus

from fundus_runtime.gates import GATES, GateFigure, judge_pair
from fundus_runtime.gates.thresholds import GateThresholds

# strength from which this eye is refused; docs/gates.md says from which 95 % of good eyes are
DETECTED_FROM = {
    "blur": 12,
    "over": 4,
    "under": 2.5,
    "haze": 0.8,
    "lid": 0.4,
    "vignette": 0.6,
    "noise": 24,
    "cut": 0.6,
}


def figure(verdict, name: str) -> float:
    return next(f.value for f in verdict.figures if f.name == name)


def test_a_good_eye_passes_every_gate(eye, verdict_on) -> None:
    verdict = verdict_on(eye, "left")
    assert verdict.usable
    assert (verdict.reason, verdict.hint, verdict.warnings) == (None, None, ())
    assert [f.name for f in verdict.figures] == [gate.figure for gate in GATES]
    assert all(f.passed and f.reason is None for f in verdict.figures)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_from_a_stated_strength_on(eye, field_of, verdict_on, name) -> None:
    fault, strengths = FAULTS[name]
    for strength in strengths:
        verdict = verdict_on(fault(eye, field_of(eye), strength))
        refused = isinstance(verdict, str) or not verdict.usable
        if strength >= DETECTED_FROM[name]:
            assert refused, strength
        elif strength <= strengths[1]:
            assert not refused, (strength, verdict.reason)


@pytest.mark.parametrize("name", FAULTS)
def test_a_figure_moves_one_way_as_its_fault_grows(eye, field_of, verdict_on, name) -> None:
    fault, strengths = FAULTS[name]
    measure, direction = MOVES[name]
    verdicts = [verdict_on(fault(eye, field_of(eye), strength)) for strength in strengths]
    values = [figure(v, measure) for v in verdicts if not isinstance(v, str)]
    assert len(values) >= 4
    moves = direction * np.diff(values)
    assert (moves >= 0).all()
    assert moves.sum() > 0


@pytest.mark.parametrize("name", sorted(no_fundus()))
def test_round_things_are_refused(verdict_on, name) -> None:
    verdict = verdict_on(no_fundus()[name])
    assert isinstance(verdict, str) or not verdict.usable
    if name in ("moon", "leaf", "green plate", "blue plate"):
        assert verdict.reason == "no_fundus"


def test_the_first_gate_that_fails_names_reason_and_hint(eye, field_of, verdict_on) -> None:
    fault, _ = FAULTS["blur"]
    verdict = verdict_on(fault(eye, field_of(eye), 24))
    failed = [f for f in verdict.figures if not f.passed]
    assert verdict.reason == failed[0].reason == "blurred"
    assert verdict.hint == failed[0].hint
    assert "focus" in verdict.hint
    assert verdict.to_dict()["figures"][0].keys() == {
        "name",
        "value",
        "threshold",
        "bound",
        "passed",
    }


def test_every_reason_is_in_snake_case_and_every_hint_asks_for_a_retake() -> None:
    for gate in GATES:
        assert gate.reason.replace("_", "").isalpha()
        assert gate.reason == gate.reason.lower()
        assert "retake" in gate.hint


def test_the_other_eye_is_a_warning_and_never_a_refusal(eye, verdict_on) -> None:
    right = verdict_on(eye, "right")
    assert right.usable
    assert right.laterality == "left"
    assert "declared right" in right.warnings[0]
    assert verdict_on(eye, "left").warnings == ()
    assert verdict_on(eye, None).warnings == ()
    mirrored = verdict_on(np.ascontiguousarray(eye[:, ::-1]), "right")
    assert (mirrored.laterality, mirrored.warnings) == ("right", ())
    assert mirrored.side_score == pytest.approx(-right.side_score, abs=0.5)


def test_an_unclear_side_is_not_stated(eye, verdict_on) -> None:
    verdict = verdict_on(eye, "right", min_side=100)
    assert (verdict.laterality, verdict.warnings) == ("unknown", ())


def test_a_bound_can_be_moved(eye, verdict_on) -> None:
    verdict = verdict_on(eye, min_level=254)
    assert (verdict.usable, verdict.reason) == (False, "underexposed")


def test_the_same_photograph_twice_is_named(eye, verdict_on) -> None:
    verdict = verdict_on(eye)
    pair = judge_pair({"left": verdict, "right": verdict})
    assert (pair.usable, pair.reason) == (False, "same_photograph")
    assert pair.likeness == pytest.approx(1)
    assert "each eye" in pair.hint


def test_a_mirror_image_is_another_photograph(eye, verdict_on) -> None:
    mirrored = verdict_on(np.ascontiguousarray(eye[:, ::-1]))
    pair = judge_pair({"left": verdict_on(eye), "right": mirrored})
    assert pair.usable
    assert pair.likeness < GateThresholds().min_same / 2


def test_a_declared_eye_that_is_missing_is_named(eye, verdict_on) -> None:
    verdict = verdict_on(eye)
    pair = judge_pair({"left": verdict})
    assert (pair.usable, pair.reason, pair.missing) == (False, "declared_eye_missing", ("right",))
    assert judge_pair({"left": verdict, "right": None}, declared=("left",)).usable


@pytest.mark.parametrize(
    ("value", "threshold", "bound", "passed", "shown"),
    [
        (15.2345678, 3.5, "at_least", True, 15.23),
        (3.49999, 3.5, "at_least", False, 3.49999),
        (3.4999999999, 3.5, "at_least", False, 3.4999999999),
        (np.nextafter(3.5, 0), 3.5, "at_least", False, np.nextafter(3.5, 0)),
        (7.000041, 7.0, "at_most", False, 7.00004),
        # a threshold with many digits: what passed must not read as refused either
        (3.50014, 3.50012, "at_least", True, 3.50014),
        (3.5, 3.5, "at_least", True, 3.5),
    ],
)
def test_a_rounded_figure_stays_on_its_side_of_the_threshold(
    value, threshold, bound, passed, shown
) -> None:
    figure = GateFigure("detail", value, threshold, bound, passed)
    assert figure.to_dict()["value"] == shown
