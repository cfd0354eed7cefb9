"""What a robot's builder would run instead, each with the same model, head included.

Behind the preprocessing that OpenCV's users write, with each library's own defaults.
"""

from __future__ import annotations

import importlib.util
from itertools import count

import cv2
import pytest

from fundus_benchmarks.contenders.agreement import (
    BF16_TOLERANCE,
    FP32_TOLERANCE,
    INT8_TOLERANCE,
    require_same_picture,
)
from fundus_benchmarks.contenders.peers import (
    GraphPeer,
    OnnxRuntimePeer,
    OpenVINOPeer,
    PyTorchPeer,
    preprocess_with_opencv,
)
from fundus_runtime.latency.exams import two_frames
from fundus_runtime.preprocess import preprocess

# engine, dialect of the graphs or way of PyTorch, precision hint, tolerance
PEERS = {
    "PyTorch FP32": ("pytorch", "fp32", None, FP32_TOLERANCE),
    "PyTorch BF16": ("pytorch", "bf16", None, BF16_TOLERANCE),
    "PyTorch compiled": ("pytorch", "compiled", None, FP32_TOLERANCE),
    "ONNX Runtime FP32": ("onnxruntime", "fp32", None, FP32_TOLERANCE),
    "OpenVINO FP32": ("openvino", "fp32", "f32", FP32_TOLERANCE),
    "OpenVINO BF16": ("openvino", "fp32", "bf16", BF16_TOLERANCE),
    "OpenVINO INT8": ("openvino", "int8-cpu", None, INT8_TOLERANCE),
}
# PyTorch's own advice, ours to read, not the benchmark's to fail on
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(1800)]


@pytest.fixture(scope="session", params=PEERS)
def peer(request, timed_model, threads, missing):
    """A peer that is installed, and its row."""
    engine, dialect, hint, tolerance = PEERS[request.param]
    if importlib.util.find_spec(engine.replace("pytorch", "torch")) is None:
        missing(f"{request.param} with {timed_model.model.name}", f"{engine} is not installed")
    opened = _open(engine, dialect, hint, timed_model, threads)
    cv2.setNumThreads(threads)
    frame, spec = timed_model.frames[0], timed_model.bundle.manifest.spec
    require_same_picture(
        preprocess(frame, spec), preprocess_with_opencv(frame, spec), spec, "frame 0"
    )
    row = {
        "model": timed_model.model.name,
        "contender": request.param,
        "backend": engine,
        "provider": "cpu",
        "dialect": dialect if engine != "pytorch" else None,
        "verified": timed_model.verify(request.param, opened.logits_of, tolerance),
    }
    return opened, row


def test_peer_pair(timed, frames, peer):
    opened, row = peer
    turns = count()
    timed(opened.logits, lambda: two_frames(frames, next(turns)), stage="pair", **row)


def test_peer_encoder(timed, timed_model, peer):
    opened, row = peer
    if not isinstance(opened, GraphPeer):
        pytest.skip("PyTorch runs encoder and head as one model")
    timed(opened.encode, _pairs(timed_model), stage="encoder_2", **row)


def test_peer_head(timed, timed_model, peer):
    opened, row = peer
    if not isinstance(opened, GraphPeer):
        pytest.skip("PyTorch runs encoder and head as one model")
    turn = _pairs(timed_model)

    def begin():
        return (opened.encode(*turn()).copy(),)

    timed(opened.fuse, begin, stage="head", **row)


def _pairs(timed_model):
    turns = count()
    return lambda: (timed_model.pairs[next(turns) % len(timed_model.pairs)],)


def _open(engine, dialect, hint, timed_model, threads):
    spec = timed_model.bundle.manifest.spec
    if engine == "pytorch":
        return PyTorchPeer(timed_model.model.checkpoint, threads=threads, way=dialect)
    graphs = timed_model.graphs(dialect)
    if engine == "openvino":
        return OpenVINOPeer(graphs, spec, threads=threads, precision=hint)
    return OnnxRuntimePeer(graphs, spec, threads=threads)
