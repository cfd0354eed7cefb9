"""The command on a machine that is no Jetson, and whole, with recorded lines in a board's place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jetson
from fundus_benchmarks.jetson import sustained
from fundus_benchmarks.jetson.table import jetson_table
from fundus_benchmarks.results.run_file import read_part
from fundus_runtime.golden import GoldenReport
from fundus_runtime.latency.frames import camera_frames

ROOT = Path(__file__).parents[2]
LINES = (Path(__file__).with_name("data") / "tegrastats.txt").read_text("utf-8")
ORIN_NANO = re.findall(r"^# orin_nano_busy: .*\n(.+)$", LINES, re.MULTILINE)[0]
# What exams need where only the runtime is installed.
NOT_ON_A_ROBOT = ("torch", "cv2", "openvino", "onnx", "matplotlib", "jinja2", "scipy")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what tells a Jetson: tegrastats printing what an Orin Nano did, and a model."""
    folder = tmp_path_factory.mktemp("board")
    program = folder / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile :; do echo '{ORIN_NANO}'; sleep 0.1; done\n")
    program.chmod(0o755)
    (folder / "model").write_text("a board\0")
    (folder / "release").write_text("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n")
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number, frame in enumerate(camera_frames(2)):
        Image.fromarray(frame[::2, ::2]).save(folder / f"{number}.png", compress_level=1)
    return folder


def on_board(board: Path, words: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(board), prepend=":")
        patch.setattr(jetson, "_MODEL", board / "model")
        patch.setattr(jetson, "_RELEASE", board / "release")
        return jetson.main(words)


@pytest.fixture(scope="module")
def written(
    board: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The part of a short run on the CPU, the real screener with the bundle that ships."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("run")
    words = ["--backend", "onnxruntime", "--provider", "cpu", "--threads", "1"]
    words += ["--bundle", str(ROOT / "bundles" / "edge"), "--frames", str(photographs)]
    words += ["--minutes", "0.02", "--rest-seconds", "0.3", "--out", str(out)]
    assert on_board(board, words) == 0
    return read_part(out / "jetson.json")


def test_another_machine_measures_nothing_and_says_so_in_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "jetson.py"), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("jetson: this machine is no Jetson: it has no tegrastats")
    assert not (tmp_path / "run").exists()


def test_a_board_that_is_not_described_is_no_jetson(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(board), prepend=":")
        patch.setattr(jetson, "_MODEL", tmp_path / "none")
        assert jetson.main(["--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "it has no " + str(tmp_path / "none") in said.err


def _printed(code: str) -> str:
    """By a fresh interpreter, which has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT / "benchmarks",
    )
    return done.stdout.strip()


def test_the_command_needs_what_the_runtime_needs() -> None:
    code = (
        "import sys, jetson\n"
        "from fundus_benchmarks.jetson import row, sustained, table\n"
        "from fundus_benchmarks.results import run_file\n"
        f"print(sorted(set({NOT_ON_A_ROBOT!r}) & set(sys.modules)))"
    )
    assert _printed(code) == "[]"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, jetson\nprint('numpy' in sys.modules)"
    assert _printed(code) == "False"


def test_plans_of_tensorrt_are_the_default() -> None:
    args = jetson.build_parser().parse_args([])
    assert (args.backend, args.minutes) == ("tensorrt", 5.0)


def test_a_run_writes_what_the_board_told(written: dict[str, Any]) -> None:
    (row,) = written["rows"]
    assert (row["model"], row["dialect"], row["threads"]) == ("edge", "int8-cpu", 1)
    assert row["golden_pairs"] >= 32
    assert row["seconds"] >= 1.2
    assert row["exams"] >= row["fresh"]["pair"]["count"] + row["sustained"]["pair"]["count"] - 1
    for when in ("fresh", "sustained"):
        found = row[when]
        assert 0 < found["pair"]["p50_ms"] <= found["pair"]["p99_ms"] <= found["pair"]["max_ms"]
        assert {"encode", "head", "preprocess_left"} <= set(found["stages"])
    assert row["clocks_mhz"]["memory"]["fresh"] == 2133
    assert row["temperatures_c"]["gpu"]["highest"] == 53.3
    assert written["l4t"] == "36.4.3"


def test_its_energy_is_that_of_the_recorded_power(written: dict[str, Any]) -> None:
    (row,) = written["rows"]
    power = row["power"]
    assert (power["covers"], power["rails"]) == ("module", ["VDD_IN"])
    # the recorded line says 12479 mW all the time; the time is rounded to 0.1 s
    assert power["rest_w"] == power["ready_w"] == power["load_w"] == 12.479
    joules = power["gross_j_per_exam"] * row["exams"]
    assert joules == pytest.approx(12.479 * row["seconds"], abs=0.06 * 12.479)
    assert power["net_j_per_exam"] == pytest.approx(0.0, abs=1e-5)
    assert power["samples"] >= 5
    assert power["longest_gap_ms"] < 1000


def test_a_run_names_no_folder_of_its_machine(written: dict[str, Any], photographs: Path) -> None:
    assert str(ROOT) not in json.dumps(written)
    assert str(photographs) not in json.dumps(written)
    assert written["command"] == (
        "python3 benchmarks/jetson.py --bundle bundles/edge --backend onnxruntime --provider cpu "
        "--threads 1 --minutes 0.02 --frames DIR"
    )


def test_the_table_shows_the_figures_of_the_row(written: dict[str, Any]) -> None:
    text = jetson_table(written)
    (row,) = written["rows"]
    assert f"{row['sustained']['pair']['p90_ms']:.2f}" in text
    assert f"{row['power']['gross_j_per_exam']:g} J" in text
    assert "VDD_IN, without the carrier board" in text
    assert "Jetson Linux 36.4.3" in text


def test_the_table_of_a_silent_board_makes_nothing_up(written: dict[str, Any]) -> None:
    (row,) = written["rows"]
    silent = dict.fromkeys(row["power"]) | {"rails": []}
    part = written | {"rows": [row | {"power": silent, "throttled": None}], "l4t": None}
    lines = jetson_table(part).splitlines()
    assert "Jetson Linux unknown" in lines[0]
    (energy,) = (line for line in lines if line.startswith("energy"))
    assert re.findall(r"\d", energy) == []
    assert any(line.split() == ["throttled", "unknown"] for line in lines)


def test_photographs_that_cannot_be_graded_are_refused(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(tmp_path / name)
    words = ["--backend", "onnxruntime", "--frames", str(tmp_path), "--minutes", "0.01"]
    words += ["--rest-seconds", "0.1", "--out", str(tmp_path / "run")]
    assert on_board(board, words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "there is nothing to measure" in said.err
    assert not (tmp_path / "run").exists()


def test_an_engine_that_answers_otherwise_is_not_timed(
    board: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    wrong = GoldenReport(32, 0.4, 0.02, ("golden/00_left.png",), "int8-cpu")
    monkeypatch.setattr(sustained, "check_golden", lambda *_, **__: wrong)
    words = ["--backend", "onnxruntime", "--frames", str(photographs), "--rest-seconds", "0.1"]
    assert on_board(board, [*words, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "answers 1 of 32 golden pairs otherwise" in said.err
    assert not (tmp_path / "run").exists()


def test_without_plans_the_way_to_build_them_is_said(
    board: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--frames", str(photographs), "--rest-seconds", "0.1", "--out", str(tmp_path / "run")]
    assert on_board(board, words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"jetson: .*(TensorRT|plans)", said.err)
    assert not (tmp_path / "run").exists()


def test_the_walk_through_tells_every_option_and_its_links_lead_somewhere() -> None:
    page = ROOT / "benchmarks" / "jetson.md"
    text = page.read_text("utf-8")
    options = {
        option
        for action in jetson.build_parser()._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }
    assert sorted(option for option in options if f"`{option}" not in text) == []
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", text)
    assert links
    for name, anchor in links:
        target = (page.parent / name).read_text("utf-8")
        headings = re.findall(r"^#+ (.*)$", target, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
