"""Operations and bytes of graphs small enough to be counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import numpy_helper, parser

from fundus_benchmarks.limits.work import Work, count_work

# The scale and zero point of every pair here: float32 and uint8 or int8.
SCALE = {"s": np.float32(0.1), "u": np.uint8(128), "i": np.int8(0)}


def graph(text: str, opset: int = 18, **weights: npt.NDArray[Any] | np.generic) -> bytes:
    """A model of a graph in ONNX's own text, with these initializers."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()
    )
    return model.SerializeToString()


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return np.ones(shape, np.float32)


def test_a_convolution_counts_every_multiply_add_twice() -> None:
    data = graph(
        """net (float[N,3,8,8] x) => (float[N,4,8,8] y) {
            y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
        }""",
        w=floats(4, 3, 3, 3),
        b=floats(4),
    )
    assert count_work(data, batch=1) == Work(
        operations_int8=0,
        operations_float=2 * (4 * 8 * 8) * (3 * 3 * 3),
        weight_bytes=4 * (4 * 27 + 4),
        activation_bytes=4 * (3 * 64 + 4 * 64),
    )
    two = count_work(data, batch=2)
    assert two.operations == 2 * count_work(data, batch=1).operations
    assert two.activation_bytes == 2 * 4 * 7 * 64
    assert two.weight_bytes == 4 * 112


@pytest.mark.parametrize(
    ("text", "weights", "multiply_adds"),
    [
        # 6 channels of 5 x 5, each from 2 of the 4 channels
        (
            """net (float[N,4,9,9] x) => (float[N,6,5,5] y) {
                y = Conv<group=2, kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x, w)
            }""",
            {"w": floats(6, 2, 3, 3)},
            6 * 25 * 2 * 9,
        ),
        # every channel on its own
        (
            """net (float[N,5,4,4] x) => (float[N,5,4,4] y) {
                y = Conv<group=5, kernel_shape=[3,3], pads=[1,1,1,1]>(x, w)
            }""",
            {"w": floats(5, 1, 3, 3)},
            5 * 16 * 9,
        ),
        (
            """net (float[N,4,9,9] x) => (float[N,6,7,7] y) {
                y = Conv<kernel_shape=[3,3]>(x, w)
            }""",
            {"w": floats(6, 4, 3, 3)},
            6 * 49 * 4 * 9,
        ),
        # each of 2 x 16 numbers is spread over 3 channels of 2 x 2
        (
            """net (float[N,2,4,4] x) => (float[N,3,8,8] y) {
                y = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(x, w)
            }""",
            {"w": floats(2, 3, 2, 2)},
            2 * 16 * 3 * 4,
        ),
        (
            "net (float[N,7] x) => (float[N,5] y) { y = Gemm<transB=1>(x, w) }",
            {"w": floats(5, 7)},
            35,
        ),
        (
            "net (float[7,6] x) => (float[6,5] y) { y = Gemm<transA=1>(x, w) }",
            {"w": floats(7, 5)},
            6 * 7 * 5,
        ),
        (
            "net (float[N,3,4,7] x) => (float[N,3,4,5] y) { y = MatMul(x, w) }",
            {"w": floats(7, 5)},
            3 * 4 * 7 * 5,
        ),
        (
            "net (float[N,4,7] a, float[N,7,5] b) => (float[N,4,5] y) { y = MatMul(a, b) }",
            {},
            4 * 7 * 5,
        ),
    ],
    ids=(
        "strided, grouped",
        "depthwise",
        "unpadded",
        "transposed",
        "Gemm",
        "turned Gemm",
        "MatMul",
        "two activations",
    ),
)
def test_products_of_every_kind(text: str, weights: dict[str, Any], multiply_adds: int) -> None:
    work = count_work(graph(text, **weights), batch=1)
    assert (work.operations_float, work.operations_int8) == (2 * multiply_adds, 0)


@pytest.mark.parametrize(
    ("text", "weights", "multiply_adds"),
    [
        (
            """net (uint8[N,3,4,4] x) => (uint8[N,2,4,4] y) {
                y = QLinearConv(x, s, u, w, s, i, s, u)
            }""",
            {"w": np.ones((2, 3, 1, 1), np.int8)},
            2 * 16 * 3,
        ),
        (
            "net (uint8[N,3,4,4] x) => (int32[N,2,4,4] y) { y = ConvInteger(x, w, u, i) }",
            {"w": np.ones((2, 3, 1, 1), np.int8)},
            2 * 16 * 3,
        ),
        (
            "net (uint8[N,6] x) => (uint8[N,5] y) { y = QLinearMatMul(x, s, u, w, s, i, s, u) }",
            {"w": np.ones((6, 5), np.int8)},
            30,
        ),
        (
            "net (uint8[N,6] x) => (int32[N,5] y) { y = MatMulInteger(x, w, u, i) }",
            {"w": np.ones((6, 5), np.int8)},
            30,
        ),
    ],
    ids=("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"),
)
def test_integer_operators_count_as_int8(text: str, weights: dict[str, Any], multiply_adds) -> None:
    work = count_work(graph(text, **weights, **SCALE), batch=1)
    assert (work.operations_float, work.operations_int8) == (0, 2 * multiply_adds)


QUANTISED = """net (float[N,4,8,8] x) => (float[N,4,8,8] y) {
    xq = QuantizeLinear(x, s, u)
    xd = DequantizeLinear(xq, s, u)
    wd = DequantizeLinear(w, s, i)
    c = Conv(xd, wd)
    r = Relu(c)
    rq = QuantizeLinear(r, s, u)
    rd = DequantizeLinear(rq, s, u)
    vd = DequantizeLinear(v, s, i)
    d = Conv(rd, vd)
    dq = QuantizeLinear(d, s, u)
    dd = DequantizeLinear(dq, s, u)
    y = Add(rd, dd)
}"""


def test_between_pairs_int8_is_computed_and_moved() -> None:
    square = np.ones((4, 4, 1, 1), np.int8)
    work = count_work(graph(QUANTISED, w=square, v=square, **SCALE), batch=1)
    assert work.operations_float == 0
    assert work.operations_int8 == 2 * 2 * (4 * 64 * 4)
    # both weights in INT8, and one scale and two zero points that all share
    assert work.weight_bytes == 2 * 16 + 4 + 1 + 1
    tensor = 4 * 64
    # the photograph is read in FP32 to be quantised, the sum is written in FP32
    assert work.activation_bytes == 4 * tensor + 4 * tensor + tensor * (
        (1 + 1)  # xq
        + (1 + 2)  # rq goes to a convolution and to the sum; c and r stay in it
        + (1 + 1)  # dq
    )


def test_a_product_of_one_quantised_factor_counts_as_float() -> None:
    text = """net (float[N,6] x) => (float[N,5] y) {
        wd = DequantizeLinear(w, s, i)
        y = MatMul(x, wd)
    }"""
    work = count_work(graph(text, w=np.ones((6, 5), np.int8), **SCALE), batch=1)
    assert (work.operations_float, work.operations_int8) == (60, 0)
    assert work.weight_bytes == 30 + 4 + 1


def test_sixteen_bits_count_as_float() -> None:
    text = """net (float[N,6] x) => (float[N,5] y) {
        xq = QuantizeLinear(x, s, z)
        xd = DequantizeLinear(xq, s, z)
        wd = DequantizeLinear(w, s, i)
        y = MatMul(xd, wd)
    }"""
    data = graph(text, 21, w=np.ones((6, 5), np.int8), z=np.uint16(0), **SCALE)
    assert count_work(data, batch=1).operations_int8 == 0


def test_each_consumer_reads_a_tensor_once() -> None:
    text = """net (float[N,10] x) => (float[N,10] y) {
        a = Sigmoid(x)
        b = Mul(a, a)
        y = Add(a, b)
    }"""
    # x read; a written, read by Mul, which has it twice, and by Add; b written, read; y written
    assert count_work(graph(text), batch=3).activation_bytes == 4 * 30 * (1 + 3 + 2 + 1)


def test_an_activation_is_part_of_the_node_that_it_alone_reads() -> None:
    fused = "net (float[N,10] x) => (float[N,10] y) { a = Sigmoid(x)\n y = Relu(a) }"
    assert count_work(graph(fused), batch=1).activation_bytes == 40 * (1 + 1)
    shared = """net (float[N,10] x) => (float[N,10] y) {
        a = Sigmoid(x)
        b = Relu(a)
        y = Add(a, b)
    }"""
    assert count_work(graph(shared), batch=1).activation_bytes == 40 * (1 + 3 + 2 + 1)
    alone = "net (float[N,10] x) => (float[N,10] y) { y = Relu(x) }"
    assert count_work(graph(alone), batch=1).activation_bytes == 40 * 2


def test_a_new_shape_moves_nothing() -> None:
    text = """net (float[N,2,5] x) => (float[N,10] y) {
        a = Sigmoid(x)
        b = Reshape(a, shape)
        y = Tanh(b)
    }"""
    data = graph(text, shape=np.array([-1, 10]))
    assert count_work(data, batch=1).activation_bytes == 40 * (1 + 2 + 1)


def test_a_tensor_quantised_anew_is_read_and_written() -> None:
    text = """net (float[N,10] x) => (float[N,10] y) {
        a = QuantizeLinear(x, s, u)
        b = DequantizeLinear(a, s, u)
        c = QuantizeLinear(b, s, i)
        y = DequantizeLinear(c, s, i)
    }"""
    # x in FP32; a and c in INT8, each written and read; the graph's output in FP32
    assert count_work(graph(text, **SCALE), batch=1).activation_bytes == 40 + 20 + 20 + 40


def test_a_shape_that_depends_on_values_is_refused() -> None:
    text = """net (float[3,3] x) => (float[K] y) {
        places = NonZero(x)
        turned = Transpose<perm=[1,0]>(places)
        found = GatherND(x, turned)
        y = Sigmoid(found)
    }"""
    with pytest.raises(ValueError, match="expected whole numbers"):
        count_work(graph(text), batch=1)
