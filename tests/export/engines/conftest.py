"""A tiny bundle with every dialect that TensorRT takes, and a stand-in for TensorRT."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import cv2
import numpy as np
import pytest

from fundus_export.tensorrt.features import probe
from fundus_export.tensorrt.machine import Machine
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.backends.tensorrt_install import import_tensorrt
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineMissingError
from fundus_runtime.labels import EYES, ODIR_CLASSES, Eye
from fundus_runtime.manifest import GraphPair
from fundus_runtime.plan_key import Device
from fundus_runtime.plans import PLANS_VARIABLE
from fundus_runtime.preparer import EyePreparer
from fundus_runtime.preprocess import PreprocessSpec


def _beside(name: str) -> ModuleType:
    """A module beside this file; the tests are no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tiny, stand_in_module, stand_in_play, host_gpu = map(
    _beside, ("tiny", "stand_in", "stand_in_play", "host_gpu")
)

TOLERANCE = 0.02
SPEC = PreprocessSpec(size=tiny.SIZE, illumination="none")
# As many pairs as the builder asks for, of few pictures, since many tests screen all of them.
GOLDEN_PAIRS, GOLDEN_PICTURES = 32, 6


def _golden_pictures() -> dict[str, bytes]:
    """Drawn discs as PNG, by their names in the bundle; each left one goes with every right one."""
    random = np.random.default_rng(7)
    files = {}
    for pair in range(GOLDEN_PICTURES):
        for eye in ("left", "right"):
            frame = np.zeros((160, 160, 3), np.uint8)
            colour = [int(value) for value in random.integers(60, 220, 3)]
            cv2.circle(frame, (80, 80), 70, colour, -1)
            _, data = cv2.imencode(".png", frame)
            files[f"golden/{pair:02d}_{eye}.png"] = data.tobytes()
    return files


def _manifest(files: dict[str, bytes], dialects: tuple[str, ...]) -> dict[str, Any]:
    letters = ODIR_CLASSES.letters
    even = {letter: {"temperature": 1.0, "bias": 0.0} for letter in letters}
    point = {letter: {"threshold": 0.5, "rule": "by hand"} for letter in letters}
    return {
        "format": "fundus-edge bundle",
        "schema_version": 1,
        "name": "tiny",
        "version": "1.0.0",
        "classes": ODIR_CLASSES.to_dict(),
        "preprocess": SPEC.to_dict(),
        "preprocess_sha256": SPEC.sha256,
        "graphs": {
            dialect: {
                "encoder": f"graphs/encoder_{dialect}.onnx",
                "head": f"graphs/head_{dialect}.onnx",
                "dialect": dialect,
                "precision": dialect.split("-")[0],
                "opset": tiny.OPSET[dialect],
            }
            for dialect in dialects
        },
        "default_graphs": {"cpu": dialects[0]},
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
        "calibration": {"patient": even, "eye": even},
        "operating_points": {"default": "even", "points": {"even": point}},
        "licence": {"weights": "none"},
        "intended_use": "tests",
        "not_a_medical_device": True,
    }


def _write(folder: Path, files: dict[str, bytes], manifest: dict[str, Any]) -> Bundle:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return replace(Bundle.open(folder, require_trust=False), trust="signed")


def _golden_answers(bundle: Bundle) -> dict[str, Any]:
    """What each dialect answers on ONNX Runtime, in the form that the runtime reads."""
    numbers = list(product(range(GOLDEN_PICTURES), repeat=2))[:GOLDEN_PAIRS]
    names = [
        {"left": f"golden/{left:02d}_left.png", "right": f"golden/{right:02d}_right.png"}
        for left, right in numbers
    ]
    forms = bundle.manifest.graphs.values()
    return {
        "pairs": names,
        "answers": {pair.name: _answers_of(bundle, pair, names) for pair in forms},
    }


def _answers_of(bundle: Bundle, pair: GraphPair, names: list[dict[str, str]]) -> dict[str, Any]:
    manifest = bundle.manifest
    backend = OnnxRuntimeBackend(
        *bundle.graph_bytes(pair), size=manifest.spec.size, class_count=len(manifest.classes)
    )
    rows: dict[str, list[Any]] = {"logits": [], "left_logits": [], "right_logits": []}
    flag = np.ones(1, np.float32)
    for pictures in names:
        tensors = [_prepared(bundle.path / pictures[eye], eye) for eye in EYES]
        encoded = backend.encode(np.stack(tensors), EYES)
        both = backend.fuse(encoded.features[:1], encoded.features[1:], flag, flag)
        for kind, row in zip(rows, (both[0], *encoded.logits), strict=True):
            rows[kind].append(row.tolist())
    backend.close()
    return {"probability_tolerance": TOLERANCE, **rows}


@cache
def _prepared(path: Path, eye: Eye) -> np.ndarray:
    return EyePreparer(SPEC, thresholds=None).file(eye, path).tensor


@pytest.fixture(scope="session")
def beside() -> Callable[[str], ModuleType]:
    """A module beside this file, by name."""
    return _beside


@pytest.fixture
def real_tensorrt() -> ModuleType:
    """The real module, where it is installed."""
    try:
        return cast(ModuleType, import_tensorrt())
    except EngineMissingError as error:
        pytest.skip(f"make test-tensorrt: {error}")


@pytest.fixture(autouse=True)
def plans_beside_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLANS_VARIABLE, raising=False)


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """A trusted bundle of these dialects; `change` edits files, `golden` the recorded answers."""

    def make(
        *dialects: str,
        change: Callable[[dict[str, bytes]], None] | None = None,
        golden: Callable[[dict[str, Any]], None] | None = None,
        checkpoint: bool = True,
    ) -> Bundle:
        dialects = dialects or tuple(tiny.OPSET)
        folder = tmp_path_factory.mktemp("bundles") / "tiny"
        files = _golden_pictures()
        for dialect in dialects:
            for graph in ("encoder", "head"):
                made = getattr(tiny, graph)(dialect, len(ODIR_CLASSES))
                files[f"graphs/{graph}_{dialect}.onnx"] = made
        if checkpoint:
            files["checkpoint.safetensors"] = b"not read here"
        if change is not None:
            change(files)
        answers = _golden_answers(_write(folder, files, _manifest(files, dialects)))
        if golden is not None:
            golden(answers)
        if answers:
            files["golden/answers.json"] = json.dumps(answers).encode()
        manifest = _manifest(files, dialects)
        if answers:
            manifest["golden"] = {"answers": "golden/answers.json"}
        return _write(folder, files, manifest)

    return make


@pytest.fixture(scope="session")
def tiny_bundle(make_tiny: Callable[..., Bundle]) -> Bundle:
    """A bundle of all dialects that no test may change; plans go elsewhere."""
    return make_tiny()


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The tiny bundle, whose plans go to the test's own folder."""
    monkeypatch.setenv(PLANS_VARIABLE, str(tmp_path / "plans"))
    return tiny_bundle


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Puts the stand-in of a version in TensorRT's place; see `stand_in.py` for what it is not."""

    def make(version: str, **world: Any) -> Any:
        happens = stand_in_module.World(**world)
        trt = stand_in_module.StandIn(version, happens, stand_in_play.BEHAVIOURS)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        return trt

    return make


@pytest.fixture
def machine(stand_in: Callable[..., Any]) -> Callable[..., Machine]:
    """A machine of the stand-in and of host memory."""

    def make(version: str, **world: Any) -> Machine:
        trt = stand_in(version, **world)
        gpu = host_gpu.HostGpu(trt._world)
        device = Device(gpu.name, gpu.compute_capability, version, gpu.driver_version)
        return Machine(trt, probe(trt), gpu, device)

    return make
