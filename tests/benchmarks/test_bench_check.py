"""The check fails on a missed promise and on a figure that became worse; its last line says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_run import MACHINE, Part, drawn_part, drawn_parts, on

import bench_check
from fundus_benchmarks.ratios.bars import Bar, against, read_bars
from fundus_benchmarks.results.kept import Run, keep
from fundus_benchmarks.results.processor import PROCESSOR

BARS = """
[resize_ratio]
what = "resize over preprocessing"
least = 4.0

[memory_mb]
what = "peak memory, MB"
most = 220

[beyond_ms]
what = "beyond its parts, ms"
most = 2.0
compare = false
"""
BEFORE = {"resize_ratio": 8.0, "memory_mb": 100.0, "beyond_ms": 0.1}


@pytest.fixture
def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Checks figures against what was kept; the status, and what was printed, by lines."""
    (tmp_path / "bars.toml").write_text(BARS)

    def check(figures: dict[str, float], **more: object) -> tuple[int, list[str]]:
        report = {**_ratios(figures, "2026-11-20"), **more}
        (tmp_path / "run.json").write_text(json.dumps(report))
        options = {"report": "run.json", "bars": "bars.toml", "results": "results"}
        words = [w for name, file in options.items() for w in (f"--{name}", str(tmp_path / file))]
        status = bench_check.main(words)
        return status, capsys.readouterr().out.splitlines()

    return check


@pytest.fixture
def kept(tmp_path: Path) -> None:
    """An older run, one in between, and one without ratios."""
    old = {name: 10 * value for name, value in BEFORE.items()}
    for figures, day in ((old, "2026-11-01"), (BEFORE, "2026-11-18")):
        keep(Run.of([_ratios(figures, day)]), tmp_path / "results")
    keep(Run.of([on(drawn_parts()["latency"], "2026-11-19")]), tmp_path / "results")


@pytest.mark.parametrize(
    ("changed", "status", "summary"),
    [
        ({}, 0, "3 of 3 bars kept; 2 of 2 figures within 15 % of 2026-11-18, commit 0123456789ab"),
        ({"resize_ratio": 6.9, "memory_mb": 114.0}, 0, "2 of 2 figures within 15 %"),
        ({"resize_ratio": 6.7}, 1, "1 of 2 figures within 15 % of 2026-11-18"),
        ({"memory_mb": 116.0}, 1, "worse: memory_mb"),
        ({"resize_ratio": 20.0, "memory_mb": 1.0}, 0, "3 of 3 bars kept; 2 of 2 figures"),
        ({"beyond_ms": 1.9}, 0, "3 of 3 bars kept; 2 of 2 figures"),
        ({"resize_ratio": 3.0}, 1, "2 of 3 bars kept, missed: resize_ratio; 1 of 2 figures"),
        ({"beyond_ms": 2.1}, 1, "2 of 3 bars kept, missed: beyond_ms; 2 of 2 figures"),
        ({"memory_mb": float("nan")}, 1, "2 of 3 bars kept, missed: memory_mb; 1 of 1 figures"),
    ],
)
def test_promises_and_the_last_kept_figures_are_both_held(
    checked, kept, changed: dict[str, float], status: int, summary: str
) -> None:
    found, lines = checked({**BEFORE, **changed})
    assert found == status
    assert summary in lines[-1]


def test_what_became_worse_is_said_beside_what_it_was(checked, kept) -> None:
    _, lines = checked({**BEFORE, "memory_mb": 130.0})
    (line,) = [line for line in lines if line.startswith("WORSE")]
    assert "130" in line
    assert "30 % worse" in line
    assert "than 100" in line


def test_without_a_kept_run_the_promises_alone_are_held(checked) -> None:
    status, lines = checked(BEFORE)
    assert status == 0
    assert lines[-1].endswith("no earlier ratios of this machine are kept to compare with")


@pytest.mark.parametrize(
    "more",
    [
        {"machine": {**MACHINE, "processor": "Another"}},
        {"measured_at": "2026-10-01T10:00:00Z"},
    ],
)
def test_another_machine_and_later_runs_are_no_measure(checked, kept, more: Part) -> None:
    status, lines = checked({**BEFORE, "memory_mb": 190.0}, **more)
    assert status == 0
    assert "no earlier ratios" in lines[-1]


def test_a_run_kept_before_processors_were_told_is_a_measure_as_ever(checked, kept) -> None:
    newer = {"machine": {**MACHINE, PROCESSOR: "AuthenticAMD family 25 model 17"}}
    worse = {**BEFORE, "memory_mb": 130.0}
    # what is kept does not tell its processor, and is compared as ever
    status, lines = checked(worse, **newer)
    assert status == 1
    assert "of 2026-11-18, commit 0123456789ab (its processor is not stated), wo" in lines[-1]


def test_a_run_known_to_be_of_the_processor_is_the_measure(tmp_path: Path, checked, kept) -> None:
    machine = {**MACHINE, PROCESSOR: "AuthenticAMD family 25"}
    same = {**BEFORE, "memory_mb": 130.0}
    keep(Run.of([{**_ratios(same, "2026-11-10"), "machine": machine}]), tmp_path / "results")
    status, lines = checked(same, machine=machine)
    assert status == 0
    assert lines[-1].endswith("2 of 2 figures within 15 % of 2026-11-10, commit 0123456789ab")


def test_of_another_processor_is_said_and_not_compared(tmp_path: Path, checked) -> None:
    one, other = ({**MACHINE, PROCESSOR: f"AuthenticAMD family {n}"} for n in (25, 26))
    keep(Run.of([{**_ratios(BEFORE, "2026-11-18"), "machine": one}]), tmp_path / "results")
    worse = {**BEFORE, "memory_mb": 130.0}
    status, lines = checked(worse, machine=other)
    assert status == 0
    assert lines[-1].endswith("are kept to compare with, 1 of another processor are")
    status, lines = checked(worse, machine=one)
    assert status == 1
    assert "worse: memory_mb" in lines[-1]


def test_a_run_that_is_kept_already_is_not_held_to_itself(tmp_path: Path, checked, kept) -> None:
    worse = {**BEFORE, "memory_mb": 130.0}
    keep(Run.of([_ratios(worse, "2026-11-20")]), tmp_path / "results")
    assert checked(worse)[0] == 1


def test_a_compare_that_is_neither_true_nor_false_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.toml"
    path.write_text('[a]\nwhat = "w"\nmost = 1\ncompare = "no"\n')
    with pytest.raises(ValueError, match="'no'"):
        read_bars(path)


def test_a_figure_that_was_nought_or_unknown_is_no_measure() -> None:
    bars = [Bar("a", "a", most=1.0)]
    assert against(bars, {"a": 0.5}, {"a": 0.0}) == []
    assert against(bars, {"a": 0.5}, {"a": None}) == []
    assert against(bars, {"a": 0.5}, {}) == []


def test_times_and_figures_near_nought_are_not_compared_in_the_products_own_bars() -> None:
    bars = read_bars(Path(bench_check.__file__).with_name("bars.toml"))
    assert {bar.name for bar in bars if not bar.compare} == {
        "gates_ms",
        "edge_first_result_s",
        "second_eye_beyond_its_parts_ms",
        "retake_beyond_its_parts_ms",
    }


def _ratios(figures: dict[str, float], day: str) -> Part:
    return on(drawn_part("ratios", [], figures=figures, timings_ms={}), day)
