"""Curves of growth: the line through the points, the rows, and short real measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import growth
from fundus_benchmarks.growth import sized_models
from fundus_benchmarks.growth.curves import Curve, Effort, Point, fit_line, points_in_turns
from fundus_benchmarks.growth.engines import thread_counts, trunk
from fundus_benchmarks.growth.frames import resized
from fundus_benchmarks.results.run_file import read_part

KEYS = {
    "curve",
    "what",
    "model",
    "x",
    "x_unit",
    "y",
    "y_unit",
    "points",
    "slope",
    "intercept",
    "r2",
}


def test_points_on_a_line_give_that_line() -> None:
    line = fit_line([1, 2, 4, 8], [5.0, 7.0, 11.0, 19.0])
    assert line.slope == pytest.approx(2.0)
    assert line.intercept == pytest.approx(3.0)
    assert line.r2 == pytest.approx(1.0)


def test_points_beside_the_line_lower_r2() -> None:
    # means 1 and 2; 0.5, -1 and 0.5 off the line, -0.5, -1 and 1.5 off the mean
    line = fit_line([0, 1, 2], [1.5, 1.0, 3.5])
    assert line.slope == pytest.approx(1.0)
    assert line.intercept == pytest.approx(1.0)
    assert line.r2 == pytest.approx(1.0 - 1.5 / 3.5)


@pytest.mark.parametrize(
    ("xs", "ys", "slope"), [([1, 2], [4.0, 3.0], -1.0), ([1, 2, 3], [5.0, 5.0, 5.0], 0.0)]
)
def test_r2_is_not_claimed_where_it_says_nothing(xs, ys, slope) -> None:
    line = fit_line(xs, ys)
    assert line.slope == pytest.approx(slope)
    assert line.r2 is None


def test_one_point_has_no_line() -> None:
    assert fit_line([3], [7.0]).slope is None
    assert fit_line([3, 3], [7.0, 9.0]).intercept is None


def test_a_curve_s_row_holds_points_line_and_settings() -> None:
    points = [Point(1, 10.0, 11.0), Point(2, 20.0, 21.0, "two")]
    curve = Curve("batch", "encoder", "edge", "batch", "eyes", points, settings={"threads": 2})
    row = curve.row()
    assert set(row) == KEYS | {"threads"}
    assert row["points"][1] == {"x": 2, "y": 20.0, "p90": 21.0, "label": "two"}
    assert (row["slope"], row["intercept"]) == (10.0, 0.0)
    assert json.loads(json.dumps(row)) == row


def test_a_curve_that_is_no_line_keeps_its_points_alone() -> None:
    points = [Point(1, 10.0), Point(2, 14.0), Point(4, 16.0)]
    row = Curve("rate", "rate", "edge", "pairs", "pairs", points, fitted=False).row()
    assert [point["y"] for point in row["points"]] == [10.0, 14.0, 16.0]
    assert (row["slope"], row["intercept"], row["r2"]) == (None, None, None)
    text = growth.table({"rows": [row], "missing": []})
    assert text.startswith("rate, edge: no line, 3 measured\n")
    assert "4.00: 16.0" in text


def test_series_keep_their_points_in_the_order_of_x() -> None:
    contenders = {("b", 4.0): lambda _: 8.0, ("a", 2.0): lambda _: 3.0, ("b", 1.0): lambda _: 2.0}
    points = points_in_turns(contenders, 0.0, {4.0: "four"})
    assert points["a"] == [Point(2.0, 3.0, 3.0)]
    assert points["b"] == [Point(1.0, 2.0, 2.0), Point(4.0, 8.0, 8.0, "four")]


def test_each_round_has_all_points_in_another_order() -> None:
    seen: list[str] = []
    contenders = {
        ("a", x): lambda _, name=name: seen.append(name) for x, name in enumerate("pqrs", start=1)
    }
    points = points_in_turns(contenders, 0.0)
    rounds = ["".join(seen[k : k + 4]) for k in range(0, len(seen), 4)]
    assert {"".join(sorted(one)) for one in rounds} == {"pqrs"}
    assert len(set(rounds)) > 3
    # what a contender returns is its own time; None lets the whole call count
    assert all(0 < point.y < 10 for point in points["a"])


@pytest.mark.parametrize("count", [0.1, 2.0])
def test_a_resized_frame_has_its_megapixels_shape_and_disc(count: float) -> None:
    frame = np.zeros((600, 800, 3), np.uint8)
    frame[100:500, 200:600] = 120
    scaled = resized(frame, count, seed=0)
    assert scaled.shape[0] * scaled.shape[1] / 1e6 == pytest.approx(count, rel=0.01)
    assert scaled.shape[1] / scaled.shape[0] == pytest.approx(4 / 3, rel=0.01)
    assert (scaled[:, :, 0] > 60).mean() == pytest.approx(400 * 400 / (600 * 800), rel=0.02)


def test_threads_double_to_as_many_as_there_are() -> None:
    assert thread_counts(1) == [1]
    assert thread_counts(2) == [1, 2]
    assert thread_counts(8) == [1, 2, 4, 8]
    assert thread_counts(12) == [1, 2, 4, 8, 12]


def test_the_edge_model_s_trunk_is_timed_and_its_operations_are_counted() -> None:
    (curve,) = trunk(Effort(0.0, 1, ("edge",)))
    (point,) = curve.points
    assert point.label == "MobileNetV2"
    # two eyes through about 300 million multiply-adds each, and the head
    assert 1.0 < point.x < 5.0
    assert point.y > 0
    assert curve.row()["slope"] is None


def test_the_command_writes_the_part(tmp_path: Path, capsys) -> None:
    words = ["--curve", "threads", "--model", "edge", "--seconds", "0.01", "--threads", "1"]
    assert growth.main([*words, "--out", str(tmp_path)]) == 0
    part = read_part(tmp_path / "growth.json")
    (row,) = part["rows"]
    assert set(row) >= KEYS
    assert row["model"] == "edge"
    assert [point["x"] for point in row["points"]] == thread_counts()
    assert all(0 < point["y"] <= point["p90"] for point in row["points"])
    assert part["settings"]["models"] == ["edge"]
    assert part["command"].startswith("python benchmarks/growth.py --curve threads")
    assert capsys.readouterr().out.startswith("pair at once against threads, edge: ")


@pytest.mark.slow
def test_the_edge_model_is_exported_at_another_size_and_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fundus_benchmarks.contenders.made_once._KEPT", tmp_path)
    sized = sized_models.sized_edge_model(96)
    eyes = np.random.default_rng(0).normal(size=(2, 3, 96, 96)).astype(np.float32)
    with closing(sized.open(threads=1)) as backend:
        features, present = backend.encode(eyes, ["left", "right"]).features, np.ones(1, np.float32)
        logits = backend.fuse(features[:1], features[1:], present, present)
    sized.verify(logits, eyes)
    with pytest.raises(RuntimeError, match="edge model at 96 px differs"):
        sized.verify(-logits, eyes)
    (folder,) = tmp_path.iterdir()
    made = (folder / "encoder.onnx").stat().st_mtime_ns
    assert sized_models.sized_edge_model(96).encoder == sized.encoder
    assert (folder / "encoder.onnx").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    "words",
    [
        ["--curve", "weather"],
        ["--model", "tiny"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--threads", "0"],
    ],
)
def test_options_that_make_no_sense_are_refused(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        growth.main(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", ["growth", "faithfulness"])
def test_help_loads_no_engine(name: str) -> None:
    folder = Path(growth.__file__).parent
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import {name}; "
        f"{name}.build_parser().format_help(); "
        "print(sorted({'torch', 'onnxruntime', 'sklearn', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
