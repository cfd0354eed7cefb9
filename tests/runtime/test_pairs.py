from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fundus_runtime.commands.pairs import find_pairs
from fundus_runtime.commands.screen import main
from fundus_runtime.errors import UsageError
from fundus_runtime.screener import Screener

Rows = dict[str, dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photographs"
    made.mkdir()
    return made


@pytest.fixture
def run(shared_bundle: Path, folder: Path, tmp_path: Path) -> Callable[..., tuple[int, Rows]]:
    def screen(*options: str, out: str = "out.csv") -> tuple[int, Rows]:
        target = tmp_path / out
        words = ["--pairs", str(folder), "--csv", str(target), "--bundle", str(shared_bundle)]
        status = main([*words, *options])
        if not target.is_file():
            return status, {}
        with target.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            return status, {row["pair"]: row for row in csv.DictReader(stream)}

    return screen


def test_rows_hold_the_stated_columns_in_natural_order(
    folder, run, draw, write, tmp_path, capsys
) -> None:
    for name, says in {"10": "D", "2": "N", "x 1_b": "uncertain"}.items():
        write(folder / f"{name}_left.png", draw(says, seed=1))
        write(folder / f"{name}_right.JPG", draw(says, seed=2))
    (folder / "notes.txt").write_text("not a photograph")
    status, rows = run()
    assert status == 0
    assert list(rows) == ["2", "10", "x 1_b"]
    header = (tmp_path / "out.csv").read_text("utf-8").splitlines()[0]
    assert header.startswith("pair,status,reason,outcome,N,D,G,C,A,H,M,O,")
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert {row["reason"] for row in rows.values()} == {""}
    outcomes = {name: (row["outcome"], row["refer"]) for name, row in rows.items()}
    assert outcomes == {
        "2": ("normal", "false"),
        "10": ("findings", "true"),
        "x 1_b": ("uncertain", "true"),
    }
    assert rows["10"]["findings"] == "D"
    assert float(rows["10"]["D"]) > 0.6
    assert float(rows["10"]["latency_ms"]) > 0
    printed = capsys.readouterr()
    assert "3 pairs, 3 ok, 0 ungradable, 0 refused" in printed.out
    assert "1 files are not named like an eye" in printed.err


def test_probabilities_are_those_of_the_single_exam(
    folder, run, draw, write, shared_bundle
) -> None:
    left = write(folder / "7_left.png", draw("D", seed=1))
    right = write(folder / "7_right.png", draw("N", seed=2))
    _, rows = run()
    with Screener.open(shared_bundle) as screener:
        alone = screener.screen_files(left, right)
    assert {k: float(rows["7"][k]) for k in "NDGCAHMO"} == alone.probabilities


def test_ungradable_and_refused_pairs_have_a_reason_and_no_probabilities(
    folder, run, draw, write
) -> None:
    write(folder / "black_left.png", np.zeros((200, 200, 3), np.uint8))
    write(folder / "black_right.png", draw("N"))
    whole = write(folder / "cut_left.jpg", draw("N"))
    whole.write_bytes(whole.read_bytes()[:-50])
    write(folder / "cut_right.jpg", draw("N"))
    write(folder / "alone_left.png", draw("N"))
    for ending in ("jpg", "png"):
        write(folder / f"twice_left.{ending}", draw("N"))
    write(folder / "twice_right.png", draw("N"))
    (folder / "other_left.gif").write_bytes(b"GIF89a" + bytes(40))
    write(folder / "other_right.png", draw("N"))
    status, rows = run()
    assert status == 0
    expected = {
        "alone": ("refused", "right: no alone_right.*; add it"),
        "black": ("ungradable", "left: "),
        "cut": ("refused", "cut short"),
        "other": ("refused", "is a GIF file"),
        "twice": ("refused", "left: two files for one eye (twice_left.jpg, twice_left.png)"),
    }
    assert list(rows) == sorted(expected)
    for name, (state, reason) in expected.items():
        row = rows[name]
        assert row["status"] == state
        assert reason in row["reason"]
        assert [row[letter] for letter in "NDGCAHMO"] == [""] * 8
        assert (row["outcome"], row["refer"]) == ("ungradable", "true")


def test_one_eye_is_screened_when_asked_for_and_never_normal(folder, run, draw, write) -> None:
    write(folder / "1_left.png", draw("N"))
    write(folder / "2_right.png", draw("D"))
    _, rows = run("--one-eye")
    for name, absent in (("1", "right"), ("2", "left")):
        row = rows[name]
        assert row["status"] == "ok"
        assert row["outcome"] == "ungradable"
        assert row["refer"] == "true"
        assert row["reason"] == f"{absent}: absent"
        assert row[f"{absent}_status"] == "absent"
    assert float(rows["1"]["N"]) > 0.6
    assert rows["2"]["findings"] == "D"


def test_unreadable_partner_is_refused_even_with_one_eye(folder, run, draw, write) -> None:
    write(folder / "1_left.png", draw("N"))
    (folder / "1_right.png").write_bytes(b"")
    _, rows = run("--one-eye")
    assert rows["1"]["status"] == "refused"
    assert "is empty" in rows["1"]["reason"]


@pytest.mark.parametrize("name", ["=1+1", "a,b", 'q"u', "-x", "é 木", "12_left", "a\nb"])
def test_ids_stay_as_in_the_file_names(folder, run, draw, write, name) -> None:
    write(folder / f"{name}_left.png", draw("D", seed=1))
    write(folder / f"{name}_right.png", draw("D", seed=2))
    _, rows = run()
    assert list(rows) == [name]
    assert rows[name]["status"] == "ok"


def test_ids_that_are_no_utf8_survive(folder, run, draw, write) -> None:
    for eye in ("left", "right"):
        plain = write(folder / f"x_{eye}.png", draw("D"))
        try:
            plain.rename(folder / os.fsdecode(b"\xff_" + eye.encode() + b".png"))
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
    status, rows = run()
    assert status == 0
    assert [os.fsencode(name) for name in rows] == [b"\xff"]


def test_existing_file_is_kept_without_force(folder, run, draw, write, tmp_path, capsys) -> None:
    write(folder / "1_left.png", draw("D"))
    write(folder / "1_right.png", draw("D", seed=2))
    (tmp_path / "out.csv").write_text("kept")
    assert run()[0] == 1
    assert (tmp_path / "out.csv").read_text() == "kept"
    assert "exists already; choose another name or give --force" in capsys.readouterr().err
    assert run("--force")[0] == 0
    assert (tmp_path / "out.csv").read_text().startswith("pair,")


@pytest.mark.parametrize("out", ["none/out.csv", "."])
def test_impossible_targets_are_refused_before_the_work(folder, run, out, capsys) -> None:
    assert run(out=out)[0] == 1
    assert "fundus-screen: error:" in capsys.readouterr().err


def test_folder_without_pairs_is_refused_by_name(folder, run, capsys) -> None:
    (folder / "cat.jpg").write_bytes(b"x")
    status, rows = run()
    assert (status, rows) == (2, {})
    assert "holds no photographs of pairs (1 other files)" in capsys.readouterr().err
    with pytest.raises(UsageError, match="is no folder"):
        find_pairs(folder / "none")
    with pytest.raises(UsageError, match=r"is no folder that can be read \(File name too long\)"):
        find_pairs(folder / ("a" * 300))


def test_sidecars_hidden_files_and_folders_are_no_eyes(folder, draw, write) -> None:
    write(folder / "1_left.png", draw("D"))
    write(folder / "1_right.png", draw("D"))
    for name in ("1_left.json", "._1_left.png", "1_middle.png", "_left.png"):
        (folder / name).write_bytes(b"x")
    found = find_pairs(folder)
    assert [pair.id for pair in found.pairs] == ["1"]
    assert found.others == 4


def test_engine_failure_leaves_nothing_behind(
    folder, make_bundle, graphs, draw, write, tmp_path, capsys
) -> None:
    write(folder / "1_left.png", draw("D"))
    bundle = make_bundle(tmp_path / "nan", head=graphs["head"](answers="nan_of_one_eye"))
    words = ["--pairs", str(folder), "--csv", str(tmp_path / "out.csv"), "--bundle", str(bundle)]
    assert main([*words, "--one-eye"]) == 1
    assert "NaN or infinity" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nan", "photographs"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_nothing_behind(
    folder, shared_bundle, draw, write, tmp_path, number
) -> None:
    first = write(folder / "0_left.png", draw("D", width=1200, height=1200))
    for index in range(600):
        for eye in ("left", "right"):
            if (target := folder / f"{index}_{eye}.png") != first:
                os.link(first, target)
    out = tmp_path / "csv" / "out.csv"
    out.parent.mkdir()
    words = ["--pairs", str(folder), "--csv", str(out), "--bundle", str(shared_bundle)]
    command = [sys.executable, "-m", "fundus_runtime.commands.screen", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any(out.parent.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted; nothing was written" in errors
    assert b"Traceback" not in errors
    assert list(out.parent.iterdir()) == []
