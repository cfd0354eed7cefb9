from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import onnxruntime
import pytest

import fundus_runtime.doctor as doctor
from fundus_runtime.bundle import Bundle
from fundus_runtime.commands.screen import main
from fundus_runtime.doctor import examine, format_findings
from fundus_runtime.plan_key import Device, PlanKey
from fundus_runtime.plan_writer import write_plans
from fundus_runtime.version import __version__


def test_doctor_describes_machine_and_bundle(shared_bundle) -> None:
    findings = examine(shared_bundle)
    assert findings["versions"]["fundus-edge"] == __version__
    assert findings["engines"]["onnxruntime"]["version"] == onnxruntime.__version__
    assert "CPUExecutionProvider" in findings["engines"]["onnxruntime"]["providers"]
    assert findings["cpu_features"]["native_core"] == __version__
    assert findings["bundle"]["usable"] is True
    assert findings["bundle"]["trust"] == "signed"
    (key_id,) = findings["trusted_keys"]["keys"]
    assert findings["bundle"]["signer"] == key_id
    assert findings["trusted_keys"]["folders"] == [os.environ["FUNDUS_TRUSTED_KEYS"]]
    assert json.loads(json.dumps(findings)) == findings


def test_doctor_prints_text_or_json(shared_bundle, capsys) -> None:
    assert main(["doctor", "--bundle", str(shared_bundle)]) == 0
    text = capsys.readouterr().out
    for word in (
        "onnxruntime",
        "tensorrt",
        "gpu",
        "trust",
        "signed",
        "signer",
        "trusted keys",
        "tests.pub",
        "python",
        "avx2",
    ):
        assert word in text
    assert main(["doctor", "--bundle", str(shared_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"]["name"] == "tiny"


def test_broken_bundle_is_part_of_the_report(bundle_copy, capsys) -> None:
    (bundle_copy / "extra").write_text("x")
    findings = examine(bundle_copy)
    assert findings["bundle"]["usable"] is False
    assert "holds extra" in findings["bundle"]["problem"]
    assert "holds extra" in format_findings(findings)


def test_missing_and_broken_engines_are_part_of_the_report(
    shared_bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    # None in sys.modules makes an import fail as if the module were not installed
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "fundus_runtime._native", None)
    findings = examine(shared_bundle)
    assert "libnvinfer" in findings["engines"]["tensorrt"]["problem"]
    assert "fundus-edge[cpu]" in findings["engines"]["onnxruntime"]["problem"]
    assert findings["engines"]["onnxruntime"]["installed"] is False
    assert findings["cpu_features"]["native_core"] is None
    assert format_findings(findings)


def test_both_builds_of_onnx_runtime_at_once_are_told(shared_bundle, monkeypatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "1.31.1" if name == "onnxruntime-gpu" else real(name),
    )
    problem = examine(shared_bundle)["engines"]["onnxruntime"]["problem"]
    assert "onnxruntime and onnxruntime-gpu are both installed and overwrite each other" in problem


def test_plans_of_the_bundle_are_listed_and_void_ones_are_named(bundle_copy) -> None:
    bundle = Bundle.open(bundle_copy)
    orin = Device("Orin", (8, 7), "10.3.0", "12.6")
    plans = {"encoder": b"plan", "head": b"plan"}
    for sha256, precision in ((bundle.sha256, "fp32"), ("0" * 64, "tf32")):
        write_plans(bundle, PlanKey(orin, precision, "fp32", 2, sha256), plans, {})
    words = "batches up to 2, for Orin (sm_87), TensorRT 10.3.0, CUDA driver 12.6"
    assert sorted(examine(bundle_copy)["bundle"]["plans"]) == [
        f"VOID, of another state of the bundle: tf32 from fp32, {words}",
        f"fp32 from fp32, {words}",
    ]


def test_failing_nvidia_smi_is_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._nvidia_smi() == []
    program.write_text("#!/bin/sh\necho 'Orin (nvgpu), 540.4.0'\n")
    assert examine(tmp_path)["gpu"]["names"] == ["Orin (nvgpu), 540.4.0"]
