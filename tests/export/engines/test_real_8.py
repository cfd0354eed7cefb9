"""The real TensorRT 8.5.3.1, without a GPU: names, errors, and what it can be asked before one.

`make test-tensorrt` makes the environment and runs these; elsewhere they are skipped.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fundus_export.commands import engine
from fundus_export.tensorrt.builder import build_engine
from fundus_export.tensorrt.features import probe
from fundus_export.tensorrt.machine import Machine, open_machine
from fundus_export.tensorrt.network import make_builder
from fundus_export.tensorrt.options import PRECISIONS, EngineOptions
from fundus_export.tensorrt.strategy import choose_strategy
from fundus_runtime.backends import cuda_device, cuda_python
from fundus_runtime.backends.tensorrt import TensorRTBackend
from fundus_runtime.backends.tensorrt_install import import_tensorrt, make_log, require_gpu
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineError, EngineMissingError

VERSION = "8.5.3.1"
RECORD = Path(__file__).with_name("api") / f"{VERSION}.json"

pytestmark = pytest.mark.needs_tensorrt


@pytest.fixture
def trt(real_tensorrt: ModuleType) -> ModuleType:
    if real_tensorrt.__version__ != VERSION:
        pytest.skip(f"needs TensorRT {VERSION}, this is {real_tensorrt.__version__}")
    return real_tensorrt


@pytest.fixture
def no_gpu() -> None:
    """What happens without a GPU can be seen only without one."""
    try:
        require_gpu()
    except EngineMissingError:
        return
    pytest.skip("needs a machine without a GPU")


def test_the_record_is_what_the_module_offers(trt: ModuleType, beside: Any) -> None:
    recorded = json.loads(RECORD.read_text("utf-8"))
    wheel = Path(__file__)  # any file: the wheel itself is 550 MB and need not be kept
    found = beside("record_api").record(trt, wheel)

    assert found | {"source": None} == recorded | {"source": None}


def test_every_attribute_that_the_way_of_8_touches_exists(
    trt: ModuleType, bundle: Bundle, machine: Callable[..., Machine]
) -> None:
    touched: set[str] = set()
    for precision in PRECISIONS:
        made = machine(VERSION)
        options = EngineOptions(
            precision, tactic_sources=("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
        )
        build_engine(bundle, options, made)
        touched |= {entry.removesuffix(" =") for entry in made.trt._world.log}
    missing = []
    for entry in touched:
        kind, _, attribute = entry.partition(".")
        if not hasattr(getattr(trt, kind), attribute or "__init__"):
            missing.append(entry)

    assert len(touched) > 40
    assert missing == []


def test_enum_members_have_the_numbers_of_the_record(trt: ModuleType) -> None:
    for name, members in json.loads(RECORD.read_text("utf-8"))["enums"].items():
        assert {k: int(v) for k, v in getattr(trt, name).__members__.items()} == members


def test_features_of_the_real_module_are_those_of_the_stand_in(
    trt: ModuleType, stand_in: Callable[..., Any]
) -> None:
    assert probe(trt) == probe(stand_in(VERSION))
    assert choose_strategy(probe(trt), "int8").dialect == "int8-trt8"
    assert choose_strategy(probe(trt), "fp16").flags == ("FP16", "OBEY_PRECISION_CONSTRAINTS")


def test_the_builder_without_a_driver_ends_in_our_own_error(trt: ModuleType, no_gpu: None) -> None:
    log = make_log(trt)
    with pytest.raises(EngineMissingError, match="CUDA error 35, NVIDIA's driver is missing"):
        make_builder(trt, log)
    assert any("CUDA initialization failure" in message for message in log.messages)


def test_the_runtime_without_a_driver_ends_in_our_own_error(
    trt: ModuleType,
    no_gpu: None,
    machine: Callable[..., Machine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = machine(VERSION).gpu
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    with pytest.raises(EngineMissingError, match="TensorRT's runtime cannot start: CUDA error 35"):
        TensorRTBackend(b"plan", b"plan", size=64, class_count=8, max_batch=2, device=gpu)
    assert gpu.closed


def test_the_import_is_the_real_module(trt: ModuleType) -> None:
    assert import_tensorrt() is trt


def test_a_machine_without_a_driver_is_told_before_anything_is_made(
    trt: ModuleType, no_gpu: None
) -> None:
    with pytest.raises(EngineMissingError, match=r"its library libcuda\.so\.1 cannot be loaded"):
        open_machine()


def test_the_command_without_a_gpu_fails_with_its_reason(
    trt: ModuleType, no_gpu: None, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bundle", str(bundle.path), "--precision", "int8", "--allow-unsigned"]

    assert engine.main(options) == 1
    assert "NVIDIA's driver is missing" in capsys.readouterr().err


def test_a_dry_run_asks_the_real_module(
    trt: ModuleType, no_gpu: None, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bundle", str(bundle.path), "--precision", "int8", "--allow-unsigned"]

    assert engine.main([*options, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "TensorRT 8.5.3.1: flags FP16, INT8, OBEY_PRECISION_CONSTRAINTS\n" in said
    assert "missing: NVIDIA's driver is missing" in said
    assert "int8 from dialect int8-trt8 by flags (INT8, FP16), TF32 cleared" in said


def test_nptype_fails_with_this_numpy_so_that_types_are_compared_by_hand(trt: ModuleType) -> None:
    assert np.__version__.startswith("1.26.")
    with pytest.raises((AttributeError, FutureWarning), match=r"np\.bool|module 'numpy'"):
        trt.nptype(trt.float32)


def test_cuda_python_has_every_call_that_is_made() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-python")
    source = ast.parse(Path(str(cuda_python.__file__)).read_text("utf-8"))
    called = {
        node.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute) and node.attr.startswith(("cu", "CUdevice", "CUstream"))
    }

    assert len(called) > 12
    assert [name for name in sorted(called) if not hasattr(driver, name)] == []
    assert hasattr(driver.CUstreamCaptureMode, "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")
    takes = json.loads(Path(__file__).with_name("cuda_python_api.json").read_text("utf-8"))
    for name, signature in takes["functions"].items():
        first_line = str(getattr(driver, name).__doc__).split("\n")[0]
        assert first_line == f"{name}{signature}"


def test_cuda_python_without_a_driver_ends_in_our_own_error(no_gpu: None) -> None:
    pytest.importorskip("cuda.bindings.driver", reason="needs cuda-python")
    with pytest.raises(EngineError, match=r"the CUDA driver refused"):
        cuda_device.open_cuda_device()
