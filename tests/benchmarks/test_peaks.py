"""Peaks are verified before they are timed, and the largest of several stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fundus_benchmarks.limits import peaks
from fundus_benchmarks.limits.gpu_peaks import (
    Device,
    OnnxRuntimeDevice,
    Task,
    TorchDevice,
    measure_gpu,
)
from fundus_benchmarks.limits.peaks import (
    Measured,
    Peaks,
    fastest_s,
    measure_copy,
    measure_peaks,
    measure_product,
)
from fundus_benchmarks.limits.products import LIBRARIES, Factors, Library, WrongProductError

Array = NDArray[Any]
SIDE = 64
SECONDS = 0.01


def library(multiply: Callable[[Array, Array], Array], name: str = "own") -> Library:
    """NumPy in the place of a library."""

    @contextmanager
    def multiplying(factors: Factors, threads: int) -> Iterator[Callable[[], Array]]:
        yield lambda: multiply(factors.left, factors.right)

    return Library(name, "numpy", ("fp32", "int8"), multiplying)


def right(left: Array, right: Array) -> Array:
    whole = left.astype(np.float64) @ right.astype(np.float64)
    return whole.astype(np.float32 if left.dtype == np.float32 else np.int32)


def in_fp16(left: Array, right: Array) -> Array:
    return left.astype(np.float16).astype(np.float32) @ right.astype(np.float16).astype(np.float32)


def off_by_one(left: Array, right_: Array) -> Array:
    answer = right(left, right_)
    answer[3, 5] += 1
    return answer


def cut(left: Array, right_: Array) -> Array:
    return right(left, right_)[:-1]


def saturating(left: Array, right_: Array) -> Array:
    return np.clip(right(left, right_), -(2**15), 2**15 - 1)


@pytest.mark.parametrize(
    ("kind", "multiply"),
    [
        ("fp32", in_fp16),
        ("fp32", off_by_one),
        ("int8", off_by_one),
        ("int8", saturating),
        ("fp32", cut),
    ],
)
def test_a_product_that_answers_wrongly_is_refused(kind, multiply) -> None:
    with pytest.raises(WrongProductError, match="own, 256×256×256"):
        measure_product(library(multiply), Factors.drawn(kind, 256), 1, SECONDS)


def test_a_library_that_answers_wrongly_leaves_the_others_their_peak() -> None:
    found = measure_peaks(
        threads=1,
        seconds=SECONDS,
        libraries=(library(cut, "broken"), library(right, "sound")),
        sides=(SIDE,),
        copied_mb=1,
        progress=False,
    )
    assert "sound" in found.named()["fp32_gflops_all"]
    assert len(found.missing) == 2
    assert all("broken" in one["why"] for one in found.missing)


@pytest.mark.parametrize(
    ("one", "kind"),
    [(one, kind) for one in LIBRARIES for kind in one.kinds],
    ids=[f"{one.name}, {kind}" for one in LIBRARIES for kind in one.kinds],
)
def test_what_the_libraries_answer_is_the_product(one: Library, kind) -> None:
    if not one.is_installed:
        pytest.skip(f"{one.name} is not installed")
    found = measure_product(one, Factors.drawn(kind, SIDE), 2, SECONDS)
    assert found.value > 0
    assert found.threads == 2
    assert found.by == f"{one.name}, 64×64×64"


def test_pytorch_keeps_its_threads() -> None:
    (pytorch,) = (one for one in LIBRARIES if one.module == "torch")
    before = torch.get_num_threads()
    measure_product(pytorch, Factors.drawn("fp32", SIDE), before + 1, SECONDS)
    assert torch.get_num_threads() == before


def test_no_two_neighbours_of_int8_factors_exceed_16_bits() -> None:
    factors = Factors.drawn("int8", 256)
    products = factors.left[:, :, None].astype(np.int32) * factors.right[None].astype(np.int32)
    sums = products[:, 0::2] + products[:, 1::2]
    assert np.abs(sums).max() < 2**15


def test_peaks_have_every_figure_with_one_thread_and_with_all() -> None:
    found = measure_peaks(threads=2, seconds=SECONDS, sides=(SIDE,), copied_mb=1, progress=False)
    figures = found.to_dict()
    assert set(figures) == {
        *("fp32_gflops_1", "fp32_gflops_all", "int8_gops_1", "int8_gops_all"),
        *("copy_gb_s_1", "copy_gb_s_all", "threads_all"),
    }
    assert figures.pop("threads_all") == 2
    assert all(value > 0 for value in figures.values())
    assert set(found.named()) == set(figures)
    for figure in ("fp32_gflops", "int8_gops", "copy_gb_s"):
        assert figures[f"{figure}_all"] >= figures[f"{figure}_1"]


def test_more_threads_are_no_slower_than_the_best_of_fewer() -> None:
    found = Peaks(2, (Measured("copy_gb_s", "a", 1, 24.0), Measured("copy_gb_s", "b", 2, 19.0)))
    assert found.best("copy_gb_s", 1).by == "a"
    assert found.best("copy_gb_s", 2).by == "a"


def test_a_library_that_is_not_installed_is_named() -> None:
    absent = Library("Absent", "fundus_no_such_module", ("fp32",), library(right).multiplying)
    found = measure_peaks(
        threads=1,
        seconds=SECONDS,
        libraries=(library(right), absent),
        sides=(SIDE,),
        copied_mb=1,
        progress=False,
    )
    assert found.missing == ({"what": "matrix products of Absent", "why": "not installed"},)


def test_without_any_library_there_is_no_peak() -> None:
    found = measure_peaks(
        threads=1, seconds=SECONDS, libraries=(), sides=(SIDE,), copied_mb=1, progress=False
    )
    with pytest.raises(RuntimeError, match="fp32_gflops"):
        found.to_dict()


def test_a_copy_counts_what_it_reads_and_what_it_writes(monkeypatch) -> None:
    def half_a_second(copy: Callable[[], object], *, seconds: float) -> float:
        copy()
        return 0.5

    monkeypatch.setattr(peaks, "fastest_s", half_a_second)
    assert measure_copy(2, SECONDS, megabytes=3).value == pytest.approx(2 * 3 * 2**20 / 0.5 / 1e9)


def test_the_fastest_of_at_least_five_calls_counts_and_the_first_does_not() -> None:
    calls = []
    took = fastest_s(lambda: calls.append(0), seconds=0.0)
    assert len(calls) == 6
    assert 0 < took < 0.1


# Stand-ins: the same libraries on the CPU.
DEVICES: dict[str, Callable[[], Device]] = {
    "PyTorch": lambda: TorchDevice("cpu"),
    "ONNX Runtime": lambda: OnnxRuntimeDevice("CPUExecutionProvider", "cpu"),
}


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_a_device_reaches_every_figure(device: Callable[[], Device]) -> None:
    found = measure_gpu(device(), seconds=SECONDS, side=SIDE, copied_mb=1)
    assert found.missing == ()
    assert set(found.figures) == {"fp32_gflops", "fp16_gflops", "int8_gops", "copy_gb_s"}
    assert all(value > 0 for value in found.figures.values())


def test_a_device_that_answers_wrongly_has_no_figure() -> None:
    class Wrong(TorchDevice):
        def product(self, left: Array, right: Array) -> Task:
            return super().product(left, right + (right.dtype.type(1)))

    found = measure_gpu(Wrong("cpu"), seconds=SECONDS, side=SIDE, copied_mb=1)
    assert set(found.figures) == {"copy_gb_s"}
    assert all("NumPy" in one["why"] for one in found.missing)
