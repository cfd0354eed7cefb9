"""The least time of a stage follows from its work and the machine's peaks."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser

import limits
from fundus_benchmarks.contenders import models
from fundus_benchmarks.limits import peaks
from fundus_benchmarks.limits.gpu_peaks import GpuPeaks
from fundus_benchmarks.limits.peaks import Measured, Peaks
from fundus_benchmarks.limits.stage_limits import (
    Rates,
    cpu_rates,
    crop_bytes,
    gpu_rates,
    preprocessing_row,
    stage_rows,
)
from fundus_benchmarks.limits.work import Work
from fundus_benchmarks.results.run_file import read_part

KEYS = {
    *("model", "dialect", "stage", "provider", "operations", "operations_int8"),
    *("operations_float", "weight_bytes", "activation_bytes", "least_ms_operations"),
    *("least_ms_bytes", "limit_ms"),
}
PEAKS = Peaks(
    2,
    (
        Measured("fp32_gflops", "a", 1, 100.0),
        Measured("fp32_gflops", "a", 2, 200.0),
        Measured("int8_gops", "a", 1, 400.0),
        Measured("int8_gops", "a", 2, 800.0),
        Measured("copy_gb_s", "a", 1, 20.0),
        Measured("copy_gb_s", "a", 2, 25.0),
    ),
)


def test_the_least_time_adds_int8_to_float_and_weights_to_activations() -> None:
    work = Work(1_600_000_000, 100_000_000, 10_000_000, 15_000_000)
    assert cpu_rates(PEAKS).least_ms(work) == pytest.approx((2.0 + 0.5, 1.0))


def square_product() -> bytes:
    text = "net (float[N,1000] x) => (float[N,1000] y) { y = MatMul(x, w) }"
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {text}')
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1000, 1000), "f"), "w"))
    return model.SerializeToString()


def test_the_larger_of_both_limits_a_stage() -> None:
    graph = square_product()
    rows = list(stage_rows("edge", "fp32", (graph, graph), cpu_rates(PEAKS)))
    assert [row["stage"] for row in rows] == ["encoder_1", "encoder_2", "head"]
    assert [row["operations"] for row in rows] == [2_000_000, 4_000_000, 2_000_000]
    for row in rows:
        assert set(row) == KEYS
        # 4 MB of weights take longer than a product of one row
        assert row["limit_ms"] == row["least_ms_bytes"] > row["least_ms_operations"] > 0
    slow = Rates("cpu", 800.0, 1.0, 25.0)
    assert [row["limit_ms"] for row in stage_rows("edge", "fp32", (graph, graph), slow)] == [
        2,
        4,
        2,
    ]


def test_preprocessing_is_held_to_what_one_thread_moves() -> None:
    row = preprocessing_row(PEAKS, 10_000_000)
    assert set(row) == KEYS
    assert (row["stage"], row["model"], row["operations"]) == ("preprocessing", None, None)
    assert row["limit_ms"] == row["least_ms_bytes"] == 0.5


def test_the_crop_is_the_disc_of_the_frame() -> None:
    assert crop_bytes() == pytest.approx(1880 * 1880 * 3, rel=0.01)


def test_a_gpu_without_every_figure_has_no_limits() -> None:
    figures = {"fp32_gflops": 1.0, "fp16_gflops": 2.0, "int8_gops": 4.0, "copy_gb_s": 8.0}
    assert gpu_rates(GpuPeaks("a", figures, ())) == Rates("cuda", 4.0, 2.0, 8.0)
    del figures["int8_gops"]
    assert gpu_rates(GpuPeaks("a", figures, ())) is None


@pytest.mark.parametrize("words", [["--seconds", "0"], ["--threads", "0"], ["--model", "other"]])
def test_wrong_words_end_with_usage(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as end:
        limits.build_parser().parse_args(words)
    assert end.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_part_holds_peaks_and_a_row_for_each_stage(tmp_path, monkeypatch, capsys) -> None:
    # both take long: measuring is tested beside, and a limit needs no particular graph
    monkeypatch.setattr(peaks, "measure_peaks", lambda **_: PEAKS)
    monkeypatch.setattr(models, "fp32_graphs", lambda _: (square_product(), square_product()))
    assert limits.main(["--model", "edge", "--threads", "2", "--out", str(tmp_path)]) == 0
    part = read_part(tmp_path / "limits.json")
    assert part["peaks"] == PEAKS.to_dict()
    assert part["peaks_by"]["int8_gops_all"] == "a, 2 threads"
    assert part["command"] == "python benchmarks/limits.py --model edge --threads 2 --seconds 20"
    stages = [(row["dialect"], row["stage"]) for row in part["rows"] if row["provider"] == "cpu"]
    assert stages == [
        (None, "preprocessing"),
        *((d, s) for d in ("fp32", "int8-cpu") for s in ("encoder_1", "encoder_2", "head")),
    ]
    table = capsys.readouterr().out
    for _, stage in stages:
        assert stage in table
