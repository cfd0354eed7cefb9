"""Small FP32 graphs, built operator by operator, and ONNX Runtime to run and to measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

from fundus_export.quantise.ranges import TensorRange
from fundus_runtime.backends.onnxruntime_session import _CHANGES_THE_MODEL

Array = npt.NDArray[Any]
OPSET = 18


class Net:
    """A graph in the making; methods add an operator and answer what it makes.

    Nodes are named after what they make, weights `<node>.weight` and `<node>.bias`, drawn from a
    seed where none are given.
    """

    def __init__(self, **inputs: Sequence[int | str]) -> None:
        self.inputs = inputs
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.random = np.random.default_rng(0)

    def op(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.constants[name] = np.array(value, dtype)
        return name

    def conv(
        self,
        x: str,
        name: str,
        shape: Sequence[int] = (),
        *,
        weight: Any = None,
        bias: Any = None,
        **attributes: Any,
    ) -> str:
        """A convolution of a weight of this shape; with a drawn bias, or none where it is False."""
        if weight is None:
            weight = self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        weight = np.asarray(weight)
        if "pads" not in attributes:
            side = weight.shape[-1] // 2
            attributes["pads"] = [side] * 4
        inputs = [x, self.constant(f"{name}.weight", weight)]
        if bias is not False:
            drawn = self.random.normal(size=len(weight)) * 0.1
            inputs.append(self.constant(f"{name}.bias", drawn if bias is None else bias))
        return self.op("Conv", *inputs, name=name, **attributes)

    def relu6(self, x: str, name: str) -> str:
        limits = [self.constant("zero", 0.0), self.constant("six", 6.0)]
        return self.op("Clip", x, *limits, name=name)

    def matrix(self, name: str, *shape: int) -> str:
        return self.constant(name, self.random.normal(size=shape) / np.sqrt(shape[0]))

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The whole, checked; axis 0 of inputs and outputs is free."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in self.inputs.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
        )
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        del model.graph.output[:]
        model.graph.output.extend(inferred.output)
        checker.check_model(model, full_check=True)
        return model


def run(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    *,
    tensors: Sequence[str] | None = None,
    optimised: bool = False,
) -> dict[str, Array]:
    """A graph's answers, or any of its tensors, on ONNX Runtime's CPU provider."""
    if tensors is not None:
        model = helper.make_model(model.graph, opset_imports=model.opset_import, ir_version=10)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=_CHANGES_THE_MODEL,
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def fused(graph: bytes, path: Any) -> onnx.ModelProto:
    """What ONNX Runtime makes of a graph before it runs it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    # one level more would write layouts for this very processor
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=_CHANGES_THE_MODEL
    )
    return onnx.load(str(path))


def ranges_of(
    model: onnx.ModelProto, feeds: Mapping[str, Array], tensors: Sequence[str]
) -> dict[str, TensorRange]:
    """The least and the largest value of tensors in one run, and the means of their channels."""
    computed = [name for name in tensors if name not in feeds]
    values = {**feeds, **(run(model, feeds, tensors=computed) if computed else {})}
    return {name: range_of(values[name]) for name in tensors}


def range_of(value: Array) -> TensorRange:
    others = tuple(i for i in range(value.ndim) if i != (1 if value.ndim == 4 else value.ndim - 1))
    low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
    means = value.mean(axis=others, dtype=np.float64)
    return TensorRange(low, high, max(-low, high), tuple(map(float, means)))


def drawn(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def basic_block(*, channels: int = 16, side: int = 16) -> onnx.ModelProto:
    """ResNet's block of two convolutions between a stem and a classifier."""
    net = Net(image=["batch", 3, side, side])
    x = net.op("Relu", net.conv("image", "stem", (channels, 3, 7, 7)), name="x")
    y = net.op("Relu", net.conv(x, "conv1", (channels, channels, 3, 3)), name="y")
    added = net.op("Add", net.conv(y, "conv2", (channels, channels, 3, 3)), x, name="added")
    return _classified(net, net.op("Relu", added, name="z"), channels)


def bottleneck(*, channels: int = 16, side: int = 32) -> onnx.ModelProto:
    """ResNet's block of three convolutions whose identity is a downsampling convolution."""
    wide = 4 * channels
    net = Net(image=["batch", 3, side, side])
    x = net.op("Relu", net.conv("image", "stem", (channels, 3, 7, 7)), name="x")
    y1 = net.op("Relu", net.conv(x, "conv1", (channels, channels, 1, 1)), name="y1")
    y2 = net.conv(y1, "conv2", (channels, channels, 3, 3), strides=[2, 2])
    y2 = net.op("Relu", y2, name="y2")
    net.conv(y2, "conv3", (wide, channels, 1, 1))
    net.conv(x, "downsample", (wide, channels, 1, 1), strides=[2, 2])
    added = net.op("Add", "conv3", "downsample", name="added")
    return _classified(net, net.op("Relu", added, name="z"), wide)


def linear_bottleneck(*, channels: int = 16, side: int = 32) -> onnx.ModelProto:
    """Two of MobileNetV2's blocks: no activation between a block's answer and the next."""
    net = Net(image=["batch", channels, side, side])
    x = net.conv("image", "project0", (channels, channels, 1, 1))
    for block in (1, 2):
        wide = 4 * channels
        y = net.relu6(net.conv(x, f"expand{block}", (wide, channels, 1, 1)), f"e{block}")
        y = net.conv(y, f"depthwise{block}", (wide, 1, 3, 3), group=wide)
        y = net.relu6(y, f"d{block}")
        y = net.conv(y, f"project{block}", (channels, wide, 1, 1))
        x = net.op("Add", x, y, name=f"added{block}")
    return _classified(net, x, channels)


def dense_block(*, channels: int = 16, side: int = 16) -> onnx.ModelProto:
    """Two layers of a dense block, each reading all before it, and a pool in between."""
    net = Net(image=["batch", 3, side, side])
    x = net.op("Relu", net.conv("image", "stem", (channels, 3, 7, 7)), name="x")
    y1 = net.op("Relu", net.conv(x, "conv1", (channels, channels, 3, 3)), name="y1")
    both = net.op("Concat", x, y1, name="both", axis=1)
    y2 = net.op("Relu", net.conv(both, "conv2", (channels, 2 * channels, 3, 3)), name="y2")
    every = net.op("Concat", x, y1, y2, name="every", axis=1)
    pooled = net.op("MaxPool", every, name="pooled", kernel_shape=[2, 2], strides=[2, 2])
    return _classified(net, net.op("Relu", net.conv(pooled, "conv3", (64, 48, 3, 3)), name="z"), 64)


def tower(*, width: int = 128, tokens: int = 16) -> onnx.ModelProto:
    """Two matrix products of tokens with an activation between, then a wide classifier."""
    net = Net(tokens=["batch", tokens, width])
    x = net.op("MatMul", "tokens", net.matrix("first.weight", width, width), name="first")
    x = net.op("Relu", x, name="x")
    x = net.op("MatMul", x, net.matrix("second.weight", width, width), name="second")
    axes = net.constant("axes", [1], np.int64)
    mean = net.op("ReduceMean", x, axes, name="mean", keepdims=0)
    hidden = net.op(
        "Gemm",
        mean,
        net.matrix("hidden.weight", 2 * width, width),
        net.constant("hidden.bias", net.random.normal(size=2 * width)),
        name="hidden",
        transB=1,
    )
    return net.model(
        net.op("MatMul", hidden, net.matrix("last.weight", 2 * width, 3), name="logits")
    )


def _classified(net: Net, x: str, channels: int) -> onnx.ModelProto:
    axes = net.constant("axes", [2, 3], np.int64)
    mean = net.op("ReduceMean", x, axes, name="mean", keepdims=0)
    weight = net.matrix("classifier.weight", channels, 3)
    return net.model(net.op("MatMul", mean, weight, name="logits"))
