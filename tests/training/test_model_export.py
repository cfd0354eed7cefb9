"""Encoder and head become plain ONNX graphs of dynamic batch that compute the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fundus_training.models import DMSNet, ModelConfig, folded_copy

HEAD_INPUTS = ("features_left", "features_right", "left_present", "right_present")
# Operations of a dynamic shape or a pooling that the exporter could not express plainly.
UNWANTED = {
    "BatchNormalization",
    "Expand",
    "Gather",
    "GatherND",
    "If",
    "Loop",
    "Range",
    "Resize",
    "Scan",
    "Shape",
    "Slice",
    "Split",
}


class Encoder(nn.Module):
    def __init__(self, model: DMSNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.encode(image))


class Head(nn.Module):
    def __init__(self, model: DMSNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model.fuse(*inputs)


def exported(graph: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], path: Path) -> Path:
    torch.onnx.export(
        graph.eval(),
        tuple(inputs),
        path,
        dynamo=True,
        opset_version=18,
        input_names=list(names),
        dynamic_shapes=_batch_of(graph, len(inputs)),
        external_data=False,
        verbose=False,
    )
    return path


def _batch_of(graph: nn.Module, number: int) -> tuple[object, ...]:
    each = tuple({0: torch.export.Dim.DYNAMIC} for _ in range(number))
    return each if isinstance(graph, Encoder) else (each,)


def operations(path: Path) -> set[str]:
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    return {node.op_type for node in model.graph.node}


def answers(path: Path, inputs: dict[str, Tensor]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def made(**options: str) -> DMSNet:
    torch.manual_seed(0)
    config = ModelConfig(trunk="mobilenet_v2", image_size=96, **options)  # type: ignore[arg-type]
    model = DMSNet(config)
    for _ in range(3):  # so that the norms have statistics to fold
        model(*torch.randn(2, 3, 3, 96, 96))
    return model.eval()


# Warnings of torch's exporter about its own workings.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:# The axis name:UserWarning"),
]


@torch.no_grad()
def test_the_encoders_graph_is_plain_and_equals_the_model(tmp_path: Path) -> None:
    model = made()
    images = torch.randn(3, 3, 96, 96)

    encoder = Encoder(folded_copy(model))
    path = exported(encoder, [images], ["image"], tmp_path / "encoder.onnx")

    assert not operations(path) & UNWANTED
    for batch in (1, 3):
        features, eye_logits, eye_maps = answers(path, {"image": images[:batch]})
        expected = model.encode(images[:batch])
        np.testing.assert_allclose(features, expected.features, rtol=0, atol=1e-4)
        np.testing.assert_allclose(eye_logits, expected.logits, rtol=0, atol=1e-4)
        np.testing.assert_allclose(eye_maps, expected.maps, rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"mixing": "symmetric", "cafm_gate": "softmax"}], ids=str)
@torch.no_grad()
def test_the_heads_graph_is_plain_and_equals_the_model(
    tmp_path: Path, options: dict[str, str]
) -> None:
    model = made(**options)
    left, right = torch.rand(2, 3, 160, 3, 3)
    inputs = [left, right, torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 0.0])]

    path = exported(Head(folded_copy(model)), inputs, HEAD_INPUTS, tmp_path / "head.onnx")

    assert not operations(path) & UNWANTED
    for batch in (1, 3):
        some = [tensor[:batch] for tensor in inputs]
        (logits,) = answers(path, dict(zip(HEAD_INPUTS, some, strict=True)))
        np.testing.assert_allclose(logits, model.fuse(*some), rtol=0, atol=1e-4)
