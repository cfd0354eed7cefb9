"""Tiny bundles and drawn fundi, so that the runtime is tested whole without a trained model."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fundus_runtime.labels import ODIR_CLASSES, ClassList
from fundus_runtime.preprocess import PreprocessSpec

SIZE = 64
CELLS = 8
# IR 8 and opset 18 load in every supported ONNX Runtime
IR_VERSION, OPSET = 8, 18

# The drawn fundi, by what the tiny model says of them: it compares the red and the green level.
COLOURS = {"D": (215, 70, 30), "N": (70, 200, 30), "uncertain": (124, 116, 40)}


def fundus(
    says: str = "D", *, width: int = 320, height: int = 280, seed: int | None = None
) -> np.ndarray:
    """A drawn disc with a little texture on a dark surround, uint8 RGB."""
    frame = np.zeros((height, width, 3), np.uint8)
    center, radius = (width // 2, height // 2), int(min(width, height) * 0.45)
    cv2.circle(frame, center, radius, COLOURS[says], -1)
    # without a seed, eyes of different kinds are different photographs
    own = list(COLOURS).index(says) if seed is None else 100 + seed
    noise = np.random.default_rng(own).integers(-6, 7, frame.shape)
    inside = frame.any(axis=2, keepdims=True)
    return np.clip(frame.astype(int) + noise * inside, 0, 255).astype(np.uint8)


def write_photograph(path: Path, frame: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return path


def _class_weights(letters: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """D rises with red over green, N with green over red, the others stay low."""
    weights = np.zeros((3, len(letters)), np.float32)
    bias = np.full(len(letters), -4.0, np.float32)
    for letter, direction in (("D", 1.0), ("N", -1.0)):
        if letter in letters:
            column = letters.index(letter)
            weights[:, column] = (3 * direction, -3 * direction, 0)
            bias[column] = 0
    return weights, bias


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, np.ndarray],
) -> bytes:
    weights = [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def encoder_graph(
    letters: tuple[str, ...] = ODIR_CLASSES.letters,
    *,
    size: int = SIZE,
    input_name: str = "image",
    batch: int | str = "N",
    turns_right_eyes: bool = False,
    eye_logits: bool = True,
    eye_maps: bool = False,
) -> bytes:
    """image -> features: means over a grid; eye_logits: linear in the mean colour.

    With `turns_right_eyes` it asks which eye it sees, and takes a right one's green for red.
    `eye_maps` say the same of each cell.
    """
    weights, bias = _class_weights(letters)
    step = size // CELLS
    pool = {"kernel_shape": [step] * 2, "strides": [step] * 2}
    if eye_maps:  # around the first pixel of each stretch, as strided convolutions
        pool |= {"kernel_shape": [step - 1] * 2, "pads": [step // 2 - 1] * 4}
    nodes = [helper.make_node("AveragePool", [input_name], ["features"], **pool)]
    inputs = [_value(input_name, batch, 3, size, size)]
    if turns_right_eyes:
        nodes[0].output[0] = "plain"
        nodes += [
            helper.make_node("Gather", ["plain", "turned_channels"], ["turned"], axis=1),
            helper.make_node("Reshape", ["is_left", "column"], ["flags"]),
            helper.make_node("Greater", ["flags", "half"], ["holds"]),
            helper.make_node("Where", ["holds", "plain", "turned"], ["features"]),
        ]
        inputs.append(_value("is_left", batch))
    nodes += [
        helper.make_node("ReduceMean", ["features", "space"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "weights", "bias"], ["eye_logits"]),
    ]
    outputs = [_value("features", batch, 3, CELLS, CELLS)]
    if eye_logits:
        outputs.append(_value("eye_logits", batch, len(letters)))
    if eye_maps:
        nodes.append(helper.make_node("Conv", ["features", "cell_weights", "bias"], ["eye_maps"]))
        outputs.append(_value("eye_maps", batch, len(letters), CELLS, CELLS))
    return _model(
        "encoder",
        nodes,
        inputs,
        outputs,
        {
            "weights": weights,
            "cell_weights": np.ascontiguousarray(weights.T[:, :, None, None]),
            "bias": bias,
            "space": np.array([2, 3], np.int64),
            "turned_channels": np.array([1, 0, 2], np.int64),
            "column": np.array([-1, 1, 1, 1], np.int64),
            "half": np.array(0.5, np.float32),
        },
    )


def head_graph(
    letters: tuple[str, ...] = ODIR_CLASSES.letters,
    *,
    answers: str = "finite",
    output_name: str = "logits",
) -> bytes:
    """Mean colour of the present eyes -> logits.

    `answers="nan"` divides by nought, `answers="nan_of_one_eye"` does where one eye is absent.
    """
    weights, bias = _class_weights(letters)
    nodes = [
        helper.make_node("ReduceMean", ["features_left", "space"], ["left"], keepdims=0),
        helper.make_node("ReduceMean", ["features_right", "space"], ["right"], keepdims=0),
        helper.make_node("Unsqueeze", ["left_present", "last"], ["left_flag"]),
        helper.make_node("Unsqueeze", ["right_present", "last"], ["right_flag"]),
        helper.make_node("Mul", ["left", "left_flag"], ["left_part"]),
        helper.make_node("Mul", ["right", "right_flag"], ["right_part"]),
        helper.make_node("Add", ["left_part", "right_part"], ["sum"]),
        helper.make_node("Add", ["left_flag", "right_flag"], ["count"]),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weights", "bias"], ["clean"]),
        helper.make_node("Div", ["clean", "divisor"], [output_name]),
    ]
    if answers == "nan_of_one_eye":
        nodes[-1].input[1] = "other_eyes"
        nodes.insert(-1, helper.make_node("Sub", ["count", "one"], ["other_eyes"]))
    features = ("N", 3, CELLS, CELLS)
    return _model(
        "head",
        nodes,
        [
            _value("features_left", *features),
            _value("features_right", *features),
            _value("left_present", "N"),
            _value("right_present", "N"),
        ],
        [_value(output_name, "N", len(letters))],
        {
            "weights": weights,
            "bias": bias,
            "space": np.array([2, 3], np.int64),
            "last": np.array([1], np.int64),
            "divisor": np.array(0.0 if answers == "nan" else 1.0, np.float32),
            "one": np.array(1.0, np.float32),
        },
    )


def manifest_of(
    files: Mapping[str, bytes], classes: ClassList, threshold: float = 0.6
) -> dict[str, Any]:
    # without illumination correction the colour survives, which is all that the model looks at
    spec = PreprocessSpec(size=SIZE, illumination="none")
    even = {letter: {"temperature": 1.0, "bias": 0.0} for letter in classes.letters}
    point = {letter: {"threshold": threshold, "rule": "by hand"} for letter in classes.letters}
    keen = {letter: {"threshold": 0.01, "rule": "by hand"} for letter in classes.letters}
    return {
        "format": "fundus-edge bundle",
        "schema_version": 1,
        "name": "tiny",
        "version": "1.2.3",
        "classes": classes.to_dict(),
        "preprocess": spec.to_dict(),
        "preprocess_sha256": spec.sha256,
        "graphs": {
            "fp32": {
                "encoder": "graphs/encoder.onnx",
                "head": "graphs/head.onnx",
                "dialect": "fp32",
                "precision": "fp32",
                "opset": OPSET,
            }
        },
        "default_graphs": {"cpu": "fp32"},
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
        "calibration": {"patient": even, "eye": even},
        "operating_points": {"default": "even", "points": {"even": point, "keen": keen}},
        "licence": {"weights": "none"},
        "intended_use": "tests",
        "not_a_medical_device": True,
    }


def write_bundle(
    folder: Path,
    *,
    classes: ClassList = ODIR_CLASSES,
    encoder: bytes | None = None,
    head: bytes | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """A whole bundle without a signature; `change` edits the manifest before it is written."""
    files = {
        "graphs/encoder.onnx": encoder or encoder_graph(classes.letters),
        "graphs/head.onnx": head or head_graph(classes.letters),
        "MODEL_CARD.md": b"# A model that compares red and green\n",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    manifest = manifest_of(files, classes)
    if change is not None:
        change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")
    return folder


@pytest.fixture(scope="session")
def shared_bundle(
    make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny signed bundle that no test may change."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def bundle_copy(shared_bundle: Path, tmp_path: Path) -> Path:
    """A tiny signed bundle of the test's own."""
    return Path(shutil.copytree(shared_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def make_bundle(sign_bundle: Callable[[Path], Path]) -> Callable[..., Path]:
    """`write_bundle`, signed with the tests' key."""
    return lambda folder, **options: sign_bundle(write_bundle(folder, **options))


@pytest.fixture(scope="session")
def graphs() -> dict[str, Callable[..., bytes]]:
    return {"encoder": encoder_graph, "head": head_graph}


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    return fundus


@pytest.fixture(scope="session")
def write() -> Callable[[Path, np.ndarray], Path]:
    return write_photograph


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Files of a left and a right eye in which the tiny model sees D."""
    left = write_photograph(tmp_path / "left.png", fundus("D", seed=1))
    right = write_photograph(tmp_path / "right.png", fundus("D", seed=2))
    return left, right
