"""Which stages a whole is made of, and who is a peer."""

from __future__ import annotations

import pytest
from drawn_run import Part, drawn_parts

from fundus_benchmarks.report.latency_rows import (
    contender_name,
    device_of,
    fastest_own,
    package_of,
    part_of,
    prepares_side_by_side,
    timed_parts,
)

ROWS = drawn_parts()["latency"]["rows"]


def test_of_a_pair_prepared_side_by_side_encoder_and_head_alone_are_parts() -> None:
    pair = _row("paper", "pair")
    assert prepares_side_by_side(pair)
    assert dict(timed_parts(ROWS, pair)) == {"encoder_2": 62.0, "head": 5.4}


@pytest.mark.parametrize("threads", [1, None])
def test_a_pair_on_one_thread_takes_twice_an_eyes_preparation(threads: int | None) -> None:
    rows = [{**row, "threads": threads} for row in ROWS]
    pair = {**_row("paper", "pair"), "threads": threads}
    assert not prepares_side_by_side(pair)
    assert dict(timed_parts(rows, pair)) == {
        "preprocessing": 2 * 1.9,
        "gates": 2 * 1.0,
        "encoder_2": 62.0,
        "head": 5.4,
    }


def test_a_second_eye_takes_one_eyes_preparation() -> None:
    assert not prepares_side_by_side(_row("paper", "second_eye"))
    assert list(dict(timed_parts(ROWS, _row("paper", "second_eye"))).values()) == [
        *(1.9, 1.0, 36.0, 5.4)
    ]


def test_a_peers_eyes_are_prepared_with_opencv_and_not_judged() -> None:
    pair = _row("edge", "pair", "OpenVINO INT8")
    assert not prepares_side_by_side(pair)
    openvino = dict(timed_parts(ROWS, pair))
    assert openvino == {"preprocessing": 22.0, "encoder_2": 6.0, "head": 3.0}
    assert dict(timed_parts(ROWS, _row("edge", "pair", "PyTorch FP32"))) == {"preprocessing": 22.0}


def test_a_stage_of_another_form_or_other_threads_is_no_part() -> None:
    pair = _row("edge", "pair")
    for change in ({"dialect": "fp32"}, {"threads": 4}, {"backend": "tensorrt"}):
        assert part_of(ROWS, {**pair, **change}, "encoder_2") is None
        assert part_of(ROWS, {**pair, **change}, "preprocessing") is not None


def test_of_two_preparations_the_one_on_the_engines_device_is_the_part() -> None:
    native = next(row for row in ROWS if row["stage"] == "preprocessing")
    cuda = {**native, "provider": "cuda", "p50_ms": 0.4}
    pair = {**_row("edge", "pair"), "provider": "cuda"}
    assert part_of([native, cuda], pair, "preprocessing") is cuda
    assert part_of([cuda, native], _row("edge", "pair"), "preprocessing") is native
    assert part_of([native], pair, "preprocessing") is native


@pytest.mark.parametrize(
    ("contender", "package"),
    [
        ("PyTorch compiled", "torch"),
        ("ONNX Runtime FP32", "onnxruntime"),
        ("OpenVINO INT8", "openvino"),
        ("TensorRT FP16", "tensorrt"),
        ("runtime", None),
        ("reference", None),
    ],
)
def test_a_peer_is_known_by_its_package(contender: str, package: str | None) -> None:
    assert package_of(contender) == package


def test_the_fastest_form_is_the_products_own_on_that_device() -> None:
    rows = [row for row in ROWS if row["model"] == "edge"]
    quick = {**_row("edge", "pair"), "provider": "cuda", "p50_ms": 1.0}
    unknown = {**_row("edge", "pair"), "p50_ms": None}
    assert fastest_own([*rows, quick, unknown], "pair") is _row("edge", "pair")
    assert fastest_own([*rows, quick], "pair", "gpu") is quick
    assert fastest_own([unknown], "pair") is None


def test_a_form_is_named_with_its_engine_and_on_a_gpu_with_its_provider() -> None:
    pair = _row("edge", "pair")
    assert contender_name(pair) == "fundus-edge int8-cpu, onnxruntime"
    assert contender_name({**pair, "provider": "cuda"}).endswith("onnxruntime, cuda")
    plans = {**pair, "backend": "tensorrt", "provider": "tensorrt", "threads": 1}
    assert contender_name(plans, threads=True) == "fundus-edge int8-cpu, tensorrt, 1 thread"
    assert [device_of(name) for name in (None, "cpu", "CPUExecutionProvider")] == ["cpu"] * 3
    assert device_of("tensorrt") == "gpu"


def _row(model: str, stage: str, contender: str = "runtime") -> Part:
    of = {"model": model, "stage": stage, "contender": contender}
    return next(row for row in ROWS if all(row[key] == value for key, value in of.items()))
