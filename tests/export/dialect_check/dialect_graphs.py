"""A small network in every dialect, built node by node, and tools to break it.

Encoder-shaped: image N x 3 x 8 x 8 -> features N x 8 x 4 x 4, eye_logits N x 4. It has what decides
where pairs stand: a plain residual block, one with a downsampling convolution, a linear bottleneck
whose input is a convolution's answer without an activation, and a matrix product. Nothing of the
export is used here, so that a misunderstanding of its is not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = [
    "DIALECTS",
    "append",
    "dialect_net",
    "feeds",
    "insert_behind",
    "node_of",
    "replace",
    "reroute",
    "value_of",
]

DIALECTS = ("fp32", "fp16", "int8-cpu", "int8-trt", "int8-trt8")
OPSETS = {"fp32": 18, "fp16": 18, "int8-cpu": 18, "int8-trt": 19, "int8-trt8": 17}

Array = npt.NDArray[Any]


def dialect_net(dialect: str) -> onnx.ModelProto:
    """The network as its dialect wants it."""
    net = _Net(dialect)
    stem = net.activation("Relu", "relu1", net.conv("conv1", net.image(), 3, 8))
    inner = net.activation("Relu", "relu2", net.conv("conv2", stem, 8, 8))
    plain = net.add("add1", net.conv("conv3", inner, 8, 8), stem)
    plain = net.activation("Relu", "relu3", plain)
    inner = net.activation("Relu", "relu4", net.conv("conv4", plain, 8, 8, stride=2))
    down = net.conv("down", plain, 8, 8, stride=2, kernel=1)
    halved = net.add("add2", net.conv("conv5", inner, 8, 8), down)
    halved = net.activation("Relu", "relu5", halved)
    linear = net.conv("linear", halved, 8, 8, kernel=1)
    wide = net.activation("Clip", "clip", net.conv("expand", linear, 8, 16, kernel=1))
    features = net.add("add3", net.conv("project", wide, 16, 8, kernel=1), linear)
    net.node("GlobalAveragePool", "pool", [net.seen(features)], ["pooled"])
    net.node("Flatten", "flatten", ["pooled"], ["flat"])
    logits = net.matmul("classify", "flat", 8, 4)
    net.output("features", features, [8, 4, 4])
    net.output("eye_logits", logits, [4])
    return net.model()


class _Net:
    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.quantised = dialect.startswith("int8")
        self.on_cpu = dialect == "int8-cpu"
        self.half = dialect in ("fp16", "int8-trt")
        self.float = np.float16 if self.half else np.float32
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.outputs: list[onnx.ValueInfoProto] = []
        self.not_negative: set[str] = set()
        self.random = np.random.default_rng(0)

    def model(self) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])]
        tensors = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "net", inputs, self.outputs, tensors)
        opset = helper.make_opsetid("", OPSETS[self.dialect])
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)

    def node(
        self, op: str, name: str, inputs: Sequence[str], outputs: Sequence[str], **a: Any
    ) -> str:
        self.nodes.append(helper.make_node(op, inputs, outputs, name, **a))
        return outputs[0]

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        self.constants.setdefault(name, np.asarray(value, dtype))
        return name

    def image(self) -> str:
        if not self.half:
            return "image"
        return self.node("Cast", "cast_in", ["image"], ["image_half"], to=TensorProto.FLOAT16)

    def output(self, name: str, tensor: str, shape: list[int]) -> None:
        self.outputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        )
        if self.half:
            self.node("Cast", f"cast_{name}", [tensor], [name], to=TensorProto.FLOAT)
            return
        tensor = self.seen(tensor)
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, other in enumerate(names):
                    names[index] = name if other == tensor else other

    def conv(
        self, name: str, x: str, inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3
    ) -> str:
        weight = self.random.normal(0, 0.3, (outputs, inputs, kernel, kernel))
        arguments = [self.through(x), self.weight(name, weight, 0), self.bias(name, x, outputs)]
        attributes = {"strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.node("Conv", name, arguments, [f"{name}_out"], **attributes)

    def matmul(self, name: str, x: str, inputs: int, outputs: int) -> str:
        weight = self.random.normal(0, 0.3, (inputs, outputs))
        arguments = [self.through(x), self.weight(name, weight, 1)]
        if self.on_cpu:  # which would merge a float bias with the product, and compute both in FP32
            bias = self.bias(name, x, outputs)
            return self.node("Gemm", name, [*arguments, bias], [f"{name}_logits"])
        self.node("MatMul", name, arguments, [f"{name}_out"])
        bias = self.constant(f"{name}_bias", self.random.normal(0, 0.1, outputs), self.float)
        return self.node("Add", f"{name}_add", [f"{name}_out", bias], [f"{name}_logits"])

    def activation(self, op: str, name: str, x: str) -> str:
        limits = []
        if op == "Clip":
            limits = [self.constant("zero", 0, self.float), self.constant("six", 6, self.float)]
        made = self.node(op, name, [x, *limits], [f"{name}_out"])
        self.not_negative.add(made)
        return made

    def add(self, name: str, fused: str, identity: str) -> str:
        arguments = [self.seen(fused), self.through(identity)]
        return self.node("Add", name, arguments, [f"{name}_out"])

    def seen(self, x: str) -> str:
        """What a node reads that computes high for TensorRT, and in INT8 on the CPU."""
        return self.through(x) if self.on_cpu else x

    def through(self, x: str) -> str:
        """The tensor behind its pair, which its readers share."""
        if not self.quantised:
            return x
        if f"{x}_scale" not in self.constants:
            self.constant(f"{x}_scale", self.step(x), self.float)
            self.constant(f"{x}_zero_point", self.offset(x))
            parameters = [f"{x}_scale", f"{x}_zero_point"]
            self.node("QuantizeLinear", f"{x}_Q", [x, *parameters], [f"{x}_q"])
            self.node("DequantizeLinear", f"{x}_DQ", [f"{x}_q", *parameters], [f"{x}_dq"])
        return f"{x}_dq"

    def step(self, x: str) -> float:
        return 6 / 255 if self.on_cpu and x in self.not_negative else 0.05

    def offset(self, x: str) -> Any:
        if not self.on_cpu:
            return np.int8(0)
        return np.uint8(0 if x in self.not_negative else 128)

    def weight(self, name: str, value: Array, axis: int) -> str:
        if not self.quantised:
            return self.constant(f"{name}_weight", value, self.float)
        others = tuple(i for i in range(value.ndim) if i != axis)
        scale = (np.abs(value).max(axis=others) / 127).astype(self.float)
        weight, stored = f"{name}_weight", f"{name}_weight_q"
        self.constant(f"{weight}_scale", scale)
        self.constant(f"{weight}_zero_point", np.zeros(scale.shape, np.int8))
        parameters = [f"{weight}_scale", f"{weight}_zero_point"]
        if self.dialect == "int8-trt8":
            self.constant(weight, value, np.float32)
            self.node("QuantizeLinear", f"{weight}_Q", [weight, *parameters], [stored], axis=axis)
        else:
            steps = value / np.expand_dims(scale.astype(np.float64), others)
            self.constant(stored, np.clip(np.rint(steps), -127, 127), np.int8)
        target = f"{weight}_dq"
        self.node("DequantizeLinear", f"{weight}_DQ", [stored, *parameters], [target], axis=axis)
        return target

    def bias(self, name: str, x: str, outputs: int) -> str:
        value = self.random.normal(0, 0.1, outputs)
        if not self.on_cpu:
            return self.constant(f"{name}_bias", value, self.float)
        scale = self.constants[f"{x}_scale"] * self.constants[f"{name}_weight_scale"]
        self.constant(f"{name}_bias_scale", scale)
        self.constant(f"{name}_bias_zero_point", np.zeros(outputs, np.int32))
        self.constant(f"{name}_bias_q", np.rint(value / scale), np.int32)
        inputs = [f"{name}_bias_q", f"{name}_bias_scale", f"{name}_bias_zero_point"]
        return self.node("DequantizeLinear", f"{name}_bias_DQ", inputs, [f"{name}_bias_dq"], axis=0)


def feeds(batch: int = 2) -> dict[str, Array]:
    """Something to run the network on."""
    image = np.random.default_rng(1).normal(size=(batch, 3, 8, 8))
    return {"image": image.astype(np.float32)}


def node_of(model: onnx.ModelProto, name: str) -> NodeProto:
    """The node of that name."""
    (found,) = (node for node in model.graph.node if node.name == name)
    return found


def value_of(model: onnx.ModelProto, name: str) -> Array:
    """An initializer's value, free to be written to."""
    (found,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return np.array(numpy_helper.to_array(found))


def replace(model: onnx.ModelProto, name: str, value: Any) -> None:
    """Set an initializer, or add it."""
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, numpy_helper.from_array(np.asarray(value), name)])


def append(
    model: onnx.ModelProto, op: str, inputs: Sequence[str], name: str, **attributes: Any
) -> NodeProto:
    """Add a node at the end, which makes `<name>_out`."""
    model.graph.node.append(helper.make_node(op, inputs, [f"{name}_out"], name, **attributes))
    return model.graph.node[-1]


def insert_behind(
    model: onnx.ModelProto, tensor: str, *nodes: NodeProto, only: Sequence[str] = ()
) -> None:
    """Put nodes behind the one that makes a tensor; readers (or `only` these) read the last one's
    answer from now on.
    """
    place = 1 + next((i for i, node in enumerate(model.graph.node) if tensor in node.output), -1)
    for node in model.graph.node:
        if not only or node.name in only:
            reroute(node, tensor, nodes[-1].output[0])
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)


def reroute(node: NodeProto, before: str, after: str) -> None:
    """Let a node read another tensor."""
    for index, name in enumerate(node.input):
        if name == before:
            node.input[index] = after
