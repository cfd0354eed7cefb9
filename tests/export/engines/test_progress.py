"""Builds can be watched and stopped: Ctrl-C and SIGTERM end them, the previous plans stay."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fundus_export.tensorrt.builder import build_engine
from fundus_export.tensorrt.machine import Machine
from fundus_export.tensorrt.options import EngineOptions
from fundus_export.tensorrt.progress import BuildProgress, run_showing, terminate_as_interrupt
from fundus_runtime.bundle import Bundle
from fundus_runtime.plan_key import Device
from fundus_runtime.plans import plans_folder, read_plans

MakeMachine = Callable[..., Machine]


@pytest.fixture(autouse=True)
def heeds_ctrl_c() -> Iterator[None]:
    """Also where whoever started the tests, as a job in the background, had them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(number: int = signal.SIGINT) -> None:
    """As the person at the keyboard does, and time for it to arrive."""
    os.kill(os.getpid(), number)
    time.sleep(0.5)


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
def test_ctrl_c_stops_a_build_at_its_next_step(
    bundle: Bundle, machine: MakeMachine, version: str
) -> None:
    steps = []

    def during() -> None:
        steps.append(1)
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        build_engine(bundle, EngineOptions("int8"), machine(version, during_build=during))
    assert len(steps) == 1  # of the three that a build has
    assert not plans_folder(bundle).exists()


def test_ctrl_c_leaves_the_previous_plans(bundle: Bundle, machine: MakeMachine) -> None:
    build_engine(bundle, EngineOptions("int8"), machine("10.3.0"))
    before = read_plans(bundle, Device("Orin", (8, 7), "10.3.0", "12.6"), precision="int8")
    made = machine("10.3.0", during_build=interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_engine(bundle, EngineOptions("int8"), made, force=True)

    again = read_plans(bundle, Device("Orin", (8, 7), "10.3.0", "12.6"), precision="int8")
    assert again == before
    assert made.gpu.closed


def test_sigterm_ends_a_build_as_ctrl_c_does(bundle: Bundle, machine: MakeMachine) -> None:
    made = machine("10.3.0", during_build=lambda: interrupt(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():
        build_engine(bundle, EngineOptions("int8"), made)

    assert signal.getsignal(signal.SIGTERM) == before
    assert not plans_folder(bundle).exists()


def test_a_build_that_cannot_be_stopped_is_not_waited_for() -> None:
    go_on = threading.Event()

    def action() -> None:
        interrupt()
        go_on.wait(30)

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_showing("building", action, BuildProgress(), stops=False)
    assert time.monotonic() - start < 10
    go_on.set()


def test_time_goes_by_in_sight_where_tensorrt_reports_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_showing("building the encoder", lambda: time.sleep(1.5), BuildProgress(), stops=False)

    shown = capsys.readouterr().err
    assert "building the encoder" in shown
    assert "00:01" in shown


def test_the_bar_shows_the_phases(capsys: pytest.CaptureFixture[str]) -> None:
    progress = BuildProgress()

    def action() -> None:
        progress.start("Building Engine", 7)
        progress.step("Building Engine", 2)
        progress.start("Tactic Selection", 40)
        progress.step("Tactic Selection", 24)
        time.sleep(1)

    run_showing("building the head", action, progress, stops=True)
    shown = capsys.readouterr().err
    assert "3/7" in shown
    assert "Tactic Selection 25/40" in shown


def test_what_the_build_raises_is_raised_where_it_is_waited_for() -> None:
    def action() -> None:
        raise RuntimeError("within TensorRT")

    with pytest.raises(RuntimeError, match="within TensorRT"):
        run_showing("building", action, BuildProgress(), stops=True)


def test_phases_may_end_in_any_order() -> None:
    progress = BuildProgress()
    assert (progress.outermost(), progress.innermost()) == ((0, 0), "")
    progress.start("outer", 2)
    progress.start("inner", 0)
    assert progress.innermost() == "inner"
    progress.finish("outer")
    progress.finish("unknown")
    assert progress.outermost() == (0, 0)
    assert progress.step("inner", 0)
    progress.cancelled.set()
    assert not progress.step("inner", 1)


@pytest.mark.parametrize(("version", "monitored"), [("8.6.1", False), ("10.3.0", True)])
def test_the_monitor_is_used_where_there_is_one(
    bundle: Bundle, machine: MakeMachine, version: str, monitored: bool
) -> None:
    seen: list[Any] = []
    made = machine(version, during_build=lambda: seen.append(1))
    build_engine(bundle, EngineOptions("fp16"), made)

    assert ("IBuilderConfig.progress_monitor =" in made.trt._world.log) == monitored
    assert seen
