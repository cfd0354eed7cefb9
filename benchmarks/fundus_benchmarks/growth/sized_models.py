"""The edge model at other image sizes: its own weights, which do not depend on the size.

Each size goes the way of a real export, FP32 graphs, quantiser, INT8 graphs for the CPU, without
the bundle around them. Graphs are kept under `build/benchmarks` under a name that changes with the
weights and with all sources that make them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fundus_benchmarks.contenders.agreement import INT8_TOLERANCE, require_same_answers
from fundus_benchmarks.contenders.made_once import made_once
from fundus_benchmarks.contenders.models import edge_bundle
from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.quantise.dialects import write_dialect
from fundus_export.quantise.images import Minimum, open_calibration_images
from fundus_export.quantise.measure import make_recipe
from fundus_export.quantise.ranges import RangeMethod
from fundus_export.rendered import render_fundus
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.calibration import Calibration
from fundus_runtime.labels import EYES
from fundus_runtime.preprocess import PreprocessSpec
from fundus_training.checkpoint import build_model, load_checkpoint
from fundus_training.models import DMSNet

__all__ = ["DIALECT", "SizedModel", "sized_edge_model"]

Floats = NDArray[np.float32]

DIALECT = "int8-cpu"

_PARTS = ("encoder", "head")
_PAIRS = 16


@dataclass(frozen=True)
class SizedModel:
    """The edge model at one size.

    Attributes:
        spec: its preprocessing.
        model: in PyTorch, FP32, which the graphs were made of.
        calibration: of its logits.
        encoder: graph in INT8.
        head: likewise.
    """

    spec: PreprocessSpec
    model: DMSNet
    calibration: Calibration
    encoder: bytes
    head: bytes

    def open(self, *, threads: int) -> OnnxRuntimeBackend:
        """An engine that runs it; whoever asked closes it."""
        return OnnxRuntimeBackend(
            *(self.encoder, self.head),
            size=self.spec.size,
            class_count=len(self.calibration.letters),
            threads=threads,
        )

    def verify(self, logits: Floats, eyes: Floats) -> None:
        """Hold an answer, (1, K), on prepared eyes, (2, 3, S, S), to PyTorch's.

        Raises:
            RuntimeError: it is another one.
        """
        with torch.inference_mode():
            left, right = (torch.from_numpy(eye[None]) for eye in eyes)
            expected: Floats = self.model(left, right).logits.numpy()
        answers = [np.asarray(self.calibration.apply(one[0]), float) for one in (logits, expected)]
        name = f"the edge model at {self.spec.size} px"
        require_same_answers(name, answers[:1], answers[1:], tolerance=INT8_TOLERANCE)


def sized_edge_model(size: int) -> SizedModel:
    """The edge model for eyes of this many pixels a side; made once and kept.

    Raises:
        ExportError: the export failed.
    """
    checkpoint = load_checkpoint(edge_bundle().checkpoint)
    if checkpoint.calibration is None:
        raise ExportError("the shipped checkpoint has no calibration; run fundus-train calibrate")
    model = DMSNet(replace(checkpoint.model_config, image_size=size)).eval()
    model.load_state_dict(build_model(checkpoint).state_dict())
    # the illumination window in proportion, as presets have it
    spec = replace(checkpoint.spec, size=size, illumination_window_px=size // 6 | 1)

    def make(folder: Path) -> None:
        graphs = _int8(export_graphs(model), spec)
        for part in _PARTS:
            (folder / f"{part}.onnx").write_bytes(getattr(graphs, part))

    folder = made_once(f"edge-{size}", make, of=(Path(__file__), edge_bundle().checkpoint))
    encoder, head = ((folder / f"{part}.onnx").read_bytes() for part in _PARTS)
    return SizedModel(spec, model, checkpoint.calibration.patient, encoder, head)


def _int8(source: GraphBytes, spec: PreprocessSpec) -> GraphBytes:
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(_PAIRS):
            for eye in EYES:
                frame = render_fundus(eye, side=512, seed=100 + seed)
                if not cv2.imwrite(str(Path(folder, f"{seed}_{eye}.png")), frame[:, :, ::-1]):
                    raise ExportError(f"a photograph cannot be written to {folder}")
        minimum = Minimum(2 * _PAIRS, _PAIRS)
        images = open_calibration_images(Path(folder), spec, minimum=minimum)
        return write_dialect(source, DIALECT, make_recipe(source, images, RangeMethod("minmax")))
