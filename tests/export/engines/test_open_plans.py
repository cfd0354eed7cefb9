"""Opening a bundle's plans as a screener does, on the stand-in and host memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fundus_export.tensorrt.builder import build_engine
from fundus_export.tensorrt.machine import Machine
from fundus_export.tensorrt.options import EngineOptions
from fundus_runtime.backends import open_plans as open_plans_module
from fundus_runtime.backends.open import OpenedEngine, open_engine
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineError, EngineMissingError, PlanError
from fundus_runtime.labels import EYES

MakeMachine = Callable[..., Machine]


@pytest.fixture
def robot(machine: MakeMachine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """A machine whose GPU is the one that the runtime finds."""

    def make(version: str = "10.3.0", **world: Any) -> Machine:
        made = machine(version, **world)
        monkeypatch.setattr(open_plans_module, "require_gpu", lambda: None)
        monkeypatch.setattr(open_plans_module, "open_cuda_device", lambda *_, **__: made.gpu)
        return made

    return make


def build(bundle: Bundle, made: Machine, *precisions: str) -> None:
    for precision in precisions:
        build_engine(bundle, EngineOptions(precision), made)  # type: ignore[arg-type]


def opened(bundle: Bundle, **settings: Any) -> OpenedEngine:
    return open_engine(bundle, "tensorrt", settings=EngineSettings(**settings))


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "11.4.0.106"])
def test_the_only_plans_there_are_run_and_are_named_by_their_hashes(
    bundle: Bundle, robot: Callable[..., Machine], version: str
) -> None:
    build(bundle, robot(version), "int8")
    robot(version)
    engine = opened(bundle)

    assert (engine.precision, engine.degraded_reason) == ("int8", None)
    assert engine.graphs.name == ("int8-trt8" if version.startswith("8") else "int8-trt")
    assert sorted(engine.plan_sha256 or {}) == ["encoder", "head"]
    assert engine.backend.provider == f"TensorRT {version} on Orin (sm_87)"
    images = np.zeros((2, 3, 64, 64), np.float32)
    assert engine.backend.encode(images, EYES).logits is not None
    engine.backend.close()


def test_without_plans_the_error_is_the_command_that_builds_them(
    bundle: Bundle, robot: Callable[..., Machine]
) -> None:
    made: Any = robot()
    words = r"there are no plans of .* build them: fundus-export engine --bundle .*tiny --precision"
    with pytest.raises(PlanError, match=words):
        opened(bundle)
    assert made.gpu.closed


def test_of_several_precisions_one_must_be_named_or_declared(
    bundle: Bundle, robot: Callable[..., Machine]
) -> None:
    build(bundle, robot(), "int8", "fp16", "tf32")
    robot()
    with pytest.raises(PlanError, match="in fp16 and int8 and tf32, and the bundle declares none"):
        opened(bundle)
    for precision, graphs in (("fp16", "fp16"), ("tf32", "fp32")):
        robot()
        engine = opened(bundle, precision=precision)
        assert (engine.precision, engine.graphs.name) == (precision, graphs)
        engine.backend.close()
    robot()
    declares = {**bundle.manifest.default_graphs, "tensorrt": "fp16"}
    engine = opened(replace(bundle, manifest=replace(bundle.manifest, default_graphs=declares)))
    assert engine.precision == "fp16"
    engine.backend.close()


def test_plans_of_another_precision_do_not_take_the_named_ones_place(
    bundle: Bundle, robot: Callable[..., Machine]
) -> None:
    build(bundle, robot(), "int8")
    robot()
    with pytest.raises(PlanError, match=r"precision int8, but fp16 is wanted.* --precision fp16"):
        opened(bundle, precision="fp16")


def test_plans_of_another_tensorrt_are_refused(
    bundle: Bundle, robot: Callable[..., Machine]
) -> None:
    build(bundle, robot("10.3.0"), "int8")
    robot("10.16.1.11")
    with pytest.raises(PlanError, match=r"built for .*TensorRT 10\.3\.0.*this device is .*10\.16"):
        opened(bundle)


def test_an_unsigned_bundles_plans_are_refused(
    bundle: Bundle, robot: Callable[..., Machine]
) -> None:
    build(bundle, robot(), "int8")
    robot()
    with pytest.raises(PlanError, match="is unsigned"):
        opened(replace(bundle, trust="unsigned"))


def test_a_graph_that_cannot_be_had_is_in_the_opened_engine(
    bundle: Bundle, robot: Callable[..., Machine]
) -> None:
    build(bundle, robot(), "int8")
    made: Any = robot()
    made.gpu.refuses_capture = "pycuda captures no CUDA graphs"
    engine = opened(bundle)
    assert "pycuda captures no CUDA graphs" in str(engine.degraded_reason)
    engine.backend.close()


def test_a_machine_without_a_driver_is_told(
    bundle: Bundle, machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("10.3.0")

    def missing() -> None:
        raise EngineMissingError("NVIDIA's driver is missing")

    monkeypatch.setattr(open_plans_module, "require_gpu", missing)
    with pytest.raises(EngineMissingError, match="driver is missing"):
        opened(bundle)


def test_plans_that_do_not_load_leave_no_gpu_open(
    bundle: Bundle, robot: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle, robot(), "int8")
    made: Any = robot()
    plans = open_plans_module.read_plans(bundle, made.device, precision="int8")
    monkeypatch.setattr(
        open_plans_module, "read_plans", lambda *_, **__: replace(plans, encoder=b"no plan")
    )
    with pytest.raises(EngineError, match="loading the encoder's plan failed"):
        opened(bundle)
    assert made.gpu.closed
