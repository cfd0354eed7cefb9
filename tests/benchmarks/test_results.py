"""Parts become a run only where they belong together, and kept runs come back in order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_run import MACHINE, MACHINE_NAME, Part, drawn_part, drawn_parts, on

from fundus_benchmarks.results.kept import (
    ResultsError,
    Run,
    gather,
    keep,
    kept_runs,
    newest_of_each_machine,
    previous,
)
from fundus_benchmarks.results.run_file import write_part


def test_the_parts_of_a_folder_become_a_run(tmp_path: Path) -> None:
    for part in drawn_parts().values():
        write_part(part, tmp_path)
    (tmp_path / "pytest-benchmark.json").write_text("{}")
    run = gather(tmp_path)
    assert list(run.parts) == ["latency", "limits", "ratios", "faithfulness", "growth"]
    assert (run.machine_name, run.date, run.commit) == (MACHINE_NAME, "2026-11-20", "0123456789ab")


def test_a_folder_without_parts_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="make bench"):
        gather(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"machine": {**MACHINE, "processor": "Another"}}, "more than one machine"),
        ({"commit": "ffffffffffff"}, "growth from ffffffffffff"),
        ({"commit": "0123456789ab+"}, "more than one commit"),
        ({"commit": None}, "growth from unknown"),
        ({"measured_at": "2026-11-21T10:00:01Z"}, "more than a day apart"),
        ({"versions": {"torch": "2.14.0"}}, "more than one version of torch"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(change: Part, said: str) -> None:
    parts = drawn_parts()
    with pytest.raises(ResultsError, match=said):
        Run.of([parts["latency"], {**parts["growth"], **change}])


def test_parts_of_a_day_with_and_without_a_package_belong_together() -> None:
    parts = drawn_parts()
    late = {"measured_at": "2026-11-21T10:00:00Z", "versions": {"tensorrt": "10.3.0"}}
    run = Run.of([parts["latency"], {**parts["growth"], **late}])
    assert run.measured_at == "2026-11-21T10:00:00Z"
    assert run.versions["tensorrt"] == "10.3.0"
    assert run.versions["torch"] == "2.13.0"


def test_a_kept_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = Run.of(drawn_parts().values())
    path = keep(run, tmp_path)
    assert path == tmp_path / MACHINE_NAME / "2026-11-20-0123456789ab.json"
    (found,) = kept_runs(MACHINE_NAME, tmp_path)
    assert found.parts == run.parts


def test_what_is_no_number_is_kept_as_unknown(tmp_path: Path) -> None:
    part = drawn_part("growth", [{"curve": "threads", "slope": float("nan"), "points": []}])
    text = keep(Run.of([part]), tmp_path).read_text()
    assert json.loads(text, parse_constant=_refuse)["parts"]["growth"]["rows"][0]["slope"] is None


def test_the_same_parts_are_kept_once_and_further_ones_join_them(tmp_path: Path) -> None:
    parts = drawn_parts()
    first = keep(Run.of([parts["latency"]]), tmp_path)
    assert keep(Run.of([parts["latency"], parts["growth"]]), tmp_path) == first
    assert keep(Run.of(parts.values()), tmp_path) == first
    assert [len(run.parts) for run in kept_runs(MACHINE_NAME, tmp_path)] == [5]


def test_a_second_run_of_a_day_and_commit_replaces_nothing(tmp_path: Path) -> None:
    part = drawn_parts()["latency"]
    keep(Run.of([part]), tmp_path)
    again = {**part, "measured_at": "2026-11-20T11:00:00Z"}
    assert keep(Run.of([again]), tmp_path).name == "2026-11-20-0123456789ab-2.json"
    assert keep(Run.of([again]), tmp_path).name == "2026-11-20-0123456789ab-2.json"
    assert len(kept_runs(MACHINE_NAME, tmp_path)) == 2


def test_kept_runs_are_sorted_by_time_and_not_by_name(tmp_path: Path) -> None:
    part = drawn_parts()["latency"]
    early = {**on(part, "2026-11-20", "ffff"), "measured_at": "2026-11-20T08:00:00Z"}
    for one in (on(part, "2026-11-20", "aaaa"), early, on(part, "2026-11-18")):
        keep(Run.of([one]), tmp_path)
    commits = [run.commit for run in kept_runs(MACHINE_NAME, tmp_path)]
    assert commits == ["0123456789ab", "ffff", "aaaa"]


def test_the_previous_run_is_the_last_that_measured_the_part_before() -> None:
    parts = drawn_parts()
    run = Run.of([on(parts["latency"], "2026-11-20")])
    older = Run.of([on(parts["latency"], "2026-11-17")])
    old = Run.of([on(parts["latency"], "2026-11-18")])
    others = Run.of([on(parts["growth"], "2026-11-19")])
    newer = Run.of([on(parts["latency"], "2026-11-21")])
    assert previous(run, "latency", [newer, old, run, others, older]) is old
    assert previous(run, "growth", [others]) is None
    assert previous(older, "latency", [older, newer]) is None


def test_the_newest_run_of_each_machine_comes_first_to_last(tmp_path: Path) -> None:
    part = drawn_parts()["latency"]
    other = {**on(part, "2026-11-21"), "machine": {**MACHINE, "processor": "Another"}}
    for one in (on(part, "2026-11-18"), on(part, "2026-11-20"), other):
        keep(Run.of([one]), tmp_path)
    newest = [(run.machine_name, run.date) for run in newest_of_each_machine(tmp_path)]
    assert newest == [("another-2-cpus", "2026-11-21"), (MACHINE_NAME, "2026-11-20")]
    assert newest_of_each_machine(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:-20], "is no JSON"),
        (lambda text: text.replace("benchmark results", "another"), "no kept result"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 7', 1), "version 7"),
    ],
)
def test_a_file_that_is_no_kept_result_is_named(
    tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    path = keep(Run.of([drawn_parts()["growth"]]), tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ResultsError, match=said) as error:
        kept_runs(MACHINE_NAME, tmp_path)
    assert path.name in str(error.value)


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")
