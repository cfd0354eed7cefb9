"""What a robot's builder would put together instead: OpenCV, and PyTorch or OpenVINO behind it.

Each peer takes a pair of uint8 RGB frames and answers the patient's logits, (1, K), with both eyes
through the encoder in one batch of two.
"""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fundus_runtime.bundle import Bundle
from fundus_runtime.preprocess import PreprocessSpec
from fundus_training.checkpoint import build_model, load_checkpoint

__all__ = ["OpenVINOPeer", "Peer", "PyTorchPeer", "preprocess_with_opencv"]

Frame = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Peer(Protocol):
    """Another way to screen a pair."""

    def logits(self, left: Frame, right: Frame) -> Floats:
        """The patient's logits, (1, K)."""

    def logits_of(self, eyes: Floats) -> Floats:
        """The same of a pair that is prepared already, (2, 3, S, S)."""


class PyTorchPeer:
    """PyTorch, FP32, eager.

    Args:
        checkpoint: path of the model's checkpoint.
        threads: of PyTorch.
    """

    def __init__(self, checkpoint: Any, *, threads: int) -> None:
        loaded = load_checkpoint(checkpoint)
        torch.set_num_threads(threads)
        self._spec = loaded.spec
        self._model = build_model(loaded).eval()

    def logits(self, left: Frame, right: Frame) -> Floats:
        """The patient's logits, (1, K)."""
        return self.logits_of(_pair_with_opencv(left, right, self._spec))

    def logits_of(self, eyes: Floats) -> Floats:
        """The same of a pair that is prepared already, (2, 3, S, S)."""
        with torch.inference_mode():
            tensors = [torch.from_numpy(eye[None]) for eye in eyes]
            answer: Floats = self._model(*tensors).logits.numpy()
        return answer


class OpenVINOPeer:
    """OpenVINO on the CPU, tuned for latency, with the very graphs that the runtime runs.

    Args:
        bundle: an open bundle.
        threads: of OpenVINO.
    """

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        import openvino

        core = openvino.Core()
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
        graphs = bundle.graph_bytes(bundle.manifest.graphs_for("cpu"))
        self._spec = bundle.manifest.spec
        self._encoder, self._head = (
            core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
            for graph in graphs
        )

    def logits(self, left: Frame, right: Frame) -> Floats:
        """The patient's logits, (1, K)."""
        return self.logits_of(_pair_with_opencv(left, right, self._spec))

    def logits_of(self, eyes: Floats) -> Floats:
        """The same of a pair that is prepared already, (2, 3, S, S)."""
        feeds = {"image": eyes}
        features = self._encoder.infer(feeds)["features"]
        present = np.ones(1, np.float32)
        answer = self._head.infer(
            {
                "features_left": features[:1],
                "features_right": features[1:],
                "left_present": present,
                "right_present": present,
            }
        )
        logits: Floats = np.array(answer["logits"])
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


def _pair_with_opencv(left: Frame, right: Frame, spec: PreprocessSpec) -> Floats:
    return np.stack([preprocess_with_opencv(frame, spec) for frame in (left, right)])


def _disc(spec: PreprocessSpec) -> Floats:
    mask = np.zeros((spec.size, spec.size), np.float32)
    half = spec.size // 2
    cv2.circle(mask, (half, half), half * spec.mask_permille // 1000, 1.0, -1)
    return mask
