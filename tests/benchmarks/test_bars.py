"""Promises are kept, missed, or not measured, and a file that makes no sense is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench_check
from fundus_benchmarks.ratios.bars import Bar, judge, read_bars
from fundus_benchmarks.results.run_file import new_part, write_part

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TEXT = """
[resize_ratio]
what = "resize over preprocessing"
least = 4.0

[memory_mb]
what = "peak memory, MB"
most = 220
"""


@pytest.fixture
def bars_file(tmp_path: Path) -> Path:
    path = tmp_path / "bars.toml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(("value", "kept"), [(4.0, True), (3.999, False), (9.0, True)])
def test_a_figure_of_at_least_is_kept_from_there_on(value: float, kept: bool) -> None:
    assert Bar("ratio", "a ratio", least=4.0).kept_by(value) is kept


@pytest.mark.parametrize(("value", "kept"), [(220.0, True), (220.1, False), (float("nan"), False)])
def test_a_figure_of_at_most_is_kept_up_to_there(value: float, kept: bool) -> None:
    assert Bar("memory", "MB", most=220).kept_by(value) is kept


def test_what_was_not_measured_counts_as_missed(bars_file: Path) -> None:
    verdicts = judge(read_bars(bars_file), {"resize_ratio": 5.0})
    assert [verdict.kept for verdict in verdicts] == [True, False]
    assert "not measured" in str(verdicts[1])


@pytest.mark.parametrize(
    "text",
    [
        '[a]\nwhat = "w"\n',
        '[a]\nwhat = "w"\nmost = 1\nleast = 2\n',
        '[a]\nwhat = "w"\nmost = 1\nmaximum = 2\n',
    ],
)
def test_a_bar_with_neither_or_both_bounds_or_unknown_keys_is_refused(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "bars.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="'a'"):
        read_bars(path)


@pytest.mark.parametrize(("ratio", "status"), [(5.0, 0), (3.0, 1)])
def test_the_command_fails_when_a_bar_is_missed_and_ends_with_the_summary(
    bars_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ratio: float,
    status: int,
) -> None:
    figures = {"resize_ratio": ratio, "memory_mb": 100}
    report = write_part(new_part("ratios", [], command="test", figures=figures), tmp_path)
    words = ["--report", str(report), "--bars", str(bars_file), "--results", str(tmp_path)]
    assert bench_check.main(words) == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("2 of 2" if status == 0 else "1 of 2")
    assert ("resize_ratio" in last) == bool(status)


@pytest.mark.parametrize("content", [None, "{", '{"figures": {}}'])
def test_what_is_no_run_is_an_error_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    report = tmp_path / "run.json"
    if content is not None:
        report.write_text(content)
    assert bench_check.main(["--report", str(report)]) == 2
    assert "cannot be judged" in capsys.readouterr().err


def test_every_bar_of_the_product_is_a_figure_of_the_suites() -> None:
    source = (BENCHMARKS / "fundus_benchmarks" / "ratios" / "suites.py").read_text()
    bars = read_bars(BENCHMARKS / "bars.toml")
    assert len(bars) >= 12
    assert [bar.name for bar in bars if f'"{bar.name}"' not in source] == []
