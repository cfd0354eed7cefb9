"""A TensorRT network from a graph's verified bytes, and the builder's configuration for it.

Everything that differs between TensorRT's versions is asked of `Features`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fundus_export.errors import ExportError
from fundus_export.tensorrt.features import Features
from fundus_export.tensorrt.options import EngineOptions
from fundus_export.tensorrt.strategy import Strategy

if TYPE_CHECKING:
    import onnx

__all__ = [
    "ProfileShape",
    "constrain_layers",
    "make_builder",
    "make_config",
    "parse_network",
    "profile_shapes",
    "readable",
]

Shape = tuple[int, ...]

_OPT_BATCH = {"encoder": 2, "head": 1}  # a pair is two eyes of one patient


@dataclass(frozen=True)
class ProfileShape:
    """The shapes of one input that an engine takes: smallest, best, largest."""

    smallest: Shape
    best: Shape
    largest: Shape


def make_builder(trt: Any, log: Any) -> Any:
    """TensorRT's builder.

    Raises:
        EngineError: TensorRT would not make one; without driver or GPU an `EngineMissingError`.
    """
    from fundus_runtime.backends.tensorrt_install import refusal

    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # the bindings' answer to a null pointer
        raise refusal("TensorRT's builder", (*log.messages, str(error))) from error
    if builder is None:
        raise refusal("TensorRT's builder", log.messages)
    return builder


def readable(data: bytes, strategy: Strategy, name: str) -> onnx.ModelProto:
    """The model of a graph's verified bytes, in an operator set that TensorRT reads as it is meant.

    Raises:
        ExportError: the bytes are no graph, or it cannot be moved to such a set.
    """
    from fundus_export.dialect_check import model_from_bytes
    from fundus_export.opsets import with_opset

    model = model_from_bytes(data, name)
    largest = strategy.largest_opset
    (opset,) = (entry.version for entry in model.opset_import if entry.domain == "")
    return model if largest is None or opset <= largest else with_opset(model, largest)


def parse_network(
    trt: Any,
    builder: Any,
    features: Features,
    strategy: Strategy,
    graph: str,
    model: onnx.ModelProto,
    log: Any,
) -> tuple[Any, Any]:
    """Parse a graph.

    Args:
        trt: TensorRT's module.
        builder: TensorRT's builder.
        features: what it can do.
        strategy: how the precision is built.
        graph: `encoder` or `head`, for messages.
        model: of `readable`.
        log: from `make_log`.

    Returns:
        The network and the parser, which must live until the network has been built.

    Raises:
        ExportError: TensorRT cannot parse it; names every node that it complains of.
    """
    network = builder.create_network(_creation_flags(trt, features, strategy))
    _require_typing(trt, network, features, strategy)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        complaints = "; ".join(_complaints(parser, features, model)) or "it gives no reason"
        raise ExportError(
            f"TensorRT {features.version} cannot parse the {graph} in dialect "
            f"{strategy.dialect}: {complaints}. Check it: fundus-export check BUNDLE --dialect "
            f"{strategy.dialect}"
        )
    return network, parser


def profile_shapes(network: Any, graph: str, max_batch: int) -> dict[str, ProfileShape]:
    """The shapes of each input: batches from 1 to `max_batch`, best at one pair."""
    best = min(_OPT_BATCH[graph], max_batch)
    shapes = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        _, *row = tuple(tensor.shape)
        shapes[tensor.name] = ProfileShape((1, *row), (best, *row), (max_batch, *row))
    return shapes


def make_config(
    trt: Any,
    builder: Any,
    features: Features,
    strategy: Strategy,
    options: EngineOptions,
    shapes: Mapping[str, ProfileShape],
) -> Any:
    """The builder's configuration, timing cache and progress monitor left out.

    Raises:
        ExportError: an option is not one that this TensorRT has.
    """
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * 1_000_000)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if features.tf32:
        change = config.set_flag if strategy.tf32 else config.clear_flag
        change(trt.BuilderFlag.TF32)
    for name in strategy.flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    _choose_level(config, features, options)
    _choose_sources(trt, config, features, options)
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape.smallest, shape.best, shape.largest)
    config.add_optimization_profile(profile)
    return config


def constrain_layers(trt: Any, network: Any, precisions: Mapping[str, str]) -> int:
    """Tell every layer of a weakly typed network the precision that the graph has there.

    Args:
        trt: TensorRT's module.
        network: parsed.
        precisions: `fp16` or `fp32` of each node that computes on floating point. Other layers
            move shapes and indices, and 8.6 fails on them when they are constrained.

    Returns:
        How many layers were told.
    """
    types = {"fp16": trt.DataType.HALF, "fp32": trt.DataType.FLOAT}
    told = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.name in precisions:
            layer.precision = types[precisions[layer.name]]
            told += 1
    return told


def _creation_flags(trt: Any, features: Features, strategy: Strategy) -> int:
    """The bits of the flags; their numbers differ between versions."""
    flags = trt.NetworkDefinitionCreationFlag
    bits = 0
    if features.explicit_batch:
        bits |= 1 << int(flags.EXPLICIT_BATCH)
    if strategy.typing == "strong typing":
        bits |= 1 << int(flags.STRONGLY_TYPED)
    return bits


def _require_typing(trt: Any, network: Any, features: Features, strategy: Strategy) -> None:
    """Ask the network itself whether it is strongly typed, where it can be asked."""
    if strategy.typing != "strong typing" or not hasattr(network, "get_flag"):
        return
    if not network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
        raise ExportError(
            f"TensorRT {features.version} made a weakly typed network although a strongly typed "
            "one was asked for, so that it would choose precisions itself; use another version"
        )


def _complaints(parser: Any, features: Features, model: onnx.ModelProto) -> list[str]:
    """Every error of the parser with its node's name, operator and the reason."""
    nodes = model.graph.node
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name, operator = "", ""
        if features.parser_names_nodes:
            name, operator = error.node_name(), error.node_operator()
        elif 0 <= error.node() < len(nodes):
            name, operator = nodes[error.node()].name, nodes[error.node()].op_type
        found.append(f"node {name or error.node()} ({operator or 'unknown'}): {error.desc()}")
    return found


def _choose_level(config: Any, features: Features, options: EngineOptions) -> None:
    if options.optimization_level is None:
        return
    if not features.optimization_level:
        raise ExportError(
            f"TensorRT {features.version} has no optimisation levels, which came with 8.6; leave "
            "--opt-level out"
        )
    config.builder_optimization_level = options.optimization_level


def _choose_sources(trt: Any, config: Any, features: Features, options: EngineOptions) -> None:
    if options.tactic_sources is None:
        return
    if unknown := sorted(set(options.tactic_sources) - set(features.tactic_sources)):
        raise ExportError(
            f"TensorRT {features.version} has no tactic sources {', '.join(unknown)}; it has "
            f"{', '.join(features.tactic_sources)}"
        )
    bits = sum(1 << int(getattr(trt.TacticSource, name)) for name in set(options.tactic_sources))
    if not config.set_tactic_sources(bits):
        raise ExportError(
            f"TensorRT {features.version} refused the tactic sources "
            f"{', '.join(options.tactic_sources)}; leave --tactic-sources out"
        )
