"""NVIDIA's `trtexec`: what a TensorRT plan takes with nothing of the runtime around it.

It comes with TensorRT, in JetPack, in NVIDIA's containers and archives, not in its Python packages.
It runs a plan back to back, as one CUDA graph, its inputs on the GPU already, and writes what each
run took there. The options and the file are those of TensorRT 8.5 to 11, by NVIDIA's own sources
(github.com/NVIDIA/TensorRT at 8.5.3, v10.3.0 and v11.1: samples/common/sampleOptions.cpp and
sampleReporting.cpp); what 11 does anyway it still takes as an option, with a warning.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

__all__ = [
    "TrtexecError",
    "command_of",
    "find_trtexec",
    "input_shapes",
    "read_times_ms",
    "time_plan",
]

Shapes = Mapping[str, Sequence[int]]

_NAME = "trtexec"
# Where JetPack and NVIDIA's Debian packages put it, then NVIDIA's containers.
_PLACES = (Path("/usr/src/tensorrt/bin"), Path("/opt/tensorrt/bin"))
_WARM_UP_MS = 500
# Beyond the timing itself: loading the library and the plan.
_START_S = 120.0
_NO_GRAPH = "not permitted under CUDA graph capture mode"
# `[11/21/2026-10:32:46] [E] `; before what TensorRT itself says stands `[TRT] ` as well
_ERROR_LINE = re.compile(r"^(?:\[[^\]]*\] )?\[E\] (?:\[TRT\] )?(.+)$", re.MULTILINE)
_LAST_LINES = 3


class TrtexecError(RuntimeError):
    """A plan was not timed: the program is missing, failed, or timed something else; says why."""


def find_trtexec() -> Path:
    """The program on the path, or where NVIDIA's packages put it.

    Raises:
        TrtexecError: it is nowhere.
    """
    found = shutil.which(_NAME) or next(filter(None, map(_in_folder, _PLACES)), None)
    if found is None:
        raise TrtexecError(
            f"there is no {_NAME} on the path, nor in {' or '.join(map(str, _PLACES))}; it comes "
            "with TensorRT's Debian packages (libnvinfer-bin), containers and archives: put its "
            "folder on PATH"
        )
    return Path(found)


def input_shapes(graph: bytes, batch: int) -> dict[str, tuple[int, ...]]:
    """The shape of each input of a graph, and so of the plan that was built from it.

    Args:
        graph: serialised ONNX.
        batch: length of every free axis.
    """
    initial = onnx.load_from_string(graph).graph.input
    return {
        value.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else batch
            for axis in value.type.tensor_type.shape.dim
        )
        for value in initial
    }


def time_plan(
    program: Path, plan: bytes, shapes: Shapes, *, seconds: float, device: int = 0
) -> list[float]:
    """What each run of a plan takes on the GPU, in ms.

    Args:
        program: `find_trtexec`'s.
        plan: verified, since plans are executable; these very bytes are run.
        shapes: of all its inputs.
        seconds: of timing, at least.
        device: number of the GPU.

    Raises:
        TrtexecError: the program failed, in its own words, or it could not capture the plan.
    """
    with tempfile.TemporaryDirectory() as place:
        file, times = Path(place, "model.plan"), Path(place, "times.json")
        file.write_bytes(plan)
        words = command_of(program, file, shapes, times, seconds=seconds, device=device)
        _run(words, timeout_s=seconds + _WARM_UP_MS / 1e3 + _START_S)
        return read_times_ms(times)


def command_of(
    program: Path, plan: Path, shapes: Shapes, times: Path, *, seconds: float, device: int = 0
) -> list[str]:
    """The command that times a plan and writes the times to a file; see `time_plan`."""
    spec = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return [
        *(str(program), f"--loadEngine={plan}", f"--shapes={spec}", f"--device={device}"),
        *("--useCudaGraph", "--noDataTransfers", "--useSpinWait"),
        *(f"--warmUp={_WARM_UP_MS}", f"--duration={seconds:g}", f"--exportTimes={times}"),
    ]


def read_times_ms(file: Path) -> list[float]:
    """The GPU's time of each run after the warm-up, from the file of `--exportTimes`.

    Raises:
        TrtexecError: the file is missing or of another form.
    """
    try:
        runs = json.loads(file.read_text("utf-8"))
        found = [_ms_from_json(run["computeMs"]) for run in runs]
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise TrtexecError(
            f"{_NAME} wrote no times that can be read ({type(error).__name__}: {error})"
        ) from error
    if not found or not all(math.isfinite(ms) and ms > 0 for ms in found):
        raise TrtexecError(f"{_NAME} wrote {len(found)} times, expected at least one, all above 0")
    return found


def _ms_from_json(value: Any) -> float:
    if isinstance(value, bool):  # a number to Python
        raise TypeError(f"{value} is no time")
    return float(value)


def _in_folder(folder: Path) -> str | None:
    return shutil.which(_NAME, path=str(folder))


def _run(words: Sequence[str], *, timeout_s: float) -> None:
    try:
        done = subprocess.run(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise TrtexecError(f"{words[0]} was still running after {timeout_s:.0f} s") from error
    except OSError as error:
        raise TrtexecError(f"{words[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise TrtexecError(f"{words[0]} ended with status {done.returncode}: {_why(done.stdout)}")
    if _NO_GRAPH in done.stdout:
        raise TrtexecError(
            f"{_NAME} cannot run the plan as one CUDA graph; it timed launch by launch, which is "
            "not what this row promises"
        )


def _why(output: str) -> str:
    """The errors that it logged, else the last that it said."""
    errors = list(dict.fromkeys(_ERROR_LINE.findall(output)))
    lines = errors or [line for line in output.splitlines() if line.strip()][-_LAST_LINES:]
    return "; ".join(line.strip() for line in lines) or "it gives no reason"
