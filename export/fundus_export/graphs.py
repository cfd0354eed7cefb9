"""Encoder and head of a DMS-Net as two ONNX graphs with dynamic batch and inline weights.

encoder: ``image`` N x 3 x S x S -> ``features`` N x C/2 x H x W, ``eye_logits`` N x K and
``eye_maps`` N x K x H x W, whose mean over places the logits are; without the auxiliary head there
are neither. A model that treats the eyes differently has one encoder for both all the same, with
the input ``is_left`` N, 1 or 0, beside ``image``.
head: ``features_left``, ``features_right``, ``left_present`` N, ``right_present`` N -> ``logits``
N x K. All FP32; batch norms are folded and nothing constant is computed; the opset is the one that
was asked for.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import checker
from torch import Tensor, nn

from fundus_export.errors import ExportError
from fundus_export.opsets import SOURCE_OPSET, require_opset, with_opset
from fundus_runtime.backends.protocol import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    HEAD_INPUTS,
    HEAD_OUTPUTS,
)
from fundus_training.models import DMSNet, folded_copy

__all__ = ["OPSET", "GraphBytes", "export_graphs"]

OPSET = SOURCE_OPSET


@dataclass(frozen=True)
class GraphBytes:
    """Both graphs, serialised.

    Attributes:
        encoder: what one eye needs alone.
        head: what both eyes need.
        opset: operator set of both.
    """

    encoder: bytes
    head: bytes
    opset: int


class _Encoder(nn.Module):
    """One encoder for both eyes, which `is_left` tells apart where the model does."""

    def __init__(self, model: DMSNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, is_left: Tensor | None = None) -> tuple[Tensor, ...]:
        if is_left is None:
            encoded = self.model.encode(image)
        else:
            encoded = self.model.encode_each(image, is_left)
        return tuple(values for values in encoded if values is not None)


class _Head(nn.Module):
    def __init__(self, model: DMSNet) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, features_left: Tensor, features_right: Tensor, left: Tensor, right: Tensor
    ) -> Tensor:
        return self.model.fuse(features_left, features_right, left, right)


def export_graphs(model: DMSNet, *, opset: int = OPSET) -> GraphBytes:
    """Export a trained model.

    Args:
        model: in any mode; it is left as it is.
        opset: ONNX operator set of both graphs, one of `opsets.OPSETS`.

    Raises:
        ExportError: graphs are not written in that operator set, or torch's exporter wrote
            something else than what was asked for.
    """
    require_opset(opset)
    folded = folded_copy(model).cpu()
    # batch 2 while tracing: the exporter takes a batch of 1 for a constant
    image = torch.zeros(2, 3, folded.config.image_size, folded.config.image_size)
    features = torch.zeros(
        2, folded.config.feature_channels, folded.config.grid, folded.config.grid
    )
    present = torch.ones(2)
    shared, described = folded.config.eyes_share_encoder, folded.config.auxiliary_head
    encoder_inputs = (image,) if shared else (image, present.clone())
    inputs, outputs = ENCODER_INPUTS[0 if shared else 1], ENCODER_OUTPUTS[0 if described else 2]
    encoder = _graph(_Encoder(folded), encoder_inputs, inputs, outputs, opset)
    head_inputs = (features, features.clone(), present, present.clone())
    head = _graph(_Head(folded), head_inputs, HEAD_INPUTS, HEAD_OUTPUTS, opset)
    return GraphBytes(encoder, head, opset)


def _graph(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int,
) -> bytes:
    # Torch's exporter writes 18 when it is asked for 17, without a word: it is asked for 18 alone,
    # and other sets are made of that by known steps.
    batch = torch.export.Dim("batch")
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=SOURCE_OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            verbose=False,
        )
    assert program is not None  # dynamo=True returns the program
    graph = program.model_proto
    _forget_origin(graph)
    graph = with_opset(graph, opset)
    _require_as_asked(graph, input_names, output_names, opset)
    return bytes(graph.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of its own workings and prints its steps, which help no user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _require_as_asked(
    graph: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> None:
    checker.check_model(graph, full_check=True)
    versions = {entry.domain: entry.version for entry in graph.opset_import}
    if versions != {"": opset}:
        raise ExportError(
            f"opset {opset} was asked for but {versions} was written with torch "
            f"{torch.__version__}; install the version in constraints.txt"
        )
    names = [[value.name for value in side] for side in (graph.graph.input, graph.graph.output)]
    if names != [list(inputs), list(outputs)]:
        raise ExportError(f"the graph has the inputs and outputs {names}, not {inputs}, {outputs}")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.graph.initializer):
        raise ExportError("weights lie outside the graph; models above 2 GB cannot be exported")


def _forget_origin(graph: onnx.ModelProto) -> None:
    """Drop source paths and the exporter's notes: they differ between machines, weights do not."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    for tensor in graph.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del graph.functions[:]
    used = {node.domain for node in graph.graph.node}
    kept = [entry for entry in graph.opset_import if entry.domain in used]
    del graph.opset_import[:]
    graph.opset_import.extend(kept)
