"""What rounding weights adds to an answer on average is known, and taken off the bias."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from fundus_export.errors import ExportError
from fundus_export.quantise.bias_correction import bias_shifts
from fundus_export.quantise.ranges import TensorRange


def means(*values: float) -> dict[str, TensorRange]:
    return {"x": TensorRange(-9.0, 9.0, 9.0, values)}


def shifts(operator: str, rounding: object, *values: float, **attributes: int) -> object:
    node = helper.make_node(operator, ["x", "w", "b"], ["y"], "y", **attributes)
    found = bias_shifts(node, "x", np.asarray(rounding, np.float64), means(*values))
    return None if found is None else found.tolist()


def test_a_pointwise_convolution() -> None:
    rounding = np.reshape([[0.5, 0.25], [-1.0, 0.0], [0.0, 0.0]], (3, 2, 1, 1))
    assert shifts("Conv", rounding, 2.0, 4.0) == [2.0, -2.0, 0.0]


def test_a_kernel_counts_with_the_sum_of_its_taps() -> None:
    rounding = np.zeros((1, 2, 3, 3))
    rounding[0, 0] = 0.125
    rounding[0, 1, 1, 1] = 1.0
    assert shifts("Conv", rounding, 2.0, 10.0) == [9 * 0.125 * 2.0 + 10.0]


def test_a_depthwise_convolution_sees_each_channel_alone() -> None:
    rounding = np.reshape([0.5, -0.25, 1.0], (3, 1, 1, 1)) * np.ones((3, 1, 1, 2))
    assert shifts("Conv", rounding, 1.0, 2.0, 4.0, group=3) == [1.0, -1.0, 8.0]


def test_a_grouped_convolution_sees_its_groups_channels() -> None:
    # outputs 0 and 1 read channels 0 and 1, outputs 2 and 3 read channels 2 and 3
    rounding = np.reshape([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.5, 1.0]], (4, 2, 1, 1))
    found = shifts("Conv", rounding, 1.0, 10.0, 100.0, 1000.0, group=2)
    assert found == [1.0, 11.0, 100.0, 1050.0]


def test_a_matrix_product_with_bias_either_way_round() -> None:
    rounding = [[1.0, 0.0, 2.0], [0.0, 0.5, 0.25]]  # two inputs, three outputs
    assert shifts("Gemm", rounding, 3.0, 4.0) == [3.0, 2.0, 7.0]
    assert shifts("Gemm", np.transpose(rounding), 3.0, 4.0, transB=1) == [3.0, 2.0, 7.0]


def test_where_nothing_is_known_or_no_bias_taken_nothing_is_shifted() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], "y")
    rounding = np.ones((1, 2, 1, 1))
    assert bias_shifts(node, "x", rounding, {}) is None
    assert bias_shifts(node, "x", rounding, means()) is None
    assert shifts("MatMul", [[1.0], [1.0]], 1.0, 1.0) is None


@pytest.mark.parametrize(
    ("operator", "shape", "attributes"),
    [
        ("Conv", (4, 3, 1, 1), {}),
        ("Conv", (4, 1, 3, 3), {"group": 4}),
        ("Gemm", (3, 2), {}),
        ("Gemm", (2, 3), {"transB": 1}),
    ],
)
def test_means_of_another_number_of_channels_are_refused(
    operator: str, shape: tuple[int, ...], attributes: dict[str, int]
) -> None:
    with pytest.raises(ExportError, match=r"2 means of 'x', of which y reads [34] channels"):
        shifts(operator, np.zeros(shape), 1.0, 1.0, **attributes)
