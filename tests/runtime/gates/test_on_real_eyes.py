"""The gates on graded eyes and on eyes whose side is known; docs/gates.md states the figures."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from fundus_runtime.errors import UngradableError
from fundus_runtime.gates import GateVerdict, judge, judge_pair
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import NativePreprocessor, PreprocessSpec

FINDER = NativePreprocessor(PreprocessSpec(size=32))


def verdict_on(path: Path) -> GateVerdict | str:
    frame = read_photograph(path)
    try:
        field = FINDER.crop(frame, color="rgb").field_of_view
    except UngradableError as error:
        return error.reason
    return judge(frame, field, declared_eye=None, color="rgb")


@pytest.fixture(scope="module")
def graded(fundus_data: Path) -> list[tuple[str, GateVerdict | str]]:
    with (fundus_data / "eyepacs" / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        (grade, verdict_on(fundus_data / "eyepacs" / f"{row['patient']}_{side}.jpg"))
        for row in rows
        for side in ("left", "right")
        if (grade := row[f"{side}_quality_eyeq"])
    ]


@pytest.fixture(scope="module")
def held_out(fundus_data: Path) -> dict[str, dict[str, GateVerdict | str]]:
    """Patients of ODIR on whom the side's classifier was not fitted, every other one of them."""
    files = sorted((fundus_data / "odir" / "images").glob("*_left.jpg"))
    ids = [file.stem.split("_")[0] for file in files]
    return {
        i: {
            side: verdict_on(fundus_data / "odir" / "images" / f"{i}_{side}.jpg")
            for side in ("left", "right")
        }
        for i in [i for i in ids if int(i) % 5 == 0][::2]
    }


def refused(verdict: GateVerdict | str) -> bool:
    return isinstance(verdict, str) or not verdict.usable


def share_refused(verdicts: Iterable[GateVerdict | str]) -> float:
    return float(np.mean([refused(verdict) for verdict in verdicts]))


def quality(verdict: GateVerdict | str) -> float:
    if isinstance(verdict, str):
        return -np.inf
    return next(f.value for f in verdict.figures if f.name == "quality")


def test_good_eyes_pass_and_reject_eyes_are_refused(graded) -> None:
    assert len(graded) == 382
    assert share_refused(v for grade, v in graded if grade == "good") <= 0.03
    assert share_refused(v for grade, v in graded if grade == "reject") >= 0.85


def test_quality_tells_reject_eyes_from_the_rest(graded) -> None:
    rest = np.array([quality(v) for grade, v in graded if grade != "reject"])
    reject = np.array([quality(v) for grade, v in graded if grade == "reject"])
    above = (rest[:, None] > reject).mean() + (rest[:, None] == reject).mean() / 2
    assert above >= 0.95


def test_no_graded_eye_is_taken_for_something_else(graded) -> None:
    assert not any(isinstance(v, GateVerdict) and v.reason == "no_fundus" for _, v in graded)


def test_the_side_of_the_optic_disc_is_right_where_it_is_stated(held_out) -> None:
    sides = [
        (side, verdict.laterality)
        for eyes in held_out.values()
        for side, verdict in eyes.items()
        if isinstance(verdict, GateVerdict)
    ]
    assert len(sides) > 400
    stated = [(side, said) for side, said in sides if said != "unknown"]
    assert len(stated) >= 0.8 * len(sides)
    assert np.mean([side == said for side, said in stated]) >= 0.95


def test_two_eyes_of_a_patient_are_never_the_same_photograph(held_out) -> None:
    for patient, eyes in held_out.items():
        both = {s: v for s, v in eyes.items() if isinstance(v, GateVerdict)}
        assert judge_pair(both).reason in (None, "declared_eye_missing"), patient
