"""`fundus-export engine` and `export/build_engine.py`: what they print, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fundus_export
from fundus_export.commands import engine, export
from fundus_export.tensorrt import machine as machines
from fundus_export.tensorrt.machine import Machine
from fundus_runtime import bundle as bundles
from fundus_runtime.bundle import Bundle
from fundus_runtime.plans import PLANS_VARIABLE, plans_folder

SCRIPT = Path(fundus_export.__file__).parents[1] / "build_engine.py"


@pytest.fixture
def on_the_stand_in(monkeypatch: pytest.MonkeyPatch, machine: Callable[..., Machine]) -> Any:
    """Has the commands find the stand-in's machine."""

    def be(version: str, **world: Any) -> Machine:
        made = machine(version, **world)
        monkeypatch.setattr(machines, "open_machine", lambda: made)
        return made

    return be


def run(bundle: Bundle, *arguments: str) -> int:
    return export.main(["engine", "--bundle", str(bundle.path), "--allow-unsigned", *arguments])


def test_a_build_says_what_it_made_where_and_how_it_was_checked(
    bundle: Bundle, on_the_stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_stand_in("10.3.0")

    assert run(bundle, "--precision", "int8", "--max-batch", "4") == 0
    said = capsys.readouterr().out
    for part in (
        "tiny 1.0.0 (unsigned) as int8 from dialect int8-trt, batches up to 4",
        "Orin (sm_87), TensorRT 10.3.0, CUDA driver 12.6",
        "strong typing",
        "2 of 2 convolutions and matrix products proven",
        "golden  32 pairs answered as recorded",
        "checked by golden pairs only",
        f"plans in {plans_folder(bundle)}",
    ):
        assert part in said


def test_the_report_as_json(
    bundle: Bundle, on_the_stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_stand_in("8.6.1")

    assert run(bundle, "--precision", "fp16", "--json", "--opt-level", "2") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["strategy"]["flags"] == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    assert report["options"]["optimization_level"] == 2
    assert report["plans"]["head"]["precision"]["proven"] == 2


def test_data_brings_the_certificate(
    bundle: Bundle,
    on_the_stand_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from fundus_export.tensorrt import checks

    asked = {}

    def prepare(bundle: Any, pair: Any, data: Path, *, cache_dir: Path | None) -> Any:
        asked.update(dialect=pair.dialect, data=data, cache_dir=cache_dir)
        return lambda _: {"within_limits": True}

    on_the_stand_in("10.3.0")
    monkeypatch.setattr(checks, "prepare_certificate", prepare)
    options = ("--precision", "int8", "--data", str(tmp_path), "--cache-dir", "crops")
    assert run(bundle, *options) == 0
    assert "certificate within its limits" in capsys.readouterr().out
    assert asked == {"dialect": "int8-trt", "data": tmp_path, "cache_dir": Path("crops")}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--precision", "int8", "--opt-level", "9"], "the optimisation level must be 0 to 5"),
        (["--precision", "int4"], "invalid choice"),
        (["--precision", "int8", "--max-batch", "0"], "0 is not positive"),
        (["--precision", "int8", "--tactic-sources", ","], "name at least one"),
        ([], "--precision"),
    ],
)
def test_wrong_usage_ends_with_2(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    try:
        status = run(bundle, *arguments)
    except SystemExit as ended:  # argparse's own
        status = int(str(ended.code))

    assert status == 2
    assert says in capsys.readouterr().err


def test_a_failure_ends_with_1_and_its_reason(
    bundle: Bundle, on_the_stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_stand_in("10.3.0", overrides={"/conv": "fp32"})

    assert run(bundle, "--precision", "int8") == 1
    assert "run in another precision than the graph's: /conv is int8" in capsys.readouterr().err


def test_a_bundle_that_nobody_vouches_for_is_refused(
    bundle: Bundle, on_the_stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = on_the_stand_in("10.3.0")

    assert export.main(["engine", "--bundle", str(bundle.path), "--precision", "int8"]) == 1
    assert "not signed" in capsys.readouterr().err
    assert "Builder" not in made.trt._world.log


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_a_dry_run_tells_what_would_be_built_without_tensorrt(
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    assert run(bundle, "--precision", precision, "--dry-run") == 0
    said = capsys.readouterr().out
    dialects = {"int8": ["int8-trt", "int8-trt8"], "tf32": ["fp32"]}
    for part in (
        "verified, unsigned",
        "missing: TensorRT",
        *(f"from dialect {name} by" for name in dialects.get(precision, [precision])),
        "strong typing",
        "flags",
        "encoder",
        "activations at most",
        f"plans would go to {plans_folder(bundle)}",
        "nothing was built or written",
    ):
        assert part in said
    assert not plans_folder(bundle).exists()


def test_a_dry_run_counts_what_the_graphs_mark(
    bundle: Bundle, stand_in: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    trt = stand_in("8.6.1")

    assert run(bundle, "--precision", "int8", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "TensorRT 8.6.1: flags FP16, INT8" in said
    assert "from dialect int8-trt8 by flags (INT8, FP16), TF32 cleared" in said
    assert said.count("convolutions and matrix products: 1 int8, 1 fp32") == 2
    assert "int8-trt by" not in said
    assert "Builder" not in trt._world.log


def test_a_dry_run_without_any_dialect_fails(
    make_tiny: Callable[..., Bundle],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    assert run(make_tiny("fp32"), "--precision", "int8", "--dry-run") == 1
    assert "is built from the dialect int8-trt, but bundle" in capsys.readouterr().err


def test_missing_onnx_is_told(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)

    assert run(bundle, "--precision", "int8") == 1
    assert 'install it: pip install "fundus-edge[engine]"' in capsys.readouterr().err


NO_TORCH = """
import sys
sys.modules["torch"] = None
sys.modules["onnxruntime"] = None
from fundus_export.commands import engine
status = engine.main(sys.argv[1:])
heavy = [name for name in ("sklearn", "scipy", "onnxscript") if name in sys.modules]
print(heavy, file=sys.stderr)
sys.exit(status)
"""


def test_a_robot_needs_neither_torch_nor_onnx_runtime(bundle: Bundle) -> None:
    arguments = ["--bundle", str(bundle.path), "--precision", "fp16", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *arguments, "--allow-unsigned"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "nothing was built or written" in done.stdout
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_build_itself_imports_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import fundus_export.tensorrt.builder, fundus_export.tensorrt.checks"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_script_is_the_same_command(bundle: Bundle) -> None:
    arguments = ["--bundle", str(bundle.path), "--precision", "fp32", "--dry-run"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--allow-unsigned"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "fp32 from dialect fp32" in done.stdout


def test_both_parsers_take_the_same_options() -> None:
    import argparse

    alone, parent = argparse.ArgumentParser(), argparse.ArgumentParser()
    engine._add_options(alone)
    engine.add_parser(parent.add_subparsers())
    words = ["--bundle", "b", "--precision", "int8"]
    assert vars(alone.parse_args(words)) == vars(parent.parse_args(["engine", *words]))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_the_shipped_bundle_can_be_built(
    on_the_stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """The real model's names, shapes and golden pairs, on the stand-in."""
    monkeypatch.setenv(PLANS_VARIABLE, str(tmp_path))
    monkeypatch.delenv("FUNDUS_BUNDLE", raising=False)
    made = on_the_stand_in("10.3.0")
    shipped = str(bundles.default_bundle())

    assert export.main(["engine", "--bundle", shipped, "--precision", precision]) == 0
    assert made.gpu.closed
