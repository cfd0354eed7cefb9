"""A bundle's golden pairs: the machine that recorded them answers them, a wrong answer is named."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_runtime.bundle import Bundle
from fundus_runtime.commands.screen import main
from fundus_runtime.doctor import examine, format_findings
from fundus_runtime.errors import BundleError
from fundus_runtime.golden import check_golden
from fundus_runtime.labels import ODIR_CLASSES
from fundus_runtime.screener import Screener

D = ODIR_CLASSES.letters.index("D")

Change = Callable[[dict[str, Any]], None]


def _logits(probabilities: Mapping[str, float]) -> list[float]:
    """The tiny bundle's calibration is the plain logistic function."""
    return [math.log(p / (1 - p)) for p in probabilities.values()]


@pytest.fixture
def golden_bundle(tmp_path: Path, make_bundle, draw, write) -> Callable[..., Bundle]:
    """A tiny bundle whose golden pair holds what this machine answers, or `alter`'s version.

    `change` edits the manifest; pictures that `alter` writes over are listed as they then are.
    """

    def make(alter: Change | None = None, change: Change | None = None) -> Bundle:
        folder = tmp_path / "bundle"
        names = {eye: f"golden/00_{eye}.png" for eye in ("left", "right")}
        (folder / "golden").mkdir(parents=True)
        for seed, name in enumerate(names.values()):
            write(folder / name, draw("D", seed=seed))
        with Screener.open(make_bundle(tmp_path / "plain")) as screener:
            result = screener.screen_files(*(folder / name for name in names.values()))
        recorded = {
            "probability_tolerance": 1e-3,
            "logits": [_logits(result.probabilities)],
            "left_logits": [_logits(result.left.probabilities)],
            "right_logits": [_logits(result.right.probabilities)],
        }
        golden = {"pairs": [dict(names)], "answers": {"fp32": recorded}}
        if alter is not None:
            alter(golden)
        (folder / "golden" / "answers.json").write_text(json.dumps(golden), encoding="utf-8")

        def add(manifest: dict[str, Any]) -> None:
            for name in (*names.values(), "golden/answers.json"):
                data = (folder / name).read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                manifest["files"][name] = {"sha256": digest, "bytes": len(data)}
            manifest["golden"] = {"answers": "golden/answers.json", "source": "drawn"}
            if change is not None:
                change(manifest)

        return Bundle.open(make_bundle(folder, change=add))

    return make


def test_the_recorded_answers_pass(golden_bundle) -> None:
    report = check_golden(golden_bundle())
    assert report is not None
    assert report.passed
    assert (report.pairs, report.tolerance, report.graphs) == (1, 1e-3, "fp32")
    assert report.largest_difference < 1e-6


def test_a_screener_of_another_engine_can_be_checked_and_stays_open(golden_bundle) -> None:
    bundle = golden_bundle()

    with Screener.open(bundle) as screener:
        assert check_golden(bundle, screener=screener) == check_golden(bundle)
        assert screener.screen(None, None, color="rgb").outcome == "ungradable"


def test_a_bundle_without_golden_pairs_has_no_report(shared_bundle) -> None:
    assert check_golden(Bundle.open(shared_bundle)) is None


def test_answers_follow_a_calibration_that_was_fitted_anew(golden_bundle) -> None:
    def refit(manifest: dict[str, Any]) -> None:
        for part in ("patient", "eye"):
            for values in manifest["calibration"][part].values():
                values.update(temperature=2.0, bias=-0.5)

    report = check_golden(golden_bundle(change=refit))
    assert report.passed
    assert report.largest_difference < 1e-6


def _lower_d(golden: dict[str, Any], part: str) -> None:
    row = golden["answers"]["fp32"][part][0]
    probability = 1 / (1 + math.exp(-row[D])) - 0.002
    row[D] = math.log(probability / (1 - probability))


@pytest.mark.parametrize("part", ["logits", "left_logits", "right_logits"])
def test_another_probability_fails_and_names_the_pair(golden_bundle, part: str) -> None:
    report = check_golden(golden_bundle(lambda golden: _lower_d(golden, part)))
    assert not report.passed
    assert report.wrong == ("golden/00_left.png",)
    assert report.largest_difference == pytest.approx(0.002, abs=1e-4)


def _without_right(golden: dict[str, Any]) -> None:
    del golden["pairs"][0]["right"]


def _without_pairs(golden: dict[str, Any]) -> None:
    golden["pairs"] = []
    golden["answers"]["fp32"].update(logits=[], left_logits=[], right_logits=[])


def _answers_of_one_pair_more(golden: dict[str, Any]) -> None:
    golden["pairs"] *= 2


def _without_tolerance(golden: dict[str, Any]) -> None:
    del golden["answers"]["fp32"]["probability_tolerance"]


def _one_class_less(golden: dict[str, Any]) -> None:
    golden["answers"]["fp32"]["left_logits"][0].pop()


def _not_a_number(golden: dict[str, Any]) -> None:
    golden["answers"]["fp32"]["logits"][0][0] = math.nan


@pytest.mark.parametrize(
    "alter",
    [
        _without_right,
        _without_pairs,
        _answers_of_one_pair_more,
        _without_tolerance,
        _one_class_less,
        _not_a_number,
    ],
)
def test_malformed_golden_answers_are_refused(golden_bundle, alter: Change) -> None:
    with pytest.raises(BundleError, match=r"golden answers are malformed .* export the bundle ag"):
        check_golden(golden_bundle(alter))


def test_answers_of_another_form_prove_nothing_of_this_one(golden_bundle) -> None:
    def alter(golden: dict[str, Any]) -> None:
        golden["answers"]["int8-trt"] = golden["answers"].pop("fp32")

    with pytest.raises(BundleError, match=r"those of \['int8-trt'\], none of 'fp32'; export"):
        check_golden(golden_bundle(alter))


def test_a_file_of_answers_that_the_bundle_lacks_is_refused(golden_bundle) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["golden"]["answers"] = "golden/none.json"

    with pytest.raises(BundleError, match=r"none\.json"):
        check_golden(golden_bundle(change=change))


def test_a_pair_that_gets_no_answer_fails_and_is_still_json(
    golden_bundle, tmp_path: Path, write, capsys
) -> None:
    dark = np.zeros((280, 320, 3), np.uint8)
    bundle = golden_bundle(lambda _: write(tmp_path / "bundle" / "golden" / "00_left.png", dark))
    assert main(["doctor", "--bundle", str(bundle.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["bundle"]["golden"]
    assert (found["passed"], found["largest_difference"]) == (False, 1.0)


def test_the_doctor_runs_them(golden_bundle) -> None:
    bundle = golden_bundle()
    findings = examine(bundle.path)
    assert findings["bundle"]["golden"]["passed"] is True
    assert "golden" in format_findings(findings)


def test_the_doctor_says_when_a_machine_answers_otherwise(golden_bundle) -> None:
    bundle = golden_bundle(lambda golden: _lower_d(golden, "logits"))
    found = examine(bundle.path)["bundle"]["golden"]
    assert found["passed"] is False
    assert "golden/00_left.png" in found["problem"]
