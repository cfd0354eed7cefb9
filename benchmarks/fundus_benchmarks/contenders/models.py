"""The models that benchmarks run: the bundle that ships, and a preset's with random weights.

Sizes and times do not depend on what weights mean. A preset's model has batch norms that have seen
rendered fundi, so that activations have sensible magnitudes, and residual branches as weak as
training leaves them, so that rounding is not amplified from block to block. Its bundle goes the
whole way of a real one, checkpoint, quantiser, dialect checks, signature, and is kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from fundus_benchmarks.contenders import signed_bundles
from fundus_benchmarks.contenders.made_once import made_once
from fundus_benchmarks.results.run_file import ROOT
from fundus_export.errors import ExportError
from fundus_export.graphs import export_graphs
from fundus_export.rendered import render_fundus
from fundus_runtime.calibration import Calibration, OperatingPoint, OperatingPoints
from fundus_runtime.labels import EYES, ODIR_CLASSES, Eye
from fundus_runtime.preprocess import PreprocessSpec, preprocess
from fundus_training.calibrate import FittedCalibration
from fundus_training.checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from fundus_training.data.splits import Split
from fundus_training.models import DMSNet
from fundus_training.presets import RunConfig, preset

__all__ = [
    "BenchmarkModel",
    "edge_bundle",
    "fp32_bundle",
    "fp32_graphs",
    "model_named",
    "preset_bundle",
    "random_model",
]

_CALIBRATION_PAIRS = 32
# Of each bottleneck's last batch norm. At 1, FP32 graphs already miss the export's parity limit.
_BRANCH_SCALE = 0.3
_PARTS = ("encoder", "head")
_MADE_BY = (Path(__file__), Path(signed_bundles.__file__))


@dataclass(frozen=True)
class BenchmarkModel:
    """A model in both its forms.

    Attributes:
        name: for tables.
        bundle: folder of its bundle, which this machine trusts once `trust` was called.
        checkpoint: its checkpoint.
        trusted_keys: folder with the key that signed the bundle; None for the shipped one.
    """

    name: str
    bundle: Path
    checkpoint: Path
    trusted_keys: Path | None = None

    def trust(self) -> None:
        """Let this process and those that it starts open the bundle."""
        if self.trusted_keys is not None:
            os.environ["FUNDUS_TRUSTED_KEYS"] = str(self.trusted_keys)


def edge_bundle() -> BenchmarkModel:
    """The bundle that ships."""
    folder = ROOT / "bundles" / "edge"
    return BenchmarkModel("edge", folder, folder / "checkpoint.safetensors")


def model_named(name: str) -> BenchmarkModel:
    """`edge` is the bundle that ships; see `preset_bundle` for others."""
    return edge_bundle() if name == "edge" else preset_bundle(name)


def fp32_graphs(model: BenchmarkModel) -> tuple[bytes, bytes]:
    """Encoder and head in FP32, as peers run them; exported once and kept.

    Raises:
        ExportError: the export failed.
    """

    def make(folder: Path) -> None:
        graphs = export_graphs(build_model(load_checkpoint(model.checkpoint)))
        for part in _PARTS:
            (folder / f"{part}.onnx").write_bytes(getattr(graphs, part))

    folder = made_once(f"{model.name}-fp32", make, of=(Path(__file__), model.checkpoint))
    encoder, head = ((folder / f"{part}.onnx").read_bytes() for part in _PARTS)
    return encoder, head


def fp32_bundle(model: BenchmarkModel) -> BenchmarkModel:
    """The same model in a bundle whose only form is FP32; made once and kept.

    Raises:
        ExportError: the export failed.
    """

    def make(folder: Path) -> None:
        signed_bundles.write_signed_bundle(
            folder, model.checkpoint, "--precision", "fp32", "--name", model.name
        )

    folder = made_once(f"{model.name}-fp32-bundle", make, of=(*_MADE_BY, model.checkpoint))
    return BenchmarkModel(model.name, folder / "bundle", model.checkpoint, folder / "trusted")


def preset_bundle(name: str) -> BenchmarkModel:
    """A preset's model, or the paper's with ResNet-50 (`resnet50`), with random weights.

    Exported in `int8` on rendered fundi and signed.

    Raises:
        ExportError: the export failed.
    """
    folder = made_once(name, lambda folder: _write_bundle(name, folder), of=_MADE_BY)
    return _model_in(folder, name)


def _model_in(folder: Path, name: str) -> BenchmarkModel:
    return BenchmarkModel(
        name, folder / "bundle", folder / "checkpoint.safetensors", folder / "trusted"
    )


def random_model(name: str, seed: int = 0) -> tuple[DMSNet, PreprocessSpec]:
    """A preset's model with random weights and settled batch norms, in evaluation mode."""
    config = _config(name)
    torch.manual_seed(seed)
    model = DMSNet(config.model)
    _weaken_branches(model)
    _settle_batch_norms(model, config.preprocess)
    return model, config.preprocess


def _config(name: str) -> RunConfig:
    if name != "resnet50":
        return preset(name)
    paper = preset("paper")
    return replace(paper, model=replace(paper.model, trunk="resnet50"))


def _write_bundle(name: str, folder: Path) -> None:
    made = _model_in(folder, name)
    model, spec = random_model(name)
    checkpoint = Checkpoint(
        model_config=model.config,
        classes=ODIR_CLASSES,
        spec=spec,
        state=model.state_dict(),
        split=Split(("none",), ("nobody",), ()),
        calibration=_plain_calibration(),
        training={"notes": ["random weights, for measuring speed alone"]},
    )
    save_checkpoint(made.checkpoint, checkpoint)
    photographs = folder / "photographs"
    _draw_photographs(photographs)
    signed_bundles.write_signed_bundle(
        *(folder, made.checkpoint, "--precision", "int8", "--calibration", photographs),
        *("--cache-dir", folder / "cache"),
    )


def _plain_calibration() -> FittedCalibration:
    """Probabilities as they come, thresholds of 0.5."""
    letters = ODIR_CLASSES.letters
    plain = Calibration.identity(letters)
    even = OperatingPoint("even", letters, (0.5,) * len(letters), ("by hand",) * len(letters))
    points = OperatingPoints("even", (even,))
    return FittedCalibration(plain, plain, points, points, "nothing", patients=0, eyes=0)


def _draw_photographs(folder: Path) -> None:
    folder.mkdir()
    for seed in range(_CALIBRATION_PAIRS):
        for eye in EYES:
            frame = render_fundus(eye, side=288, seed=100 + seed)
            if not cv2.imwrite(str(folder / f"{seed}_{eye}.png"), frame[:, :, ::-1]):
                raise ExportError(f"a photograph cannot be written to {folder}")


def _weaken_branches(model: DMSNet) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name.endswith(".bn3"):
            nn.init.constant_(module.weight, _BRANCH_SCALE)


def _settle_batch_norms(model: DMSNet, spec: PreprocessSpec) -> None:
    """Statistics of what really flows, instead of mean 0 and variance 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average over all batches
            module.reset_running_stats()
    model.train()
    with torch.no_grad():
        for seed in (0, 4):
            model(*(_batch(eye, seed, spec) for eye in EYES))
    model.eval()


def _batch(eye: Eye, seed: int, spec: PreprocessSpec) -> torch.Tensor:
    frames = [render_fundus(eye, side=288, seed=seed + k) for k in range(4)]
    return torch.from_numpy(np.stack([preprocess(frame, spec).tensor for frame in frames]))
