"""What the stand-in's classes do; see `stand_in.py` for what it is and is not.

"Building" puts the graph's bytes into a "plan"; "running" one asks ONNX Runtime, with host memory
in the GPU's place, so that the whole way from bundle to plans can be walked.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from stand_in import Member, StandIn, World

from fundus_export.graph_view import GraphView
from fundus_export.tensorrt.products import products_of

MARK = b"stand-in plan\n"
CUDA_ERROR = "CUDA initialization failure with error: 35. Please check your CUDA installation"
# What the inspector says of the same product in each precision, as real engines' JSON does.
KERNELS = {
    "int8": ("Int8", "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs"),
    "fp16": ("Half", "sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f16_f16_nhwckrsc_nhwc"),
    "tf32": ("Float", "sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc"),
    "fp32": ("Float", "ampere_scudnn_128x64_relu_xregs_large_nn_v1"),
}


def _world(thing: Any) -> World:
    world: World = thing._trt._world
    return world


def _set(thing: Any, **state: Any) -> None:
    for name, value in state.items():
        object.__setattr__(thing, f"_{name}", value)


def _start(thing: Any, logger: Any) -> None:
    if not _world(thing).gpu:
        logger.log(_Severity.WARNING, CUDA_ERROR)
        raise TypeError("pybind11::init(): factory function returned nullptr")
    _set(thing, logger=logger)


class _Severity(Member, enum.Enum):
    ERROR = 1
    WARNING = 2


def _create_network(builder: Any, flags: int = 0) -> Any:
    return builder._trt.make("INetworkDefinition", flags=flags, model=None)


def _create_config(builder: Any) -> Any:
    config = builder._trt.make(
        "IBuilderConfig", set_flags=set(), cleared=set(), pools={}, sources=None, profiles=[]
    )
    _world(builder).configs.append(config)
    return config


def _typed(trt: StandIn, network: Any) -> bool:
    flags = trt.NetworkDefinitionCreationFlag.__members__
    if "STRONGLY_TYPED" not in flags:
        return False
    always = "EXPLICIT_BATCH" not in flags  # 11
    return always or bool(network._flags >> int(flags["STRONGLY_TYPED"]) & 1)


def _build(builder: Any, network: Any, config: Any) -> Any:
    world, trt = _world(builder), builder._trt
    monitor = config.__dict__.get("_progress_monitor")
    if monitor is not None:
        monitor.phase_start("Building Engine", None, 3)
        for step in range(3):
            monitor.phase_start("Tactic Selection", "Building Engine", 2)
            world.during_build()
            if not monitor.step_complete("Tactic Selection", 0):
                return None
            monitor.phase_finish("Tactic Selection")
            if not monitor.step_complete("Building Engine", step):
                return None
        monitor.phase_finish("Building Engine")
    else:
        world.during_build()
    if not world.builds:
        builder._logger.log(_Severity.ERROR, "Error Code 10: could not find any implementation")
        return None
    head = {
        "layers": _layers(trt, network, config),
        "detailed": config._profiling_verbosity.name == "DETAILED" and world.details,
    }
    data = MARK + json.dumps(head).encode() + b"\n" + network._model.SerializeToString()
    return trt.make("IHostMemory", data=data)


def _layers(trt: StandIn, network: Any, config: Any) -> list[dict[str, Any]]:
    """The layers that the inspector will tell of: the products, and one that moves values."""
    world, typed = trt._world, _typed(trt, network)
    layers = [
        {"Name": "Reformatting CopyNode for Input Tensor 0 to /conv", "LayerType": "Reformat"}
    ]
    for product in products_of(GraphView(network._model)):
        if product.name in world.hides:
            continue
        ran = product.precision
        if ran == "int8" and not typed and "INT8" not in config._set_flags:
            ran = "fp32"
        if ran == "fp16" and not typed and "FP16" not in config._set_flags:
            ran = "fp32"
        if ran == "fp32" and "TF32" not in config._cleared:
            ran = "tf32"
        layers.append(_layer(trt, product.name, world.overrides.get(product.name, ran)))
    return layers


def _layer(trt: StandIn, name: str, precision: str) -> dict[str, Any]:
    weights, tactic = KERNELS[precision]
    tensor = {"Name": "x", "Dimensions": [-1, 16, 16, 16]}
    if int(trt.__version__.split(".")[0]) >= 11:
        tensor |= {"Format": "N/A due to dynamic shapes", "DataType": weights}
    else:
        tensor |= {"Format/Datatype": "N/A due to dynamic shapes"}
    layer = {
        "Name": f"{name} + {name}_relu",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor],
        "Outputs": [tensor],
        "ParameterType": "Convolution",
        "Weights": {"Type": weights, "Count": 768},
        "TacticName": tactic,
    }
    if hasattr(trt.ILayer, "metadata"):  # 8.6 and later
        layer["Metadata"] = f"[ONNX Layer: {name}]\x1e[ONNX Layer: {name}_relu]"
    return layer


def _parse(parser: Any, model: bytes, path: str | None = None) -> bool:
    if _world(parser).complaints:
        return False
    loaded = onnx.load_from_string(model)
    layers = [
        parser._trt.make("ILayer", name=node.name or f"node_of_{node.output[0]}")
        for node in loaded.graph.node
    ]
    _set(parser._network, model=loaded, layers=layers)
    return True


def _get_error(parser: Any, index: int) -> Any:
    number, name, operator, words = _world(parser).complaints[index]
    return parser._trt.make("ParserError", at=number, named=name, operator=operator, words=words)


def _input(network: Any, index: int) -> Any:
    value = network._model.graph.input[index]
    axes = value.type.tensor_type.shape.dim
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes)
    return network._trt.make("ITensor", name=value.name, shape=shape)


def _set_cache(config: Any, cache: Any, ignore_mismatch: bool) -> bool:
    if not (_world(config).takes_cache or ignore_mismatch):
        return False
    _set(config, cache=cache)
    return True


def _deserialise(runtime: Any, plan: bytes) -> Any:
    if not bytes(plan).startswith(MARK):
        runtime._logger.log(_Severity.ERROR, "Magic tag does not match")
        return None
    head, model = bytes(plan)[len(MARK) :].split(b"\n", 1)
    return runtime._trt.make(
        "ICudaEngine", told=json.loads(head), model=onnx.load_from_string(model)
    )


def _tensors(engine: Any) -> list[onnx.ValueInfoProto]:
    return [*engine._model.graph.input, *engine._model.graph.output]


def _tensor(engine: Any, name: str) -> onnx.ValueInfoProto:
    return next(value for value in _tensors(engine) if value.name == name)


def _tensor_shape(engine: Any, name: str) -> tuple[int, ...]:
    axes = _tensor(engine, name).type.tensor_type.shape.dim
    return tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes)


def _mode(engine: Any, name: str) -> Any:
    inputs = [value.name for value in engine._model.graph.input]
    modes = engine._trt.TensorIOMode
    return modes.INPUT if name in inputs else modes.OUTPUT


def _information(inspector: Any, format: Any) -> str:  # noqa: A002  # the bindings' name
    told = inspector._engine._told
    layers = told["layers"] if told["detailed"] else [one["Name"] for one in told["layers"]]
    # raw control characters in texts, as TensorRT writes them
    return json.dumps({"Layers": layers}).replace("\\u001e", "\x1e")


def _context_shape(context: Any, name: str) -> tuple[int, ...]:
    if name in context._shapes:
        return tuple(context._shapes[name])
    batch = next(iter(context._shapes.values()))[0]
    return (batch, *_tensor_shape(context._engine, name)[1:])


def _create_context(engine: Any, *_: Any) -> Any:
    """Before 10 a profile serves one context; a second one comes without, and takes nothing."""
    flags = engine._trt.NetworkDefinitionCreationFlag.__members__
    alone = "STRONGLY_TYPED" not in flags and engine.__dict__.get("_profile_taken", False)
    _set(engine, profile_taken=True)
    return engine._trt.make(
        "IExecutionContext", engine=engine, shapes={}, addresses={}, profile=not alone
    )


def _set_input_shape(context: Any, name: str, shape: Any) -> bool:
    if not context._profile:
        return False
    context._shapes[name] = tuple(shape)
    return True


def _set_address(context: Any, name: str, memory: int) -> bool:
    context._addresses[name] = memory
    return True


def _execute(context: Any, stream_handle: int) -> bool:
    recorded = _world(context).recorded
    # a graph keeps shapes and addresses as they were when it was captured
    shapes = {
        value.name: _context_shape(context, value.name) for value in _tensors(context._engine)
    }
    addresses = dict(context._addresses)
    step = functools.partial(_compute, context._engine._model, shapes, addresses)
    if recorded is None:
        step()
    else:
        recorded.append(step)
    return True


@functools.lru_cache(maxsize=16)
def _session_of(graph: bytes) -> Any:
    """An engine answers many golden pairs, and opening a session takes longer than running it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        graph,
        options,
        providers=["CPUExecutionProvider"],
        # it rounds FP16 biases to wrong integers
        disabled_optimizers=["WeightBiasQuantization"],
    )


def _compute(
    model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]
) -> None:
    session = _session_of(model.SerializeToString(deterministic=True))
    inputs = [value.name for value in model.graph.input]
    feeds = {name: _view(addresses[name], shapes[name]).copy() for name in inputs}
    names = [value.name for value in model.graph.output]
    for name, answer in zip(names, session.run(names, feeds), strict=True):
        assert answer.shape == shapes[name]
        _view(addresses[name], answer.shape)[:] = answer


def _view(address: int, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


BEHAVIOURS: dict[str, Callable[..., Any]] = {
    "Builder.__init__": _start,
    "Builder.create_network": _create_network,
    "Builder.create_builder_config": _create_config,
    "Builder.create_optimization_profile": lambda self: self._trt.make(
        "IOptimizationProfile", shapes={}
    ),
    "Builder.build_serialized_network": _build,
    "INetworkDefinition.get_flag": lambda self, *_: _typed(self._trt, self),
    "INetworkDefinition.num_inputs": lambda self: len(self._model.graph.input),
    "INetworkDefinition.get_input": _input,
    "INetworkDefinition.num_layers": lambda self: len(self._layers),
    "INetworkDefinition.get_layer": lambda self, index: self._layers[index],
    "IOptimizationProfile.set_shape": lambda self, input, min, opt, max: self._shapes.update(  # noqa: A006
        {input: (min, opt, max)}
    ),
    "IBuilderConfig.set_memory_pool_limit": lambda self, pool, pool_size: self._pools.update(
        {pool.name: pool_size}
    ),
    "IBuilderConfig.set_flag": lambda self, flag: self._set_flags.add(flag.name),
    "IBuilderConfig.clear_flag": lambda self, flag: self._cleared.add(flag.name),
    "IBuilderConfig.set_tactic_sources": lambda self, tactic_sources: (
        _set(self, sources=tactic_sources) or True
    ),
    "IBuilderConfig.add_optimization_profile": lambda self, profile: self._profiles.append(profile),
    "IBuilderConfig.create_timing_cache": lambda self, serialized_timing_cache: self._trt.make(
        "ITimingCache", data=serialized_timing_cache
    ),
    "IBuilderConfig.set_timing_cache": _set_cache,
    "IBuilderConfig.get_timing_cache": lambda self: self._cache,
    "ITimingCache.serialize": lambda self: self._trt.make(
        "IHostMemory", data=bytes(self._data) + b"measured;"
    ),
    "OnnxParser.__init__": lambda self, network, _: _set(self, network=network),
    "OnnxParser.parse": _parse,
    "OnnxParser.num_errors": lambda self: len(_world(self).complaints),
    "OnnxParser.get_error": _get_error,
    "ParserError.node": lambda self: self._at,
    "ParserError.desc": lambda self: self._words,
    "ParserError.node_name": lambda self: self._named,
    "ParserError.node_operator": lambda self: self._operator,
    "Runtime.__init__": _start,
    "Runtime.deserialize_cuda_engine": _deserialise,
    "ICudaEngine.num_io_tensors": lambda self: len(_tensors(self)),
    "ICudaEngine.get_tensor_name": lambda self, index: _tensors(self)[index].name,
    "ICudaEngine.get_tensor_mode": _mode,
    "ICudaEngine.get_tensor_shape": _tensor_shape,
    "ICudaEngine.get_tensor_dtype": lambda self, _: self._trt.DataType.FLOAT,
    "ICudaEngine.device_memory_size": lambda _: 4096,
    "ICudaEngine.device_memory_size_v2": lambda _: 4096,
    "ICudaEngine.create_engine_inspector": lambda self: self._trt.make(
        "EngineInspector", engine=self
    ),
    "ICudaEngine.create_execution_context": _create_context,
    "EngineInspector.get_engine_information": _information,
    "IExecutionContext.set_input_shape": _set_input_shape,
    "IExecutionContext.get_tensor_shape": _context_shape,
    "IExecutionContext.set_tensor_address": _set_address,
    "IExecutionContext.execute_async_v3": _execute,
}
