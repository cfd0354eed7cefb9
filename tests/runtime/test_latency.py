"""Latency: percentiles, frames, the machine's description, and the command on a tiny bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fundus_runtime.commands import bench
from fundus_runtime.errors import EngineError, ImageError
from fundus_runtime.latency import first_result, machine
from fundus_runtime.latency.first_result import measure_first_result
from fundus_runtime.latency.frames import FRAME_SIZE, camera_frames, frames_of
from fundus_runtime.latency.machine import describe_machine, memory_mb, process_threads
from fundus_runtime.latency.subject import Subject
from fundus_runtime.latency.timing import Timing, took_ms
from fundus_runtime.preprocess import PreprocessSpec
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.screener import Screener


def test_percentiles_are_of_the_durations() -> None:
    timing = Timing.of([float(k) for k in range(1, 101)])
    assert timing.count == 100
    assert timing.p50_ms == pytest.approx(50.5)
    assert timing.p90_ms == pytest.approx(90.1)
    assert timing.p99_ms == pytest.approx(99.01)
    assert timing.max_ms == 100


def test_a_call_is_timed_and_its_value_handed_on() -> None:
    value, ms = took_ms(lambda: sum(range(10)))
    assert value == 45
    assert 0 <= ms < 1000


def test_drawn_frames_differ_and_hold_a_disc_of_1880_pixels() -> None:
    frames = camera_frames(2)
    assert [frame.shape for frame in frames] == [(*FRAME_SIZE, 3)] * 2
    native = NativePreprocessor(PreprocessSpec())
    for frame in frames:
        disc = native.crop(frame, color="rgb").field_of_view
        assert abs(2 * disc.radius_x_px - 1880) <= 8
    assert not np.array_equal(*frames)


def test_drawn_frames_are_the_same_every_time() -> None:
    assert np.array_equal(camera_frames(1, seed=3)[0], camera_frames(1, seed=3)[0])


def test_a_folder_with_one_photograph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="1 photographs"):
        frames_of(tmp_path)
    with pytest.raises(ImageError, match="cannot be listed"):
        frames_of(tmp_path / "none")


def test_the_machine_names_what_it_does_not_tell() -> None:
    found = describe_machine()
    assert found["usable_processors"] >= 1
    assert found["not_available"] == [name for name, value in found.items() if value is None]
    json.dumps(found)


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: 15W\n2\n", "15W"),
        ("NVPM ERROR: cannot read\n", None),
    ],
)
def test_a_jetsons_power_mode_is_read_past_its_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, mode: str | None
) -> None:
    program = tmp_path / "nvpmodel"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert describe_machine()["power_mode"] == mode


def test_threads_that_python_did_not_start_are_counted(shared_bundle: Path) -> None:
    pytest.importorskip("onnxruntime")
    before = process_threads()
    assert before is not None
    with Screener.open(shared_bundle, threads=2):
        assert process_threads() >= before + 2  # one for the encoder, one for the head


def test_a_fresh_process_that_hangs_is_a_typed_error(
    shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_result, "_SECONDS", 0.01)
    frame = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(EngineError, match="no result within"):
        measure_first_result(Subject(str(shared_bundle)), frame, frame)


def test_a_fresh_process_that_refuses_an_eye_gives_no_figure(shared_bundle: Path) -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(EngineError, match="graded only some eyes"):
        measure_first_result(Subject(str(shared_bundle)), black, black)


def test_peak_memory_is_at_least_what_is_resident() -> None:
    memory = memory_mb()
    assert memory["peak"] is not None
    assert memory["resident"] is not None
    assert memory["peak"] >= memory["resident"] > 1


def test_the_command_measures_whole_exams_and_their_stages(
    shared_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    words = ["latency", "--bundle", str(shared_bundle), "--seconds", "0.3", "--json"]
    assert bench.main(words) == 0
    values = json.loads(capsys.readouterr().out)
    assert set(values["latency"]) == {"pair", "second_eye", "retake"}
    for way in values["latency"].values():
        whole = way["whole"]
        assert 0 < whole["p50_ms"] <= whole["p90_ms"] <= whole["p99_ms"] <= whole["max_ms"]
        assert "head" in way["stages"]
    assert values["first_result_ms"] > 0
    assert values["memory_mb"]["fresh_process_peak"] > 10
    assert values["bundle"]["name"]


def test_the_command_prints_a_table_that_says_what_the_host_does_not_tell(
    shared_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxruntime")
    zone = tmp_path / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("CPU-therm\n")
    (zone / "temp").write_text("48250\n")
    monkeypatch.setattr(machine, "_THERMAL", zone.parent)
    monkeypatch.setenv("PATH", str(tmp_path))  # where no nvpmodel is
    assert bench.main(["latency", "--bundle", str(shared_bundle), "--seconds", "0.1"]) == 0
    text = capsys.readouterr().out
    (untold,) = (line for line in text.splitlines() if line.startswith("this host does not tell"))
    assert "power mode" in untold
    assert "CPU-therm 48 to 48" in text
    assert "threads," in text.splitlines()[-2]
    assert "the wait after the second eye" in text
    assert "first result of a fresh process" in text


def test_a_bundle_that_is_not_there_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["latency", "--bundle", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err


def test_a_wrong_command_ends_with_status_2() -> None:
    with pytest.raises(SystemExit) as stop:
        bench.main(["latency", "--seconds", "0"])
    assert stop.value.code == 2
