"""A bundle's golden pairs: the machine that recorded them answers them, a wrong answer is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fundus_runtime.bundle import Bundle
from fundus_runtime.commands.screen import main
from fundus_runtime.doctor import examine, format_findings
from fundus_runtime.errors import BundleError
from fundus_runtime.golden import check_golden
from fundus_runtime.screener import Screener

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def golden_bundle(tmp_path: Path, make_bundle, draw, write) -> Callable[[Change | None], Bundle]:
    """A tiny bundle whose golden pair holds what this machine answers, or `alter`'s version."""

    def make(alter: Change | None = None) -> Bundle:
        folder = tmp_path / "bundle"
        names = {eye: f"golden/00_{eye}.png" for eye in ("left", "right")}
        (folder / "golden").mkdir(parents=True)
        for seed, name in enumerate(names.values()):
            write(folder / name, draw("D", seed=seed))
        with Screener.open(make_bundle(tmp_path / "plain")) as screener:
            result = screener.screen_files(*(folder / name for name in names.values()))
        pair = {
            **names,
            "probabilities": {k: d.probability for k, d in result.decisions.items()},
            "left_probabilities": dict(result.left.probabilities),
            "right_probabilities": dict(result.right.probabilities),
            "present": [k for k, d in result.decisions.items() if d.present],
        }
        golden = {"probability_tolerance": 1e-3, "source": "drawn", "pairs": [pair]}
        if alter is not None:
            alter(golden)

        def add(manifest: dict[str, Any]) -> None:
            for name in names.values():
                data = (folder / name).read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                manifest["files"][name] = {"sha256": digest, "bytes": len(data)}
            manifest["golden"] = golden

        return Bundle.open(make_bundle(folder, change=add))

    return make


def test_the_recorded_answers_pass(golden_bundle) -> None:
    report = check_golden(golden_bundle())
    assert report is not None
    assert report.passed
    assert (report.pairs, report.tolerance) == (1, 1e-3)
    assert report.largest_difference < 1e-6


def test_a_screener_of_another_engine_can_be_checked_and_stays_open(golden_bundle) -> None:
    bundle = golden_bundle()

    with Screener.open(bundle) as screener:
        assert check_golden(bundle, screener=screener) == check_golden(bundle)
        assert screener.screen(None, None).outcome == "ungradable"


def test_a_bundle_without_golden_pairs_has_no_report(shared_bundle) -> None:
    assert check_golden(Bundle.open(shared_bundle)) is None


@pytest.mark.parametrize("part", ["probabilities", "left_probabilities", "right_probabilities"])
def test_another_probability_fails_and_names_the_pair(golden_bundle, part: str) -> None:
    def alter(golden: dict[str, Any]) -> None:
        golden["pairs"][0][part]["D"] -= 0.002

    report = check_golden(golden_bundle(alter))
    assert not report.passed
    assert report.wrong == ("golden/00_left.png",)
    assert report.largest_difference == pytest.approx(0.002, abs=1e-4)


def test_another_decision_fails(golden_bundle) -> None:
    def alter(golden: dict[str, Any]) -> None:
        golden["pairs"][0]["present"] = []

    report = check_golden(golden_bundle(alter))
    assert not report.passed
    assert report.largest_difference < 1e-6


def test_malformed_golden_pairs_are_refused(golden_bundle) -> None:
    def alter(golden: dict[str, Any]) -> None:
        del golden["pairs"][0]["right"]

    with pytest.raises(BundleError, match="golden pairs are malformed"):
        check_golden(golden_bundle(alter))


def test_an_empty_list_proves_nothing(golden_bundle) -> None:
    with pytest.raises(BundleError, match="golden pairs are malformed"):
        check_golden(golden_bundle(lambda golden: golden["pairs"].clear()))


def test_a_pair_that_gets_no_answer_fails_and_is_still_json(golden_bundle, capsys) -> None:
    def alter(golden: dict[str, Any]) -> None:
        golden["pairs"][0]["probabilities"]["Z"] = 0.3

    bundle = golden_bundle(alter)
    assert main(["doctor", "--bundle", str(bundle.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["bundle"]["golden"]
    assert (found["passed"], found["largest_difference"]) == (False, 1.0)


def test_the_doctor_runs_them(golden_bundle) -> None:
    bundle = golden_bundle()
    findings = examine(bundle.path)
    assert findings["bundle"]["golden"]["passed"] is True
    assert "golden" in format_findings(findings)


def test_the_doctor_says_when_a_machine_answers_otherwise(golden_bundle) -> None:
    def alter(golden: dict[str, Any]) -> None:
        golden["pairs"][0]["present"] = []

    found = examine(golden_bundle(alter).path)["bundle"]["golden"]
    assert found["passed"] is False
    assert "golden/00_left.png" in found["problem"]
