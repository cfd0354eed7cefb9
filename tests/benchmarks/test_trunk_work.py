"""Operations of two trunks are the ones that were published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from fundus_benchmarks.limits.work import count_work

EDGE = Path(__file__).parents[2] / "bundles" / "edge" / "graphs" / "encoder_int8-cpu.onnx"


def test_the_edge_encoder_has_the_work_of_mobilenet_v2() -> None:
    # torchvision states 300.8 M multiply-adds; the trunk ends before the last convolution, to 1280
    # channels, and the classifier. What describes the eye behind it adds less than 3 %.
    trunk = 300.8e6 - 320 * 1280 * 49 - 1280 * 1000
    work = count_work(EDGE.read_bytes(), batch=1)
    assert trunk <= work.operations / 2 <= 1.03 * trunk
    assert work.operations_int8 > 0.99 * work.operations
    # MobileNetV2's 3.5 M parameters without the same layers, in 8 bits each
    parameters = 3_504_872 - 320 * 1280 - 1280 * 1001
    assert parameters <= work.weight_bytes <= 1.35 * parameters


def test_resnet_152_has_its_published_work() -> None:
    # torchvision states 11.51 G multiply-adds at 224 px, classifier included
    work = count_work(resnet_152(), batch=1)
    assert work.operations / 2 + 2048 * 1000 == pytest.approx(11.51e9, rel=2e-3)


def resnet_152() -> bytes:
    """Its convolutions, with shapes for weights: bottlenecks of 1 x 1, 3 x 3 and 1 x 1."""
    net = Net()
    x = net.pool(net.conv("image", 3, 64, 7, 2))
    channels = 64
    for width, blocks in ((64, 3), (128, 8), (256, 36), (512, 3)):
        for block in range(blocks):
            stride = 2 if block == 0 and width > 64 else 1
            y = net.conv(net.conv(x, channels, width, 1), width, width, 3, stride)
            y = net.conv(y, width, 4 * width, 1)
            x = x if block else net.conv(x, channels, 4 * width, 1, stride)
            channels = 4 * width
            x = net.add(x, y)
    return net.model(x, [1, 2048, 7, 7])


class Net:
    """Nodes in a row; weights are inputs, since work follows from shapes alone."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs = {"image": [1, 3, 224, 224]}

    def conv(self, x: str, channels: int, made: int, side: int, stride: int = 1) -> str:
        weight = f"w{len(self.inputs)}"
        self.inputs[weight] = [made, channels, side, side]
        return self._node("Conv", x, weight, strides=[stride] * 2, pads=[side // 2] * 4)

    def pool(self, x: str) -> str:
        return self._node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def add(self, x: str, y: str) -> str:
        return self._node("Add", x, y)

    def model(self, output: str, shape: list[int]) -> bytes:
        def value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
            return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

        inputs = [value(name, shape) for name, shape in self.inputs.items()]
        made = onnx.helper.make_graph(self.nodes, "trunk", inputs, [value(output, shape)])
        opset = [onnx.helper.make_opsetid("", 18)]
        return onnx.helper.make_model(made, opset_imports=opset).SerializeToString()

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name
