"""What an engine may use of the machine."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fundus_runtime.backends import settings as settings_module
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.backends.settings import EngineSettings, default_threads
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineError, UsageError
from fundus_runtime.screener import Screener

CPU = min(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threads": 0}, "threads must be a whole number, at least 1, got 0"),
        ({"threads": True}, "threads must be a whole number"),
        ({"threads": 1.5}, "threads must be a whole number"),
        ({"warm_up_runs": -1}, "warm_up_runs must be"),
        ({"device": -1}, "device must be"),
        ({"spinning": "always"}, "spinning must be one of while_running, never"),
        ({"precision": "int4"}, "precision must be one of fp32, tf32, fp16, int8"),
        ({"affinity": (CPU, CPU)}, "expected different ones"),
        ({"affinity": 0}, "expected a tuple"),
        ({"affinity": [CPU]}, "expected a tuple"),
        ({"affinity": (100_000,)}, "of those that this process may use"),
        ({"affinity": (CPU,), "threads": 2}, "names 1 CPUs for 2 threads"),
    ],
)
def test_settings_out_of_range_or_at_odds_are_refused(values, words) -> None:
    with pytest.raises(UsageError, match=words):
        EngineSettings(**values)


def test_threads_are_those_asked_for_or_those_of_the_affinity_or_the_default() -> None:
    assert EngineSettings(threads=3).thread_count == 3
    assert EngineSettings(affinity=(CPU,)).thread_count == 1
    assert EngineSettings().thread_count == default_threads()


def test_settings_are_plain_json() -> None:
    values = EngineSettings(affinity=(CPU,)).to_dict()
    assert json.loads(json.dumps(values)) == values


def _machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, cpus: int, a_core: int = 1, quota: str = ""
) -> None:
    """A machine with so many logical CPUs, `a_core` of them on each core."""
    monkeypatch.setattr(settings_module, "_allowed_cpus", lambda: set(range(cpus)))
    monkeypatch.setattr(settings_module, "_siblings", lambda cpu: str(cpu // a_core))
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(settings_module, "_CPU_QUOTA", tmp_path / "cpu.max")


@pytest.mark.parametrize(
    ("machine", "threads"),
    [
        ({"cpus": 1}, 1),
        ({"cpus": 2}, 2),
        ({"cpus": 4}, 3),
        ({"cpus": 12}, 4),
        ({"cpus": 4, "a_core": 2}, 2),
        ({"cpus": 8, "a_core": 2}, 3),
        ({"cpus": 12, "quota": "200000 100000\n"}, 2),
        ({"cpus": 12, "quota": "50000 100000\n"}, 1),
        ({"cpus": 4, "quota": "max 100000\n"}, 3),
        ({"cpus": 4, "quota": "800000 100000\n"}, 3),
    ],
)
def test_a_core_is_left_to_others_and_a_containers_quota_is_kept(
    monkeypatch, tmp_path: Path, machine, threads: int
) -> None:
    _machine(monkeypatch, tmp_path, **machine)
    assert default_threads() == threads


def test_a_thread_of_ones_own_is_pinned_and_no_other() -> None:
    before, seen = os.sched_getaffinity(0), []

    def work() -> None:
        EngineSettings(affinity=(CPU,)).pin_calling_thread()
        seen.append(os.sched_getaffinity(0))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert seen == [{CPU}]
    assert os.sched_getaffinity(0) == before
    EngineSettings(threads=1).pin_calling_thread()
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("affinity", "allowed", "kept"),
    [
        ((4, 5), {4}, True),
        ((4, 5), {5}, False),
        ((4, 5), {4, 5}, False),
        ((4,), {4}, True),
        ((), set(), False),
        (None, {4}, False),
    ],
)
def test_a_thread_is_kept_where_it_may_use_the_first_cpu_and_no_other(
    monkeypatch, affinity: tuple[int, ...] | None, allowed: set[int], kept: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5})
    settings = EngineSettings(affinity=affinity)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    assert settings.keeps_calling_thread() is kept


@pytest.mark.parametrize(
    ("allowed", "threads", "cpus"),
    [
        ({0, 1}, 2, (0, 1)),
        ({7, 4}, 2, (4, 7)),
        ({0, 1, 2}, 2, None),
        ({0}, 1, None),
        ({0}, 2, None),
    ],
)
def test_threads_have_their_own_cpus_where_none_is_to_spare(
    monkeypatch, allowed: set[int], threads: int, cpus: tuple[int, ...] | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    settings = EngineSettings(threads=threads)
    assert settings.affinity is None
    assert settings.with_own_cpus().affinity == cpus


def test_an_empty_affinity_leaves_every_thread_where_the_system_puts_it(monkeypatch) -> None:
    settings = EngineSettings(affinity=())
    assert settings.thread_count == default_threads()
    every = EngineSettings(threads=2, affinity=())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert every.with_own_cpus() == every
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("a thread was moved"))
    every.pin_calling_thread()
    every.pin_calling_thread(1)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_an_engine_of_every_cpu_computes_on_its_own_and_moves_no_caller(
    shared_bundle, monkeypatch
) -> None:
    allowed, seen = os.sched_getaffinity(0), []
    bundle = Bundle.open(shared_bundle)
    graphs = bundle.graph_bytes(bundle.manifest.graphs_for("cpu"))
    run = onnxruntime.InferenceSession.run

    def watched(self, *words):
        seen.append(os.sched_getaffinity(0))
        return run(self, *words)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", watched)
    eyes = np.zeros((2, 3, 64, 64), np.float32)
    for threads, cpus in ((len(allowed), {CPU}), (1, allowed)):
        settings = EngineSettings(threads=threads)
        backend = OnnxRuntimeBackend(*graphs, size=64, class_count=8, settings=settings)
        seen.clear()
        features = backend.encode(eyes, ["left", "right"]).features
        backend.fuse(features[:1], features[1:], np.ones(1, "f"), np.ones(1, "f"))
        backend.close()
        assert seen == [cpus] * 2
        assert os.sched_getaffinity(0) == allowed
    with pytest.raises(EngineError, match="closed"):
        backend.encode(eyes, ["left", "right"])


def test_a_cpu_that_was_taken_away_is_a_warning_and_eyes_are_encoded(
    shared_bundle, draw, monkeypatch, caplog
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    settings = EngineSettings(affinity=(CPU,))
    with Screener.open(shared_bundle, settings=settings) as screener, screener.begin() as exam:
        monkeypatch.setattr(os, "sched_setaffinity", refuse)
        exam.add("left", draw("D", seed=1), color="rgb")
        exam.add("right", draw("N", seed=2), color="rgb")
        assert exam.result(timeout=30).left.status == "ok"
    assert f"CPUs [{CPU}]" in caplog.text
