from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import onnxruntime
import pytest

import fundus_runtime.doctor as doctor
from fundus_runtime.commands.screen import main
from fundus_runtime.doctor import examine, format_findings
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


def test_failing_nvidia_smi_is_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._nvidia_smi() == []
    program.write_text("#!/bin/sh\necho 'Orin (nvgpu), 540.4.0'\n")
    assert examine(tmp_path)["gpu"]["names"] == ["Orin (nvgpu), 540.4.0"]
