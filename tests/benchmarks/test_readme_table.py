"""The README's table is made of kept results alone, and made anew it stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_run import drawn_parts

import bench_check
import report
from fundus_benchmarks.ratios.bars import read_bars
from fundus_benchmarks.report.readme_table import BEGIN, END, block, with_table
from fundus_benchmarks.results.kept import RESULTS, ResultsError, Run, newest_of_each_machine

BARS = read_bars(Path(bench_check.__file__).with_name("bars.toml"))
README = f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n"


def test_only_what_stands_between_the_markers_changes_and_twice_is_once() -> None:
    run = Run.of(drawn_parts().values())
    once = with_table(README, [run], BARS)
    assert once.startswith(f"# Title\n\n{BEGIN}\n\nDrawn Processor 9000, 2 CPUs")
    assert once.endswith(f"\n{END}\n\nrest\n")
    assert "old" not in once
    assert with_table(once, [run], BARS) == once


def test_the_table_carries_machine_versions_date_commit_and_commands() -> None:
    text = block([Run.of(drawn_parts().values())], BARS)
    for said in (
        *("8 GB", "Python 3.11.7", "onnxruntime 1.31.1", "2 threads each", "2026-11-20"),
        *("commit 0123456789ab", "`make bench`", "`python benchmarks/growth.py`"),
    ):
        assert said in text, said


def test_exams_stand_first_then_peers_with_how_many_times_as_long() -> None:
    text = block([Run.of([drawn_parts()["latency"]])], BARS)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0] == "| median (90th percentile) | edge | paper |"
    assert lines[1].endswith("pair at once** | 13.0 ms (14.0) | 79.0 ms (85.3) |")
    assert lines[2].endswith("second eye** | 8.40 ms (9.07) | 52.0 ms (56.2) |")
    assert lines[5] == (
        "| OpenVINO INT8: pair at once | 31.0 ms (33.5), 2.38× | 104 ms (112), 1.32× |"
    )
    assert "1.32× |" in text
    assert "MISSED" not in text


def test_missed_promises_are_marked() -> None:
    text = block([Run.of([drawn_parts()["ratios"]])], BARS)
    assert "| promise, 11 of 12 kept; contenders in turns | promised | measured |  |" in text
    (missed,) = [line for line in text.splitlines() if "**missed**" in line]
    assert "| at least 1.35 | 1.32 |" in missed


def test_rows_with_different_threads_say_theirs() -> None:
    part = drawn_parts()["latency"]
    for row in part["rows"]:
        if row["contender"] == "PyTorch BF16":
            row["threads"] = 1
    text = block([Run.of([part])], BARS)
    assert "threads each" not in text
    assert "| PyTorch BF16, 1 thread: pair at once | 61.0 ms (65.9) |" in text  # no ratio
    assert "**fundus-edge int8-cpu, onnxruntime, 2 threads: pair at once**" in text


def test_what_was_not_timed_is_a_dash() -> None:
    part = drawn_parts()["latency"]
    part["rows"] = [
        row for row in part["rows"] if (row["model"], row["stage"]) != ("paper", "retake")
    ]
    part["rows"][-1]["p50_ms"] = float("nan")
    text = block([Run.of([part])], BARS)
    assert "wait after a retake** | 8.90 ms (9.61) | – |" in text
    assert "nan" not in text


def test_every_machine_has_its_own_table() -> None:
    part = drawn_parts()["latency"]
    other = {**part, "machine": {**part["machine"], "processor": "Another"}}
    text = block([Run.of([part]), Run.of([other])], BARS)
    assert text.count("| median (90th percentile) |") == 2
    assert text.index("Drawn Processor 9000") < text.index("Another")


def test_before_anything_was_measured_it_says_so() -> None:
    assert "Nothing was measured yet" in with_table(README, [], BARS)


@pytest.mark.parametrize("text", ["# Title\n", f"{END}\n{BEGIN}\n", f"{README}{README}"])
def test_a_readme_without_its_two_markers_is_refused(text: str) -> None:
    with pytest.raises(ResultsError, match="markers"):
        with_table(text, [], BARS)


def test_the_repositorys_own_table_is_that_of_its_newest_kept_results() -> None:
    assert newest_of_each_machine(RESULTS)
    assert report.main(["--check"]) == 0
