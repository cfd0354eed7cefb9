"""FP16 graphs on the CPU against NumPy's FP16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fundus_export.certificate.half_emulation import emulate_half, has_half

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(0, 1, (5, 16)).astype(np.float32)
FIRST, SECOND = (RANDOM.normal(0, 1, (16, 16)).astype(np.float16) for _ in range(2))


def graph(nodes: Sequence[onnx.NodeProto], *, opset: int = 19, **constants: np.ndarray) -> bytes:
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 16])] for name in ("x", "y")
    ]
    made = helper.make_model(
        helper.make_graph(list(nodes), "half", *ends, weights),
        ir_version=9,
        opset_imports=[helper.make_opsetid("", opset)],
    )
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


CHAIN = graph(
    [
        node("Cast", "x", "x_half", to=TensorProto.FLOAT16),
        node("MatMul", "x_half first", "a"),
        node("Relu", "a", "b"),
        node("MatMul", "b second", "c"),
        node("Add", "c c", "d"),
        node("Cast", "d", "y", to=TensorProto.FLOAT),
    ],
    first=FIRST,
    second=SECOND,
)
LEVELS = onnxruntime.GraphOptimizationLevel


def answer(data: bytes, x: np.ndarray, level: object = LEVELS.ORT_ENABLE_ALL) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": x})
    return np.asarray(y)


def rounded(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def in_half(x: np.ndarray) -> np.ndarray:
    first, second = FIRST.astype(np.float32), SECOND.astype(np.float32)
    b = np.maximum(rounded(rounded(x) @ first), 0)
    c = rounded(b @ second)
    return rounded(c + c)


@pytest.mark.parametrize("level", [LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL])
def test_every_half_tensor_is_rounded(level: object) -> None:
    came = answer(emulate_half(CHAIN), X, level)

    # sums in another order may fall on the other side of a rounding now and then
    assert (came == in_half(X)).mean() > 0.9
    np.testing.assert_allclose(came, in_half(X), rtol=2e-3, atol=2e-3)


def test_the_provider_alone_rounds_nothing() -> None:
    """Why the emulation exists; when this fails, it may go."""
    single = 2 * np.maximum(X @ FIRST.astype(np.float32), 0) @ SECOND.astype(np.float32)

    np.testing.assert_allclose(answer(CHAIN, X), single, rtol=1e-4, atol=1e-4)
    assert np.abs(in_half(X) - single).max() > 1e-3


def test_overflow_is_infinite() -> None:
    assert np.isfinite(answer(CHAIN, X * 1e4)).all()
    assert not np.isfinite(answer(emulate_half(CHAIN), X * 1e4)).all()


def test_islands_in_single_precision_are_left_alone() -> None:
    island = graph(
        [
            node("Cast", "x", "x_half", to=TensorProto.FLOAT16),
            node("Cast", "x_half", "x_single", to=TensorProto.FLOAT),
            node("Mul", "x_single x_single", "square"),
            node("Sqrt", "square", "root"),
            node("Cast", "root", "root_half", to=TensorProto.FLOAT16),
            node("Cast", "root_half", "y", to=TensorProto.FLOAT),
        ]
    )

    large = X * 1e4  # its square is beyond FP16, its root is not
    np.testing.assert_array_equal(answer(emulate_half(island), large), np.abs(rounded(large)))


def test_quantisation_with_half_scales_runs() -> None:
    quantised = graph(
        [
            node("Cast", "x", "x_half", to=TensorProto.FLOAT16),
            node("QuantizeLinear", "x_half scale zero", "levels"),
            node("DequantizeLinear", "levels scale zero", "back"),
            node("Cast", "back", "y", to=TensorProto.FLOAT),
        ],
        scale=np.array(0.03, np.float16),
        zero=np.array(0, np.int8),
    )
    scale = np.float32(np.float16(0.03))
    expected = np.clip(np.round(rounded(X) / scale), -128, 127) * scale

    np.testing.assert_allclose(answer(emulate_half(quantised), X), expected, rtol=1e-6)


def test_graph_without_half_is_returned_as_it_is() -> None:
    single = graph([node("Relu", "x", "y")])

    assert emulate_half(single) is single
    assert not has_half(single)
    assert has_half(CHAIN)
