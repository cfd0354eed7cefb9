"""Ways to break the network of `dialect_graphs`, each with the rules that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from dialect_graphs import append, insert_behind, node_of, replace, reroute, value_of
from onnx import TensorProto, helper

__all__ = [
    "BROKEN",
    "Break",
    "clipped_below_the_range",
    "dequantised",
    "float_bias",
    "float_reader",
    "island",
    "plain_matrices",
    "relu_over_a_signed_range",
    "spoilt",
]

Break = Callable[[onnx.ModelProto], Any]


def no_batch_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def free_height(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def other_outputs(model: onnx.ModelProto) -> None:
    model.graph.output[1].name = node_of(model, "classify_add").output[0] = "scores"


def half_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.node.remove(node_of(model, "cast_in"))
    for node in model.graph.node:
        reroute(node, "image_half", "image")


def batch_in_second_place(model: onnx.ModelProto) -> None:
    there = helper.make_node("Transpose", ["relu1_out"], ["turned"], "there", perm=[1, 0, 2, 3])
    back = helper.make_node("Transpose", ["turned"], ["turned_back"], "back", perm=[1, 0, 2, 3])
    insert_behind(model, "relu1_out", there, back, only=["conv2"])


def opset(version: int) -> Break:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def custom_domain(model: onnx.ModelProto) -> None:
    node_of(model, "relu2").domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def local_function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Relu", ["x"], ["y"])]
    imports = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("ours", "Twice", ["x"], ["y"], body, imports))
    model.opset_import.append(helper.make_opsetid("ours", 1))


def branch(model: onnx.ModelProto) -> None:
    replace(model, "yes", np.array(True))
    value = helper.make_tensor_value_info("taken", TensorProto.FLOAT, [1])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    body = [helper.make_node("Constant", [], ["taken"], value=one)]
    graph = helper.make_graph(body, "body", [], [value])
    append(model, "If", ["yes"], "if", then_branch=graph, else_branch=graph)


def shape(model: onnx.ModelProto) -> None:
    append(model, "Shape", ["image"], "shape")


def computed_index(model: onnx.ModelProto) -> None:
    append(model, "Cast", ["image"], "count", to=TensorProto.INT64)


def gather(model: onnx.ModelProto) -> None:
    replace(model, "first", np.array([0], np.int64))
    append(model, "Gather", ["image", "first"], "gather", axis=3)


def batch_norm(model: onnx.ModelProto) -> None:
    for name, value in (("g", 1), ("b", 0), ("m", 0), ("v", 1)):
        replace(model, name, np.full(8, value, np.float32))
    inputs = ["conv1_out", "g", "b", "m", "v"]
    insert_behind(
        model, "conv1_out", helper.make_node("BatchNormalization", inputs, ["normed"], "norm")
    )


def dynamic_quantisation(model: onnx.ModelProto) -> None:
    node = append(model, "DynamicQuantizeLinear", ["image"], "dynamic")
    node.output.extend(["dynamic_scale", "dynamic_zero"])


def softsign(model: onnx.ModelProto) -> None:
    node_of(model, "relu2").op_type = "Softsign"


def layer_norm(model: onnx.ModelProto) -> None:
    replace(model, "norm_scale", np.ones(8, np.float32))
    append(model, "LayerNormalization", ["relu1_out", "norm_scale"], "norm", axis=3)


def computed_limit(model: onnx.ModelProto) -> None:
    append(model, "ReduceMax", ["image"], "largest", keepdims=0)
    model.graph.node.insert(0, model.graph.node.pop())
    node_of(model, "clip").input[2] = "largest_out"


def double_precision(model: onnx.ModelProto) -> None:
    up = helper.make_node("Cast", ["relu1_out"], ["wide"], "up", to=TensorProto.DOUBLE)
    work = helper.make_node("Relu", ["wide"], ["wide_out"], "work")
    down = helper.make_node("Cast", ["wide_out"], ["narrow"], "down_again", to=TensorProto.FLOAT)
    insert_behind(model, "relu1_out", up, work, down, only=["conv2"])


def single_bias(model: onnx.ModelProto) -> None:
    replace(model, "conv2_bias", value_of(model, "conv2_bias").astype(np.float32))


def island(model: onnx.ModelProto, name: str) -> None:
    """Compute one node in FP32, its constants with it."""
    node = node_of(model, name)
    for constant in node.input[1:]:
        replace(model, constant, value_of(model, constant).astype(np.float32))
    up = helper.make_node("Cast", [node.input[0]], [f"{name}_up"], f"cast_{name}_up", to=1)
    insert_behind(model, node.input[0], up, only=[name])
    made = node.output[0]
    down = helper.make_node("Cast", [made], [f"{name}_down"], f"cast_{name}_down", to=10)
    insert_behind(model, made, down)


def cast_to_itself(model: onnx.ModelProto) -> None:
    same = helper.make_node("Cast", ["relu1_out"], ["same"], "same", to=TensorProto.FLOAT)
    insert_behind(model, "relu1_out", same, only=["conv2"])


def cast_twice(model: onnx.ModelProto) -> None:
    up = helper.make_node("Cast", ["relu1_out"], ["up"], "up", to=TensorProto.FLOAT)
    down = helper.make_node("Cast", ["up"], ["down_again"], "down_again", to=TensorProto.FLOAT16)
    insert_behind(model, "relu1_out", up, down, only=["conv2"])


def cast_constant(model: onnx.ModelProto) -> None:
    replace(model, "single", value_of(model, "conv2_bias").astype(np.float32))
    cast = helper.make_node("Cast", ["single"], ["halved"], "cast_bias", to=TensorProto.FLOAT16)
    model.graph.node.insert(0, cast)
    node_of(model, "conv2").input[2] = "halved"


def same_cast_again(model: onnx.ModelProto) -> None:
    again = helper.make_node("Cast", ["image"], ["again"], "again", to=TensorProto.FLOAT16)
    append(model, "Relu", ["again"], "reader")
    model.graph.node.insert(0, again)


def external(model: onnx.ModelProto) -> None:
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "conv2_weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")


def spoilt(name: str, value: float) -> Break:
    def change(model: onnx.ModelProto) -> None:
        array = value_of(model, name)
        array.flat[0] = value
        replace(model, name, array)

    return change


def zeroed(name: str) -> Break:
    return lambda model: replace(model, name, np.zeros_like(value_of(model, name)))


def a_pair(model: onnx.ModelProto) -> None:
    replace(model, "step", np.float32(0.1))
    replace(model, "none", np.int8(0))
    q = helper.make_node("QuantizeLinear", ["relu1_out", "step", "none"], ["q"], "q")
    dq = helper.make_node("DequantizeLinear", ["q", "step", "none"], ["dq"], "dq")
    insert_behind(model, "relu1_out", q, dq, only=["conv2"])


def dequantised(model: onnx.ModelProto, name: str) -> None:
    """Take a product's pairs away, on data and weight."""
    node = node_of(model, name)
    for index in (0, 1):
        dq = next(n for n in model.graph.node if node.input[index] in n.output)
        q = next((n for n in model.graph.node if dq.input[0] in n.output), None)
        node.input[index] = dq.input[0] if q is None else q.input[0]
    drop_unread(model)


def all_dequantised(model: onnx.ModelProto) -> None:
    for node in [n for n in model.graph.node if n.op_type in ("Conv", "MatMul")]:
        dequantised(model, node.name)
    for node in [n for n in model.graph.node if n.op_type == "Add"]:
        for name in list(node.input):
            reroute(node, name, name.removesuffix("_dq"))
    drop_unread(model)


def drop_unread(model: onnx.ModelProto) -> None:
    while True:
        read = {name for node in model.graph.node for name in node.input}
        read |= {value.name for value in model.graph.output}
        idle = [node for node in model.graph.node if not read & set(node.output)]
        if not idle:
            break
        for node in idle:
            model.graph.node.remove(node)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def without_zero_point(*names: str) -> Break:
    def change(model: onnx.ModelProto) -> None:
        for name in names:
            del node_of(model, name).input[2:]

    return change


def computed_scale(model: onnx.ModelProto) -> None:
    append(model, "ReduceMax", ["image"], "largest", keepdims=0)
    model.graph.node.insert(0, model.graph.node.pop())
    for name in ("relu1_out_Q", "relu1_out_DQ"):
        node_of(model, name).input[1] = "largest_out"


def retyped(name: str, dtype: Any) -> Break:
    return lambda model: replace(model, name, value_of(model, name).astype(dtype))


def single_scale(model: onnx.ModelProto) -> None:
    """FP32 scales on an FP16 weight: the DQ then answers FP32."""
    retyped("conv2_weight_scale", np.float32)(model)
    cast = helper.make_node(
        "Cast", ["conv2_weight_dq"], ["half_weight"], "half_weight", to=TensorProto.FLOAT16
    )
    insert_behind(model, "conv2_weight_dq", cast)


def two_zero_points(model: onnx.ModelProto) -> None:
    replace(model, "conv2_weight_zero_point", np.zeros(1, np.int8))


def without_axis(model: onnx.ModelProto) -> None:
    del node_of(model, "conv2_weight_DQ").attribute[:]


def activation_per_channel(model: onnx.ModelProto) -> None:
    replace(model, "relu1_out_scale", np.full(8, 0.05, np.float16))
    replace(model, "relu1_out_zero_point", np.zeros(8, np.int8))


def weight_per_tensor(model: onnx.ModelProto) -> None:
    replace(model, "conv2_weight_scale", np.float16(0.01))
    replace(model, "conv2_weight_zero_point", np.int8(0))


def wrong_axis(model: onnx.ModelProto) -> None:
    node_of(model, "conv2_weight_DQ").attribute[0].i = 1


def another_scale(model: onnx.ModelProto) -> None:
    replace(model, "other_scale", np.float16(0.07))
    node_of(model, "relu1_out_DQ").input[1] = "other_scale"


def q_read_by_another(model: onnx.ModelProto) -> None:
    append(model, "Flatten", ["relu1_out_q"], "flat_q")


def pair_behind_pair(model: onnx.ModelProto) -> None:
    parameters = ["relu1_out_scale", "relu1_out_zero_point"]
    q = helper.make_node("QuantizeLinear", ["relu1_out_dq", *parameters], ["again_q"], "again_Q")
    dq = helper.make_node("DequantizeLinear", ["again_q", *parameters], ["again_dq"], "again_DQ")
    insert_behind(model, "relu1_out_dq", q, dq, only=["conv2"])


def dedicated_pair(model: onnx.ModelProto) -> None:
    parameters = ["relu1_out_scale", "relu1_out_zero_point"]
    q = helper.make_node("QuantizeLinear", ["relu1_out", *parameters], ["own_q"], "own_Q")
    dq = helper.make_node("DequantizeLinear", ["own_q", *parameters], ["own_dq"], "own_DQ")
    insert_behind(model, "relu1_out", q, dq, only=["none of them"])
    node_of(model, "add1").input[1] = "own_dq"


def dedicated_dq(model: onnx.ModelProto) -> None:
    parameters = ["relu1_out_scale", "relu1_out_zero_point"]
    dq = helper.make_node("DequantizeLinear", ["relu1_out_q", *parameters], ["own_dq"], "own_DQ")
    insert_behind(model, "relu1_out_q", dq, only=["none of them"])
    node_of(model, "add1").input[1] = "own_dq"


def float_weight_with_pair(model: onnx.ModelProto) -> None:
    replace(model, "conv2_weight", np.full((8, 8, 3, 3), 0.1, np.float16))
    parameters = ["conv2_weight_scale", "conv2_weight_zero_point"]
    q = helper.make_node(
        "QuantizeLinear", ["conv2_weight", *parameters], ["w_q"], "conv2_weight_Q", axis=0
    )
    model.graph.node.insert(0, q)
    node_of(model, "conv2_weight_DQ").input[0] = "w_q"


def integer_weight(model: onnx.ModelProto) -> None:
    replace(model, "stored", np.ones((8, 8, 3, 3), np.int8))
    node_of(model, "conv2_weight_DQ").input[0] = "stored"
    drop_unread(model)


def lowest_weight(model: onnx.ModelProto) -> None:
    spoilt("conv2_weight_q", -128)(model)


def integer_bias(model: onnx.ModelProto) -> None:
    scale = value_of(model, "conv2_weight_scale")
    replace(model, "b_scale", scale)
    replace(model, "b_zero", np.zeros(8, np.int32))
    replace(model, "b_q", np.arange(8, dtype=np.int32))
    dq = helper.make_node("DequantizeLinear", ["b_q", "b_scale", "b_zero"], ["b"], "b_DQ", axis=0)
    model.graph.node.insert(0, dq)
    node_of(model, "conv2").input[2] = "b"


def computed_bias(model: onnx.ModelProto) -> None:
    negated = helper.make_node("Neg", ["conv2_bias"], ["bias"], "negate")
    model.graph.node.insert(0, negated)
    node_of(model, "conv2").input[2] = "bias"


def other_bias_scale(model: onnx.ModelProto) -> None:
    replace(model, "conv2_bias_scale", 1.01 * value_of(model, "conv2_bias_scale"))


def int8_bias(model: onnx.ModelProto) -> None:
    for name in ("conv2_bias_q", "conv2_bias_zero_point"):
        retyped(name, np.int8)(model)


def float_bias(model: onnx.ModelProto) -> None:
    replace(model, "conv2_bias", np.zeros(8, np.float32))
    node_of(model, "conv2").input[2] = "conv2_bias"
    drop_unread(model)


def plain_matrices(model: onnx.ModelProto) -> None:
    node = node_of(model, "classify")
    node.op_type = "MatMul"
    del node.input[2:]
    replace(model, "float_bias", np.zeros(4, np.float32))
    added = helper.make_node("Add", [node.output[0], "float_bias"], ["added"], "add_bias")
    insert_behind(model, node.output[0], added)
    drop_unread(model)


def bare_data(model: onnx.ModelProto) -> None:
    node_of(model, "conv2").input[0] = "relu1_out"


def bare_weight(model: onnx.ModelProto) -> None:
    weight = value_of(model, "conv2_weight_q").astype(np.float16)
    replace(model, "conv2_weight", weight)
    node_of(model, "conv2").input[1] = "conv2_weight"
    drop_unread(model)


def pair_before_pool(model: onnx.ModelProto) -> None:
    node_of(model, "pool").input[0] = "relu1_out_dq"


def pair_before_activation(model: onnx.ModelProto) -> None:
    parameters = ["relu1_out_scale", "relu1_out_zero_point"]
    q = helper.make_node("QuantizeLinear", ["conv2_out", *parameters], ["c_q"], "c_Q")
    dq = helper.make_node("DequantizeLinear", ["c_q", *parameters], ["c_dq"], "c_DQ")
    insert_behind(model, "conv2_out", q, dq)


def quantised_output(model: onnx.ModelProto) -> None:
    replace(model, "step", np.float32(0.1))
    replace(model, "none", np.int8(0))
    made = node_of(model, "add3")
    for node in model.graph.node:
        reroute(node, "features", "sum")
    made.output[0] = "sum"
    q = helper.make_node("QuantizeLinear", ["sum", "step", "none"], ["q"], "q")
    dq = helper.make_node("DequantizeLinear", ["q", "step", "none"], ["features"], "dq")
    model.graph.node.extend([q, dq])


def bare_identity(name: str, tensor: str) -> Break:
    def change(model: onnx.ModelProto) -> None:
        reroute(node_of(model, name), f"{tensor}_dq", tensor)
        drop_unread(model)

    return change


def pair_on_fused_branch(model: onnx.ModelProto) -> None:
    parameters = ["relu1_out_scale", "relu1_out_zero_point"]
    q = helper.make_node("QuantizeLinear", ["conv3_out", *parameters], ["f_q"], "f_Q")
    dq = helper.make_node("DequantizeLinear", ["f_q", *parameters], ["f_dq"], "f_DQ")
    insert_behind(model, "conv3_out", q, dq)


def pair_on_wrong_branch(model: onnx.ModelProto) -> None:
    pair_on_fused_branch(model)
    reroute(node_of(model, "add1"), "relu1_out_dq", "relu1_out")


def float_reader(model: onnx.ModelProto) -> None:
    append(model, "Neg", ["conv2_out"], "second_reader")


def clipped_below_the_range(model: onnx.ModelProto) -> None:
    replace(model, "six", np.float32(5.0))


def relu_over_a_signed_range(model: onnx.ModelProto) -> None:
    replace(model, "relu2_out_zero_point", np.uint8(3))


BROKEN: list[tuple[str, str, Break, set[str]]] = [
    ("fp32", "relu of two", lambda m: node_of(m, "relu1").input.append("image"), {"graph-valid"}),
    ("fp32", "other outputs", other_outputs, {"graph-interface"}),
    ("fp16", "FP16 input", half_input, {"graph-io-type"}),
    ("fp32", "fixed batch", no_batch_name, {"graph-batch"}),
    ("fp32", "free height", free_height, {"graph-batch", "graph-free-axis"}),
    ("fp32", "batch in second place", batch_in_second_place, {"graph-free-axis"}),
    ("fp32", "opset 21", opset(21), {"graph-opset"}),
    ("int8-trt", "opset 21", opset(21), {"graph-opset"}),
    ("int8-trt8", "opset 18", opset(18), {"graph-opset"}),
    ("fp16", "IR 11", lambda m: setattr(m, "ir_version", 11), {"graph-ir"}),
    ("fp32", "custom domain", custom_domain, {"op-domain"}),
    ("fp32", "local function", local_function, {"op-domain"}),
    ("fp32", "branch", branch, {"op-control-flow"}),
    ("fp32", "shape", shape, {"op-shape-arithmetic"}),
    ("fp32", "computed index", computed_index, {"op-shape-arithmetic"}),
    ("fp16", "gather", gather, {"op-shape-arithmetic"}),
    ("fp32", "batch norm", batch_norm, {"op-batch-norm"}),
    ("fp32", "dynamic quantisation", dynamic_quantisation, {"op-quantised"}),
    ("int8-trt", "softsign", softsign, {"op-unknown"}),
    ("int8-trt8", "layer norm", layer_norm, {"op-unknown"}),
    ("fp32", "computed limit", computed_limit, {"op-arguments"}),
    ("fp32", "double precision", double_precision, {"type-float"}),
    ("fp16", "FP32 bias", single_bias, {"type-mixed", "graph-valid"}),
    ("fp16", "convolution in FP32", lambda m: island(m, "conv2"), {"type-high"}),
    ("fp32", "cast to itself", cast_to_itself, {"cast-place"}),
    ("fp16", "cast there and back", cast_twice, {"cast-place"}),
    ("fp16", "cast of a constant", cast_constant, {"cast-place"}),
    ("fp16", "the same cast again", same_cast_again, {"cast-place"}),
    ("fp32", "external weight", external, {"weights-inline"}),
    ("fp32", "NaN", spoilt("conv2_weight", np.nan), {"weights-finite"}),
    ("fp16", "overflow", spoilt("conv2_bias", np.inf), {"weights-finite"}),
    ("fp16", "underflow", zeroed("conv2_weight"), {"weights-underflow"}),
    ("fp32", "a pair", a_pair, {"qdq-unexpected"}),
    ("int8-trt8", "nothing quantised", all_dequantised, {"qdq-missing"}),
    ("int8-trt8", "two inputs", without_zero_point("conv2_weight_DQ"), {"qdq-inputs"}),
    (
        "int8-trt",
        "no zero point",
        without_zero_point("relu1_out_Q", "relu1_out_DQ"),
        {"qdq-inputs", "qdq-type"},
    ),
    ("int8-trt8", "computed scale", computed_scale, {"qdq-constant"}),
    ("int8-trt", "UINT8", retyped("relu1_out_zero_point", np.uint8), {"qdq-type"}),
    ("int8-cpu", "INT8 activation", retyped("relu1_out_zero_point", np.int8), {"qdq-type"}),
    ("int8-trt", "FP32 scale", single_scale, {"qdq-scale-type", "qdq-half", "qdq-needless"}),
    ("int8-trt", "dead channel", spoilt("conv2_weight_scale", 0), {"qdq-scale"}),
    ("int8-trt8", "negative", spoilt("conv2_weight_scale", -1), {"qdq-scale"}),
    ("int8-trt", "subnormal", spoilt("conv2_weight_scale", 5e-5), {"qdq-scale"}),
    (
        "int8-trt",
        "infinite",
        spoilt("conv2_weight_scale", np.inf),
        {"qdq-scale", "weights-finite"},
    ),
    ("int8-trt", "asymmetric", spoilt("relu1_out_zero_point", 3), {"qdq-zero-point"}),
    ("int8-cpu", "asymmetric weight", spoilt("conv2_weight_zero_point", 3), {"qdq-zero-point"}),
    ("int8-trt", "too few zero points", two_zero_points, {"qdq-zero-point"}),
    ("int8-trt", "no axis", without_axis, {"qdq-axis", "weight-per-channel"}),
    ("int8-trt", "activation per channel", activation_per_channel, {"qdq-axis"}),
    ("int8-trt", "weight per tensor", weight_per_tensor, {"weight-per-channel"}),
    ("int8-trt", "wrong axis", wrong_axis, {"weight-per-channel"}),
    ("int8-trt", "another scale", another_scale, {"qdq-pair"}),
    ("int8-trt", "Q that nobody reads", q_read_by_another, {"qdq-dangling"}),
    ("int8-trt", "chain", pair_behind_pair, {"qdq-chain"}),
    ("int8-trt", "dedicated pair", dedicated_pair, {"qdq-double"}),
    ("int8-trt", "dedicated DQ", dedicated_dq, {"qdq-double"}),
    ("int8-trt", "FP weight", float_weight_with_pair, {"weight-form"}),
    ("int8-trt8", "INT8 weight", integer_weight, {"weight-form"}),
    ("int8-trt", "-128", lowest_weight, {"weight-range"}),
    ("int8-trt", "INT32 bias", integer_bias, {"bias-float"}),
    ("int8-trt", "computed bias", computed_bias, {"bias-float"}),
    ("int8-cpu", "another bias scale", other_bias_scale, {"bias-int32"}),
    ("int8-cpu", "INT8 bias", int8_bias, {"bias-int32"}),
    ("int8-cpu", "float bias", float_bias, {"bias-int32"}),
    ("int8-trt", "bare data", bare_data, {"qdq-half"}),
    # the tensor now has a reader in FP32 beside its Q
    ("int8-cpu", "bare data", bare_data, {"qdq-half", "cpu-output"}),
    ("int8-trt", "bare weight", bare_weight, {"qdq-half"}),
    ("int8-trt", "pair before a pool", pair_before_pool, {"qdq-needless"}),
    ("int8-trt", "pair before an activation", pair_before_activation, {"qdq-splits-fusion"}),
    ("int8-trt8", "quantised output", quantised_output, {"qdq-output"}),
    ("int8-trt", "plain block", bare_identity("add1", "relu1_out"), {"residual-identity"}),
    ("int8-trt", "downsampling", bare_identity("add2", "down_out"), {"residual-identity"}),
    ("int8-trt", "bottleneck", bare_identity("add3", "linear_out"), {"residual-identity"}),
    ("int8-trt", "both branches", pair_on_fused_branch, {"residual-fused"}),
    ("int8-trt", "wrong branch", pair_on_wrong_branch, {"residual-fused"}),
    ("int8-cpu", "product and constant", plain_matrices, {"cpu-matrix-bias"}),
    ("int8-cpu", "second reader", float_reader, {"cpu-output"}),
    ("int8-cpu", "clip within the range", clipped_below_the_range, {"cpu-output"}),
    ("int8-cpu", "relu within the range", relu_over_a_signed_range, {"cpu-output"}),
]
