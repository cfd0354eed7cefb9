"""`--data` really asks the certificate: a trained checkpoint, its bundle, the stand-in's engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fundus_export.commands import export
from fundus_export.tensorrt import machine as machines
from fundus_export.tensorrt.machine import Machine
from fundus_runtime.plans import PLANS_VARIABLE


def test_the_engine_is_asked_about_the_validation_patients(
    trained: Any,
    bundle_folder: Path,
    machine: Callable[..., Machine],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = machine("10.3.0")
    monkeypatch.setattr(machines, "open_machine", lambda: made)
    monkeypatch.setenv(PLANS_VARIABLE, str(tmp_path))
    where = ["--bundle", str(bundle_folder), "--allow-unsigned", "--precision", "fp32"]
    status = export.main(
        ["engine", *where, "--data", str(trained.data), "--cache-dir", str(trained.cache)]
    )

    said = capsys.readouterr().err
    # a handful of drawn patients proves nothing, however well the engine answers
    assert status == 1
    assert "the engine misses the certificate's limits: too few patients: 4" in said
    assert made.trt._world.log.count("IExecutionContext.execute_async_v3") > 2
    assert not list(tmp_path.rglob("report.json"))
