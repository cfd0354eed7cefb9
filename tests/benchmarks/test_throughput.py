"""`fundus-screen --pairs` measured in a process of its own, and what such a process needs."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from fundus_benchmarks.growth.curves import Effort
from fundus_benchmarks.growth.measured_run import MeasuredRun, run_measured
from fundus_benchmarks.growth.throughput import (
    curves_of,
    draw_pairs,
    folder_of,
    screen_folder,
    throughput,
)
from fundus_benchmarks.report.fit_words import fit_in_words
from fundus_runtime.commands.pairs import find_pairs

LARGE_MB = 400


def test_a_small_process_started_by_a_large_one_is_small() -> None:
    held = np.ones(LARGE_MB * 1_000_000, np.uint8)
    run = run_measured([sys.executable, "-c", "print('done')"], timeout_s=30)
    assert run.output == "done\n"
    assert held[-1] == 1
    assert 1 < run.peak_mb < LARGE_MB / 4


def test_memory_and_time_of_the_process_count() -> None:
    code = f"import time; held = b'1' * {LARGE_MB * 1_000_000}; time.sleep(0.3)"
    run = run_measured([sys.executable, "-c", code], timeout_s=30)
    assert LARGE_MB < run.peak_mb < 2 * LARGE_MB
    assert 0.3 < run.wall_s < 10


def test_a_command_that_fails_is_an_error_with_what_it_said() -> None:
    code = "import sys; sys.exit('no such eye')"
    with pytest.raises(RuntimeError, match=r"status 1: .*no such eye"):
        run_measured([sys.executable, "-c", code], timeout_s=30)


def test_a_command_that_was_killed_is_an_error() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(RuntimeError, match="status 9"):
        run_measured([sys.executable, "-c", code], timeout_s=30)


def test_a_command_that_takes_too_long_is_ended(tmp_path) -> None:
    late = tmp_path / "late"
    code = f"import time, pathlib; time.sleep(1.5); pathlib.Path({str(late)!r}).touch()"
    with pytest.raises(RuntimeError, match=r"longer than 0\.5 s"):
        run_measured([sys.executable, "-c", code], timeout_s=0.5)
    time.sleep(1.5)
    assert not late.exists()


def test_a_folder_holds_as_many_pairs_as_asked_for(tmp_path) -> None:
    drawn = draw_pairs(tmp_path / "drawn", 2)
    folder = folder_of(drawn, 5, tmp_path / "five")
    pairs = find_pairs(folder).pairs
    assert len(pairs) == 5
    assert pairs[0].left[0].samefile(pairs[2].left[0])
    assert not pairs[0].left[0].samefile(pairs[1].left[0])
    assert not pairs[0].left[0].samefile(pairs[0].right[0])


def test_pairs_without_a_result_are_an_error(tmp_path) -> None:
    folder = folder_of(draw_pairs(tmp_path / "drawn", 1), 1, tmp_path / "one")
    (folder / "0000_left.jpg").unlink()
    (folder / "0000_left.jpg").write_bytes(b"no photograph")
    with pytest.raises(RuntimeError, match="of 1 drawn pairs 0 got a result"):
        screen_folder(folder, 1, threads=1)


def test_time_throughput_and_memory_follow_from_the_runs() -> None:
    runs = {
        10: [MeasuredRun(2.0, 140.0, ""), MeasuredRun(4.0, 150.0, "")],
        20: [MeasuredRun(5.0, 160.0, "")],
    }
    time_row, rate_row, memory_row = (one.row() for one in curves_of(runs, {"threads": 2}))
    assert [point["y"] for point in time_row["points"]] == [3000.0, 5000.0]
    assert (time_row["slope"], time_row["intercept"]) == (pytest.approx(200), pytest.approx(1000))
    assert (time_row["ms_per_pair"], time_row["start_s"]) == (
        pytest.approx(200),
        pytest.approx(1.0),
    )
    assert fit_in_words(time_row) == "by the line 1.00 s to start, then 200 ms per pair"
    assert [point["y"] for point in rate_row["points"]] == [pytest.approx(10 / 3, abs=1e-3), 4.0]
    assert "start_s" not in rate_row
    assert [point["y"] for point in memory_row["points"]] == [145.0, 160.0]
    assert {row["threads"] for row in (time_row, rate_row, memory_row)} == {2}


def test_time_lies_on_a_line_and_pairs_a_second_on_none() -> None:
    """As a machine that starts for half a second and then takes 35 ms a pair."""
    counts = (8, 16, 32, 64, 128)
    runs = {count: [MeasuredRun(0.5 + 0.035 * count, 140.0, "")] for count in counts}
    time_row, rate_row, _ = (one.row() for one in curves_of(runs, {}))
    assert time_row["r2"] == pytest.approx(1.0)
    assert fit_in_words(time_row) == "by the line 0.500 s to start, then 35.0 ms per pair"
    assert (rate_row["slope"], rate_row["intercept"], rate_row["r2"]) == (None, None, None)
    assert fit_in_words(rate_row) == ""
    rates = [point["y"] for point in rate_row["points"]]
    assert rates == sorted(rates)
    assert rates[-1] < 1e3 / time_row["ms_per_pair"]


def test_of_a_start_below_nought_the_slope_alone_is_told() -> None:
    """As a machine that slows down: 1 s for 10 pairs, 5 s for 20."""
    runs = {10: [MeasuredRun(1.0, 140.0, "")], 20: [MeasuredRun(5.0, 140.0, "")]}
    row = curves_of(runs, {})[0].row()
    assert row["intercept"] == pytest.approx(-3000)
    assert row["start_s"] is None
    assert fit_in_words(row) == "by the line 400 ms per pair"
    # as rows say it that were kept with the line's own value
    assert fit_in_words({**row, "start_s": -3.0}) == "by the line 400 ms per pair"


def test_one_size_of_folder_has_no_start() -> None:
    time_row, *_ = (one.row() for one in curves_of({8: [MeasuredRun(1.0, 140.0, "")]}, {}))
    assert (time_row["ms_per_pair"], time_row["start_s"]) == (None, None)
    assert fit_in_words(time_row) == ""


def test_the_real_command_is_measured_on_drawn_pairs() -> None:
    time_row, rate_row, memory_row = (
        # so many more that they take longer than a start varies
        one.row()
        for one in throughput(Effort(0.0, 1), counts=(1, 40))
    )
    assert [point["x"] for point in time_row["points"]] == [1, 40]
    assert time_row["slope"] > 0
    assert all(point["y"] > 0 for point in rate_row["points"])
    assert all(50 < point["y"] < 1000 for point in memory_row["points"])
