"""What a robot's builder would put together instead: OpenCV, and another engine behind it.

Each peer takes a pair of uint8 RGB frames and answers the patient's logits, (1, K), with both eyes
through the encoder in one batch of two. Each keeps its library's own defaults but for threads and
what its name says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fundus_runtime.preprocess import PreprocessSpec
from fundus_training.checkpoint import build_model, load_checkpoint

__all__ = [
    "GraphPeer",
    "OnnxRuntimePeer",
    "OpenVINOPeer",
    "Peer",
    "PyTorchPeer",
    "preprocess_with_opencv",
]

Frame = NDArray[np.uint8]
Floats = NDArray[np.float32]
Graphs = tuple[bytes, bytes]


class Peer(ABC):
    """Another way to screen a pair.

    Args:
        spec: how eyes are prepared.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        self._spec = spec

    def logits(self, left: Frame, right: Frame) -> Floats:
        """The patient's logits, (1, K)."""
        eyes = [preprocess_with_opencv(frame, self._spec) for frame in (left, right)]
        return self.logits_of(np.stack(eyes))

    @abstractmethod
    def logits_of(self, eyes: Floats) -> Floats:
        """The same of a pair that is prepared already, (2, 3, S, S)."""


class PyTorchPeer(Peer):
    """PyTorch on the CPU.

    Args:
        checkpoint: path of the model's checkpoint.
        threads: of PyTorch.
        way: `fp32` and `bf16` run eagerly, the latter under autocast; `compiled` is FP32 through
            `torch.compile`, which compiles in its first call.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        threads: int,
        way: Literal["fp32", "bf16", "compiled"] = "fp32",
    ) -> None:
        loaded = load_checkpoint(checkpoint)
        super().__init__(loaded.spec)
        torch.set_num_threads(threads)
        self._bf16 = way == "bf16"
        self._model: Any = build_model(loaded).eval()
        if way == "compiled":
            self._model = torch.compile(self._model)

    def logits_of(self, eyes: Floats) -> Floats:
        """The same of a pair that is prepared already, (2, 3, S, S)."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            tensors = [torch.from_numpy(eye[None]) for eye in eyes]
            answer: Floats = self._model(*tensors).logits.float().numpy()
        return answer


class GraphPeer(Peer):
    """An engine that runs the product's own graphs, encoder and head."""

    @abstractmethod
    def encode(self, eyes: Floats) -> Floats:
        """Features (2, C, h, w) of a prepared pair, (2, 3, S, S)."""

    @abstractmethod
    def fuse(self, features: Floats) -> Floats:
        """The patient's logits, (1, K), of both eyes' features."""

    def logits_of(self, eyes: Floats) -> Floats:
        """The same of a pair that is prepared already, (2, 3, S, S)."""
        return self.fuse(self.encode(eyes))


class OpenVINOPeer(GraphPeer):
    """OpenVINO on the CPU, tuned for latency.

    Args:
        graphs: encoder and head.
        spec: how eyes are prepared.
        threads: of OpenVINO.
        precision: `f32` or `bf16` for what the graphs have in FP32; None for its own choice.
    """

    def __init__(
        self, graphs: Graphs, spec: PreprocessSpec, *, threads: int, precision: str | None = None
    ) -> None:
        import openvino

        super().__init__(spec)
        core = openvino.Core()
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        self._encoder, self._head = (
            core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
            for graph in graphs
        )

    def encode(self, eyes: Floats) -> Floats:
        """Features (2, C, h, w) of a prepared pair; valid until the next call."""
        features: Floats = self._encoder.infer({"image": eyes})["features"]
        return features

    def fuse(self, features: Floats) -> Floats:
        """The patient's logits, (1, K), of both eyes' features."""
        logits: Floats = np.array(self._head.infer(_head_feeds(features))["logits"])
        return logits


class OnnxRuntimePeer(GraphPeer):
    """ONNX Runtime on the CPU.

    Args:
        graphs: encoder and head.
        spec: how eyes are prepared.
        threads: of ONNX Runtime.
    """

    def __init__(self, graphs: Graphs, spec: PreprocessSpec, *, threads: int) -> None:
        import onnxruntime

        super().__init__(spec)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._encoder, self._head = (
            onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for graph in graphs
        )

    def encode(self, eyes: Floats) -> Floats:
        """Features (2, C, h, w) of a prepared pair."""
        features: Floats = self._encoder.run(["features"], {"image": eyes})[0]
        return features

    def fuse(self, features: Floats) -> Floats:
        """The patient's logits, (1, K), of both eyes' features."""
        logits: Floats = self._head.run(["logits"], _head_feeds(features))[0]
        return logits


def preprocess_with_opencv(frame: Frame, spec: PreprocessSpec) -> Floats:
    """An eye as OpenCV's users prepare it: threshold, bounding box, resize, Graham, normalise.

    Args:
        frame: uint8 RGB (height, width, 3).
        spec: size, window, gain, constant and normalisation.

    Returns:
        float32 (3, S, S).
    """
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    x, y, width, height = cv2.boundingRect((gray > 12).astype(np.uint8))
    size, crop = (spec.size, spec.size), frame[y : y + height, x : x + width]
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    window = (spec.illumination_window_px, spec.illumination_window_px)
    flat = cv2.addWeighted(
        *(small, spec.illumination_gain, cv2.blur(small, window), -spec.illumination_gain),
        spec.illumination_constant,
    )
    levels = np.clip(flat, 0, 255).astype(np.float32)
    mean, std = (255 * np.array(values, np.float32) for values in (spec.mean, spec.std))
    normalised = (levels - mean) / std * _disc(spec)[:, :, None]
    tensor: Floats = np.ascontiguousarray(normalised.transpose(2, 0, 1))
    return tensor


def _head_feeds(features: Floats) -> dict[str, Floats]:
    present = np.ones(1, np.float32)
    return {
        "features_left": features[:1],
        "features_right": features[1:],
        "left_present": present,
        "right_present": present,
    }


def _disc(spec: PreprocessSpec) -> Floats:
    mask = np.zeros((spec.size, spec.size), np.float32)
    half = spec.size // 2
    cv2.circle(mask, (half, half), half * spec.mask_permille // 1000, 1.0, -1)
    return mask
