"""`benchmarks/report.py` keeps, renders and writes, and says what it made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_run import MACHINE, MACHINE_NAME, Part, drawn_parts, on

import report
from fundus_benchmarks.report.readme_table import BEGIN, END
from fundus_benchmarks.results.processor import PROCESSOR
from fundus_benchmarks.results.run_file import write_part

Command = Callable[..., int]


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n{BEGIN}\n{END}\n")
    return path


@pytest.fixture
def command(tmp_path: Path, readme: Path) -> Command:
    """The command on parts that are written for it; without parts, on what lies there."""

    def run(parts: list[Part], *words: str) -> int:
        for part in parts:
            write_part(part, tmp_path / "run")
        places = {"results": tmp_path / "results", "out": tmp_path / "page.html", "readme": readme}
        named = [word for name, path in places.items() for word in (f"--{name}", str(path))]
        return report.main([str(tmp_path / "run"), *named, *words])

    return run


def test_a_run_is_kept_rendered_and_written_into_the_readme(
    command: Command, tmp_path: Path, readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([drawn_parts()["latency"], drawn_parts()["ratios"]]) == 0
    kept = tmp_path / "results" / MACHINE_NAME / "2026-11-20-0123456789ab.json"
    assert kept.exists()
    assert "</html>" in (tmp_path / "page.html").read_text()
    assert "| promise, 11 of 12 kept;" in readme.read_text()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "not measured: limits, faithfulness, growth, jetson"
    assert any("13.0 ms" in line and "edge" in line for line in lines)
    assert [line.split()[1].rstrip(",") for line in lines[-3:]] == [
        str(path) for path in (kept, tmp_path / "page.html", readme)
    ]


def test_the_check_passes_on_what_was_written_and_fails_once_it_was_touched(
    command: Command, readme: Path
) -> None:
    command([drawn_parts()["ratios"]])
    assert command([], "--check") == 0
    readme.write_text(readme.read_text().replace("1.32", "1.42"))
    assert command([], "--check") == 1


def test_the_check_fails_where_newer_results_were_kept_without_the_readme(
    command: Command,
) -> None:
    command([drawn_parts()["ratios"]])
    newer = on(drawn_parts()["ratios"], "2026-11-21")
    assert command([newer], "--no-readme") == 0
    assert command([], "--check") == 1


def test_without_keeping_only_the_page_is_written(
    command: Command, tmp_path: Path, readme: Path
) -> None:
    before = readme.read_text()
    assert command([drawn_parts()["ratios"]], "--no-keep") == 0
    assert not (tmp_path / "results").exists()
    assert readme.read_text() == before
    assert (tmp_path / "page.html").exists()


def test_a_slowdown_since_the_last_kept_run_is_told_at_the_end(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command([on(drawn_parts()["latency"], "2026-11-18")])
    command([on(drawn_parts(host=1.3, second_eye=1.4)["latency"], "2026-11-20")])
    out = capsys.readouterr().out
    assert "2 rows slower beyond noise than on 2026-11-18, commit 0123456789ab" in out
    assert "1.40×  edge, wait after the second eye" in out


def test_a_run_on_another_processor_is_not_compared_and_that_is_said(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = ({**MACHINE, PROCESSOR: f"AuthenticAMD family {n}"} for n in (25, 26))
    command([{**on(drawn_parts()["latency"], "2026-11-18"), "machine": one}])
    slow = drawn_parts(host=1.3, second_eye=1.4)["latency"]
    command([{**on(slow, "2026-11-20"), "machine": other}])
    out = capsys.readouterr().out
    said = f"1 kept run of {MACHINE_NAME} not compared: measured on AuthenticAMD family 25"
    assert "slower beyond noise" not in out
    assert said in out
    page = (tmp_path / "page.html").read_text()
    assert said in page
    assert "No earlier run with latencies is kept" in page


def test_an_earlier_run_that_does_not_state_its_processor_is_named_so(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command([on(drawn_parts()["latency"], "2026-11-18")])
    machine = {**MACHINE, PROCESSOR: "AuthenticAMD family 25"}
    command([{**on(drawn_parts()["latency"], "2026-11-20"), "machine": machine}])
    said = "2026-11-18, commit 0123456789ab (its processor is not stated)"
    assert f"beyond noise than on {said}" in capsys.readouterr().out
    assert f"Against {said}: 0 of" in (tmp_path / "page.html").read_text()


def test_nothing_is_kept_where_the_readme_has_no_place_for_the_table(
    command: Command, tmp_path: Path, readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme.write_text("# Title\n")
    assert command([drawn_parts()["ratios"]]) == 1
    assert "markers" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_parts_of_two_commits_end_with_a_reason_and_status_1(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = drawn_parts()
    assert command([parts["ratios"], on(parts["growth"], "2026-11-20", "ffff")]) == 1
    assert "more than one commit" in capsys.readouterr().err


def test_an_empty_folder_ends_with_what_to_do(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([]) == 1
    assert "make bench" in capsys.readouterr().err
