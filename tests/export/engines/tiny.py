"""A tiny encoder and head in each dialect, written by hand: two products each, and an FP32 island.

As in the graphs of a real model, convolutions are quantised and the small last products are not.

encoder: image -> convolution, ReLU -> features -> mean -> product -> eye_logits
head: features times flag of each eye, their sum -> convolution, ReLU -> mean -> product -> logits
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 64
CHANNELS = 32
CELLS = SIZE // 4
OPSET = {"fp32": 18, "fp16": 18, "int8-trt": 19, "int8-trt8": 17}


@dataclass
class Tiny:
    """Collects nodes and constants of one graph in one dialect."""

    dialect: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    @property
    def half(self) -> bool:
        return self.dialect in ("fp16", "int8-trt")

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def real(self, name: str, value: np.ndarray) -> str:
        return self.constant(name, value.astype(np.float16 if self.half else np.float32))

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        output = f"{name}_output"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def cast(self, tensor: str, name: str, *, to_half: bool) -> str:
        if not self.half:
            return tensor
        kind = TensorProto.FLOAT16 if to_half else TensorProto.FLOAT
        return self.node("Cast", [tensor], name, to=kind)

    def quantised(self, tensor: str, name: str, scale: float) -> str:
        """The tensor through a Q/DQ pair, where the dialect quantises."""
        if not self.dialect.startswith("int8"):
            return tensor
        parts = [
            self.real(f"{name}_scale", np.array(scale)),
            self.constant(f"{name}_zero", np.array(0, np.int8)),
        ]
        tensor = self.node("QuantizeLinear", [tensor, *parts], f"{name}_quantise")
        return self.node("DequantizeLinear", [tensor, *parts], f"{name}_dequantise")

    def weight(self, name: str, value: np.ndarray) -> str:
        """A kernel as the dialect holds it: real, INT8 with DQ alone, or FP32 with Q and DQ."""
        if not self.dialect.startswith("int8"):
            return self.real(name, value)
        scale = np.abs(value).max(axis=(1, 2, 3)) / 127
        parts = [
            self.real(f"{name}_scale", scale),
            self.constant(f"{name}_zero", np.zeros(len(scale), np.int8)),
        ]
        if self.dialect == "int8-trt":
            integers = np.rint(value / scale[:, None, None, None]).astype(np.int8)
            tensor = self.constant(name, integers)
        else:
            tensor = self.constant(name, value.astype(np.float32))
            tensor = self.node("QuantizeLinear", [tensor, *parts], f"{name}_quantise", axis=0)
        return self.node("DequantizeLinear", [tensor, *parts], f"{name}_dequantise", axis=0)

    def convolution(self, tensor: str, name: str, weight: np.ndarray, stride: int) -> str:
        inputs = [
            self.quantised(tensor, f"{name}_in", 0.02),
            self.weight(f"{name}.weight", weight),
            self.real(f"{name}.bias", np.full(len(weight), 0.01)),
        ]
        size = weight.shape[2]
        answer = self.node(
            "Conv", inputs, name, kernel_shape=[size, size], strides=[stride, stride]
        )
        return self.node("Relu", [answer], f"{name}_relu")

    def mean(self, tensor: str, name: str) -> str:
        """Over both axes of a map, which up to opset 17 are an attribute."""
        if OPSET[self.dialect] < 18:
            return self.node("ReduceMean", [tensor], name, axes=[2, 3], keepdims=0)
        axes = self.constant(f"{name}_axes", np.array([2, 3], np.int64))
        return self.node("ReduceMean", [tensor, axes], name, keepdims=0)

    def product(self, tensor: str, name: str, weight: np.ndarray) -> str:
        flat = self.mean(tensor, f"{name}_mean")
        answer = self.node("MatMul", [flat, self.real(f"{name}.weight", weight)], name)
        return self.node(
            "Add", [answer, self.real(f"{name}.bias", np.zeros(weight.shape[1]))], f"{name}_add"
        )

    def out(self, tensor: str, name: str) -> None:
        """Give a tensor the output's name, in FP32."""
        tensor = self.cast(tensor, f"/out/{name}", to_half=False)
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if one == tensor else one for one in names]

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> bytes:
        graph = helper.make_graph(self.nodes, "tiny", inputs, outputs, self.constants)
        model = helper.make_model(
            graph,
            ir_version=9 if self.dialect == "int8-trt" else 8,
            opset_imports=[helper.make_opsetid("", OPSET[self.dialect])],
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def _value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, shape)


def encoder(dialect: str, classes: int) -> bytes:
    """The encoder in a dialect."""
    graph = Tiny(dialect)
    image = graph.cast("image", "/in/image", to_half=True)
    features = graph.convolution(image, "/conv", _random(1, CHANNELS, 3, 4, 4), stride=4)
    graph.out(graph.product(features, "/eye", _random(2, CHANNELS, classes)), "eye_logits")
    graph.out(features, "features")
    return graph.model(
        [_value("image", "N", 3, SIZE, SIZE)],
        [_value("features", "N", CHANNELS, CELLS, CELLS), _value("eye_logits", "N", classes)],
    )


def mapped_encoder(classes: int) -> bytes:
    """An FP32 encoder that tells of each cell what it says of the whole eye."""
    graph = Tiny("fp32")
    features = graph.convolution("image", "/conv", _random(1, CHANNELS, 3, 4, 4), stride=4)
    weights = _random(2, classes, CHANNELS, 1, 1)
    maps = graph.node("Conv", [features, graph.real("/eye.weight", weights)], "/eye")
    graph.out(graph.mean(maps, "/eye_mean"), "eye_logits")
    graph.out(maps, "eye_maps")
    graph.out(features, "features")
    return graph.model(
        [_value("image", "N", 3, SIZE, SIZE)],
        [
            _value("features", "N", CHANNELS, CELLS, CELLS),
            _value("eye_logits", "N", classes),
            _value("eye_maps", "N", classes, CELLS, CELLS),
        ],
    )


def sided_encoder() -> bytes:
    """An FP32 encoder that treats the eyes differently and says nothing of one alone."""
    graph = Tiny("fp32")
    axes = graph.constant("axes", np.array([1, 2, 3], np.int64))
    features = graph.convolution("image", "/conv", _random(1, CHANNELS, 3, 4, 4), stride=4)
    side = graph.node("Unsqueeze", ["is_left", axes], "/side")
    graph.out(graph.node("Add", [features, side], "/sided"), "features")
    return graph.model(
        [_value("image", "N", 3, SIZE, SIZE), _value("is_left", "N")],
        [_value("features", "N", CHANNELS, CELLS, CELLS)],
    )


def head(dialect: str, classes: int) -> bytes:
    """The head in a dialect; the flags times the features are an FP32 island."""
    graph = Tiny(dialect)
    axes = graph.constant("axes", np.array([1, 2, 3], np.int64))
    weighted = []
    for eye in ("left", "right"):
        flag = graph.node("Unsqueeze", [f"{eye}_present", axes], f"/{eye}/flag")
        weighted.append(graph.node("Mul", [f"features_{eye}", flag], f"/{eye}/weighted"))
    both = graph.cast(graph.node("Add", weighted, "/both"), "/in/both", to_half=True)
    fused = graph.convolution(both, "/fuse", _random(3, CHANNELS, CHANNELS, 1, 1), stride=1)
    graph.out(graph.product(fused, "/logits", _random(4, CHANNELS, classes)), "logits")
    shape = ("N", CHANNELS, CELLS, CELLS)
    return graph.model(
        [
            _value("features_left", *shape),
            _value("features_right", *shape),
            _value("left_present", "N"),
            _value("right_present", "N"),
        ],
        [_value("logits", "N", classes)],
    )
