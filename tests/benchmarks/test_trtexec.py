"""trtexec's command line, its file of times and its failures; a stand-in writes as it does.

The lines and keys are those that NVIDIA's sources write: sampleReporting.cpp and logger.h at 8.5.3
and v10.3.0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import test_engines
from fundus_benchmarks.contenders import trtexec
from fundus_benchmarks.contenders.trtexec import (
    TrtexecError,
    command_of,
    find_trtexec,
    input_shapes,
    read_times_ms,
    time_plan,
)
from fundus_benchmarks.report.latency_rows import contender_name, is_own, is_peer
from fundus_benchmarks.results.run_file import ROOT
from fundus_runtime.bundle import Bundle

SHAPES = {"image": (2, 3, 224, 224), "is_left": (2,)}
COMPUTE_MS = (0.0931854, 0.0921602, 0.101379)

# What a run of 10.3 wrote for each inference, one a line.
_RECORDED = """[
  { "startEnqMs" : 0.0134, "endEnqMs" : 0.0197, "startH2dMs" : 0.0251, "endH2dMs" : 0.0251, \
"startComputeMs" : 0.0251, "endComputeMs" : 0.1182854, "startD2hMs" : 0.1182854, \
"endD2hMs" : 0.1182854, "h2dMs" : 0, "computeMs" : 0.0931854, "d2hMs" : 0, "latencyMs" : 0.0931854 }
, { "startEnqMs" : 0.12, "endEnqMs" : 0.126, "startH2dMs" : 0.1304, "endH2dMs" : 0.1304, \
"startComputeMs" : 0.1304, "endComputeMs" : 0.2225602, "startD2hMs" : 0.2225602, \
"endD2hMs" : 0.2225602, "h2dMs" : 0, "computeMs" : 0.0921602, "d2hMs" : 0, "latencyMs" : 0.0921602 }
, { "startEnqMs" : 0.224, "endEnqMs" : 0.23, "startH2dMs" : 0.2342, "endH2dMs" : 0.2342, \
"startComputeMs" : 0.2342, "endComputeMs" : 0.335579, "startD2hMs" : 0.335579, \
"endD2hMs" : 0.335579, "h2dMs" : 0, "computeMs" : 0.101379, "d2hMs" : 0, "latencyMs" : 0.101379 }
]
"""
# Refuses what trtexec does not know, and leaves what it was asked beside itself.
_STAND_IN = f"""#!{sys.executable}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
asked = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
known = {{"loadEngine", "shapes", "device", "useCudaGraph", "noDataTransfers", "useSpinWait",
         "warmUp", "duration", "exportTimes"}}
if set(asked) - known:
    sys.exit("[E] Unknown option: " + ", ".join(set(asked) - known))
asked["plan"] = pathlib.Path(asked["loadEngine"]).read_bytes().decode()
(here / "asked.json").write_text(json.dumps(asked))
print("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # " + " ".join(sys.argv))
if asked["plan"] == "of another version":
    print("[11/21/2026-10:32:46] [E] Error[6]: The engine plan file is not compatible with this "
          "version of TensorRT, expecting library version 10.3.0.26 got 8.6.2.3, please rebuild.",
          file=sys.stderr)
    print("[11/21/2026-10:32:46] [E] Engine deserialization failed", file=sys.stderr)
    print("&&&& FAILED TensorRT.trtexec [TensorRT v100300]")
    sys.exit(1)
if asked["plan"] == "that no graph holds":
    print("[11/21/2026-10:32:46] [W] The built TensorRT engine contains operations that are not "
          "permitted under CUDA graph capture mode.", file=sys.stderr)
if asked["plan"] != "that writes nothing":
    pathlib.Path(asked["exportTimes"]).write_text({_RECORDED!r})
print("&&&& PASSED TensorRT.trtexec [TensorRT v100300]")
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in, first on the path."""
    return _on_path(tmp_path / "bin", _STAND_IN, monkeypatch)


def test_the_command_asks_for_the_plan_alone() -> None:
    words = command_of(
        Path("/usr/src/tensorrt/bin/trtexec"), Path("a.plan"), SHAPES, Path("t.json"), seconds=3.0
    )
    assert words == [
        "/usr/src/tensorrt/bin/trtexec",
        "--loadEngine=a.plan",
        "--shapes=image:2x3x224x224,is_left:2",
        "--device=0",
        "--useCudaGraph",
        "--noDataTransfers",
        "--useSpinWait",
        "--warmUp=500",
        "--duration=3",
        "--exportTimes=t.json",
    ]


def test_shapes_are_those_of_the_graph_s_inputs_at_a_batch() -> None:
    graphs = ROOT / "bundles" / "edge" / "graphs"
    assert input_shapes((graphs / "encoder_int8-trt.onnx").read_bytes(), 2) == {
        "image": (2, 3, 224, 224)
    }
    head = input_shapes((graphs / "head_int8-trt.onnx").read_bytes(), 1)
    assert list(head) == ["features_left", "features_right", "left_present", "right_present"]
    assert head["features_left"] == head["features_right"] == (1, 160, 7, 7)
    assert head["left_present"] == (1,)


def test_the_program_is_found_on_the_path_and_where_nvidia_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(trtexec, "_PLACES", (tmp_path / "absent", tmp_path / "usual"))
    with pytest.raises(TrtexecError, match=r"no trtexec on the path, nor in .*usual.*on PATH"):
        find_trtexec()
    usual = _write(tmp_path / "usual", _STAND_IN)
    assert find_trtexec() == usual
    on_path = _on_path(tmp_path / "bin", _STAND_IN, monkeypatch)
    assert find_trtexec() == on_path


def test_times_are_the_gpu_s_of_each_run(program: Path) -> None:
    times = time_plan(program, b"a plan", SHAPES, seconds=2.5, device=1)
    assert times == pytest.approx(COMPUTE_MS)
    asked = _asked(program)
    assert asked["plan"] == "a plan"
    assert (asked["duration"], asked["device"]) == ("2.5", "1")
    assert not Path(asked["loadEngine"]).exists()


def test_a_plan_of_another_version_fails_in_the_program_s_own_words(program: Path) -> None:
    with pytest.raises(TrtexecError) as caught:
        time_plan(program, b"of another version", SHAPES, seconds=1)
    said = str(caught.value)
    assert "status 1: Error[6]: The engine plan file is not compatible" in said
    assert "expecting library version 10.3.0.26 got 8.6.2.3" in said
    assert said.endswith("Engine deserialization failed")


def test_times_without_a_cuda_graph_are_no_times(program: Path) -> None:
    with pytest.raises(TrtexecError, match="cannot run the plan as one CUDA graph"):
        time_plan(program, b"that no graph holds", SHAPES, seconds=1)


def test_a_program_that_writes_nothing_is_an_error(program: Path) -> None:
    with pytest.raises(TrtexecError, match="wrote no times that can be read"):
        time_plan(program, b"that writes nothing", SHAPES, seconds=1)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'libnvinfer.so.10: cannot open' >&2; exit 127\n", "status 127: libnv"),
        ("#!/bin/sh\nexit 3\n", "status 3: it gives no reason"),
        ("#!/no/such/interpreter\n", "cannot be run"),
    ],
)
def test_a_program_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    program = _on_path(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(TrtexecError, match=said):
        time_plan(program, b"a plan", SHAPES, seconds=1)


def test_a_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _on_path(tmp_path / "bin", "#!/bin/sh\nexec sleep 60\n", monkeypatch)
    monkeypatch.setattr(trtexec, "_START_S", -0.3)
    with pytest.raises(TrtexecError, match="still running"):
        time_plan(program, b"a plan", SHAPES, seconds=0.1)


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        "{}",
        '[{"latencyMs": 1.0}]',
        '[{"computeMs": "fast"}]',
        '[{"computeMs": 0}]',
        '[{"computeMs": 0.1}, {"computeMs": NaN}]',
        '[{"computeMs": -0.1}]',
        '[{"computeMs": true}]',
        pytest.param(f'[{{"computeMs": 1{"0" * 400}}}]', id="more than a float holds"),
        pytest.param(f'[{{"computeMs": 1{"0" * 5000}}}]', id="more digits than Python reads"),
        "3",
    ],
)
def test_other_files_hold_no_times(tmp_path: Path, text: str) -> None:
    (tmp_path / "times.json").write_text(text)
    with pytest.raises(TrtexecError, match="trtexec wrote"):
        read_times_ms(tmp_path / "times.json")


def test_rows_stand_beside_the_runtime_s_and_are_no_yardstick(program: Path) -> None:
    rows = _rows_of_the_suite(program, plan=b"a plan")
    assert [row["stage"] for row in rows] == ["encoder_1", "encoder_2", "head"]
    for row in rows:
        assert (row["backend"], row["provider"]) == ("trtexec", "tensorrt")
        assert row["times_ms"] == pytest.approx(COMPUTE_MS)
        assert contender_name(row) == "trtexec int8-trt, tensorrt"
        # a plan changes with the product's graphs, so that it tells nothing of the host
        assert not is_own(row)
        assert not is_peer(row)
    assert rows[0]["shapes"] == "image:1x3x224x224"
    assert rows[1]["shapes"] == "image:2x3x224x224"
    assert rows[2]["shapes"].startswith("features_left:1x160x7x7,features_right:1x160x7x7,left_p")


def test_a_plan_that_cannot_be_timed_is_named_as_missing(program: Path) -> None:
    said: list[str] = []
    assert _rows_of_the_suite(program, plan=b"of another version", missing=said.append) == []
    assert len(said) == 3
    assert all("is not compatible with this version" in why for why in said)


class _SkipError(Exception):
    pass


def _rows_of_the_suite(
    program: Path, *, plan: bytes, missing: Callable[[str], None] = pytest.fail
) -> list[dict[str, Any]]:
    """What the suite's own test keeps, of plans that a device would have."""
    found = SimpleNamespace(encoder=plan, head=plan, key=SimpleNamespace(dialect="int8-trt"))
    model = SimpleNamespace(bundle=Bundle.open(ROOT / "bundles" / "edge"))
    request = SimpleNamespace(config=SimpleNamespace(getoption={"seconds": 3.0}.__getitem__))
    row = test_engines.row_of_trtexec("edge", "int8-trt", "as it should")
    rows: list[dict[str, Any]] = []

    def skip(what: str, why: object) -> None:
        missing(f"{what}: {why}")
        raise _SkipError

    def keep(times_ms: list[float], **values: Any) -> None:
        rows.append({**values, "times_ms": times_ms, "shapes": _asked(program)["shapes"]})

    for graph, batch in (("encoder", 1), ("encoder", 2), ("head", 1)):
        try:
            test_engines.test_tensorrt_engine_alone(
                keep, request, model, skip, ("plans alone", program, found, row), graph, batch
            )
        except _SkipError:
            continue
    return rows


def _asked(program: Path) -> dict[str, str]:
    asked: dict[str, str] = json.loads(program.with_name("asked.json").read_text())
    return asked


def _on_path(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = _write(folder, script)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return program


def _write(folder: Path, script: str) -> Path:
    folder.mkdir()
    program = folder / "trtexec"
    program.write_text(script)
    program.chmod(0o755)
    return program
