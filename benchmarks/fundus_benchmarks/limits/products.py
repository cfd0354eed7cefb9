"""Square matrix products in FP32 and INT8, by the libraries at hand, verified against NumPy.

FP32 factors are normal; INT8 ones are uint8 on the left and int8 on the right, as the layers of an
int8-cpu graph have them. The right factor is a constant of the graph, so that a library may pack it
beforehand as it does with a layer's weights.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["LIBRARIES", "Factors", "Kind", "Library", "WrongProductError", "matrix_graph"]

Array = NDArray[Any]
Kind = Literal["fp32", "int8"]

_OPSET, _IR_VERSION = 18, 10
_ERRORS_ONLY = 3
# Of FP32, in standard deviations of the answer. FP32 is 1e-6 away, TF32 and FP16 5e-4, BF16 5e-3:
# a library that quietly computes in one of those has another peak.
_TOLERANCE = 5e-5
# Two products of uint8 and int8 must fit into 16 bits: processors without dot products add them
# there, and saturate. ONNX Runtime asks for the same of quantised weights.
_LARGEST_INT8 = 63


class WrongProductError(RuntimeError):
    """A library's product is not NumPy's; its speed would mean nothing."""


@dataclass(frozen=True, eq=False)
class Factors:
    """What to multiply.

    Attributes:
        kind: `fp32` or `int8`.
        left: S x S, float32 or uint8.
        right: S x S, float32 or int8.
    """

    kind: Kind
    left: Array
    right: Array

    @classmethod
    def drawn(cls, kind: Kind, side: int, seed: int = 0) -> Factors:
        """Random ones with `side` rows and columns."""
        rng, shape = np.random.default_rng(seed), (side, side)
        if kind == "fp32":
            left, right = (rng.standard_normal(shape, np.float32) for _ in range(2))
            return cls(kind, left, right)
        left = rng.integers(0, 256, shape, np.uint8)
        return cls(kind, left, rng.integers(-_LARGEST_INT8, _LARGEST_INT8 + 1, shape, np.int8))

    @property
    def side(self) -> int:
        """Rows and columns of both."""
        return len(self.left)

    @property
    def operations(self) -> int:
        """Two for each multiply-add."""
        return 2 * self.side**3

    @cached_property
    def product(self) -> NDArray[np.float64]:
        """As NumPy computes it in FP64, which is exact for integers."""
        answer: NDArray[np.float64] = self.left.astype(np.float64) @ self.right.astype(np.float64)
        return answer

    def require_product(self, answer: Array, by: str) -> None:
        """Compare a library's answer with NumPy's.

        Raises:
            WrongProductError: it is another shape, or further away than its kind allows.
        """
        if answer.shape != self.product.shape:
            raise WrongProductError(
                f"{by} answers {answer.shape}, expected {self.product.shape} ({self.kind})"
            )
        most = 0.5 if self.kind == "int8" else _TOLERANCE * math.sqrt(self.side)
        difference = float(np.abs(answer - self.product).max())
        if not difference <= most:
            raise WrongProductError(
                f"{by} is {difference:.3g} away from NumPy's product in {self.kind}, at most "
                f"{most:.3g} was expected; its speed is left out"
            )


@dataclass(frozen=True)
class Library:
    """One that multiplies.

    Attributes:
        name: for tables.
        module: what it is imported as.
        kinds: what it is asked for.
        multiplying: given factors and threads, a context that holds a call for the product.
    """

    name: str
    module: str
    kinds: tuple[Kind, ...]
    multiplying: Callable[[Factors, int], AbstractContextManager[Callable[[], Array]]]

    @property
    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.module) is not None


def matrix_graph(factors: Factors, *, integer: bool = True) -> bytes:
    """ONNX of the product, input `left`, output `answer`.

    Args:
        factors: the right one becomes a constant.
        integer: INT8 factors become MatMulInteger, which answers int32; else MatMul between
            QuantizeLinear and DequantizeLinear of scale 1, float32 on both ends.
    """
    kind = TensorProto.FLOAT
    nodes = [helper.make_node("MatMul", ["left", "right"], ["answer"])]
    constants: dict[str, Any] = {"right": factors.right}
    answers = TensorProto.FLOAT
    if factors.kind == "int8" and integer:
        kind, answers = TensorProto.UINT8, TensorProto.INT32
        nodes = [helper.make_node("MatMulInteger", ["left", "right"], ["answer"])]
    elif factors.kind == "int8":
        constants |= {"one": np.float32(1), "u8": np.uint8(0), "s8": np.int8(0)}
        nodes = [
            helper.make_node("QuantizeLinear", ["left", "one", "u8"], ["left_u8"]),
            helper.make_node("DequantizeLinear", ["left_u8", "one", "u8"], ["left_read"]),
            helper.make_node("DequantizeLinear", ["right", "one", "s8"], ["right_read"]),
            helper.make_node("MatMul", ["left_read", "right_read"], ["answer"]),
        ]
    shape = factors.left.shape
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("left", kind, shape)],
        [helper.make_tensor_value_info("answer", answers, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@contextmanager
def _with_onnxruntime(factors: Factors, threads: int) -> Iterator[Callable[[], Array]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(
        matrix_graph(factors), options, providers=["CPUExecutionProvider"]
    )
    feeds = {"left": factors.left}
    yield lambda: session.run(None, feeds)[0]


@contextmanager
def _with_torch(factors: Factors, threads: int) -> Iterator[Callable[[], Array]]:
    import torch

    left, right = torch.from_numpy(factors.left), torch.from_numpy(factors.right)
    answer = torch.empty_like(left)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield lambda: torch.mm(left, right, out=answer).numpy()
    finally:
        torch.set_num_threads(before)


@contextmanager
def _with_openvino(factors: Factors, threads: int) -> Iterator[Callable[[], Array]]:
    import openvino

    # without the hint it takes BF16 where the processor has it
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    # its integer kernels take what comes out of a pair
    model = core.read_model(matrix_graph(factors, integer=False))
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    left = factors.left.astype(np.float32)
    request.set_input_tensor(openvino.Tensor(left, shared_memory=True))

    def multiply() -> Array:
        request.infer()
        answer: Array = request.get_output_tensor().data
        return answer

    yield multiply


LIBRARIES = (
    Library("ONNX Runtime", "onnxruntime", ("fp32", "int8"), _with_onnxruntime),
    Library("PyTorch", "torch", ("fp32",), _with_torch),
    Library("OpenVINO", "openvino", ("fp32", "int8"), _with_openvino),
)
