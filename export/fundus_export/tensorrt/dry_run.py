"""What a build would do, found out without a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fundus_export.errors import ExportError
from fundus_export.tensorrt.checks import require_golden_pairs
from fundus_export.tensorrt.dialect import require_dialect
from fundus_export.tensorrt.features import Features, probe
from fundus_export.tensorrt.memory import estimate_memory
from fundus_export.tensorrt.network import readable
from fundus_export.tensorrt.options import EngineOptions
from fundus_export.tensorrt.products import count_by_precision, products_of
from fundus_export.tensorrt.strategy import (
    Strategy,
    choose_strategy,
    dialect_of,
    possible_strategies,
)
from fundus_runtime.backends.tensorrt_install import import_tensorrt, require_gpu
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineMissingError
from fundus_runtime.manifest import GraphPair
from fundus_runtime.plans import GRAPHS, plans_folder

__all__ = ["dry_run"]


def dry_run(bundle: Bundle, options: EngineOptions, data: Path | None) -> str:
    """Verify, choose and count; say what the build will do and what is missing for it.

    Raises:
        ExportError: no strategy that could apply finds its dialect in the bundle, with graphs that
            keep its rules and enough golden pairs.
    """
    lines = [
        f"{bundle.path}: {bundle.manifest.name} {bundle.manifest.version}, verified, "
        f"{bundle.trust}, manifest sha256 {bundle.sha256}"
    ]
    features, said = _features()
    lines += said
    strategies: Iterable[Strategy]
    if features is None:
        strategies = possible_strategies(options.precision)
    else:
        strategies = (choose_strategy(features, options.precision),)
    lines += _strategies(bundle, options, strategies)
    lines += [
        f"plans would go to {plans_folder(bundle)}",
        f"workspace up to {options.workspace_mb} MB; timing cache: "
        f"{options.timing_cache or 'none'}",
        "then: the inspector, the bundle's golden pairs"
        + (", the certificate" if data is not None else "; no certificate without --data"),
        "nothing was built or written",
    ]
    return "\n".join(lines)


def _features() -> tuple[Features | None, list[str]]:
    try:
        features = probe(import_tensorrt())
    except EngineMissingError as error:
        return None, [f"missing: {error}"]
    said = [f"TensorRT {features.version}: {_abilities(features)}"]
    try:
        require_gpu()
    except EngineMissingError as error:
        said.append(f"missing: {error}")
    return features, said


def _abilities(features: Features) -> str:
    words = {
        "strongly typed networks": features.strong_typing,
        f"flags {', '.join(features.precision_flags)}": bool(features.precision_flags),
        "optimisation levels": features.optimization_level,
        "progress": features.progress_monitor,
    }
    return ", ".join(word for word, there in words.items() if there)


def _strategies(
    bundle: Bundle, options: EngineOptions, strategies: Iterable[Strategy]
) -> list[str]:
    lines, problems = [], []
    for strategy in strategies:
        try:
            pair = dialect_of(bundle, strategy)
            require_dialect(bundle, pair)
            golden = require_golden_pairs(bundle, pair)
            graphs = _graphs(bundle, pair, strategy, options)
        except ExportError as error:
            problems.append(str(error))
            continue
        lines.append(
            f"{options.precision} from dialect {pair.name} by {strategy.in_words()}, as on "
            f"TensorRT {'8' if strategy.typing == 'flags' else '10 and later'}"
        )
        lines += [*graphs, f"  {golden} golden pairs"]
    if not lines:
        raise ExportError("; ".join(problems))
    return [*lines, *(f"not there: {problem}" for problem in problems)]


def _graphs(
    bundle: Bundle, pair: GraphPair, strategy: Strategy, options: EngineOptions
) -> list[str]:
    from fundus_export.graph_view import GraphView

    lines = []
    for graph, data in zip(GRAPHS, bundle.graph_bytes(pair), strict=True):
        view = GraphView(readable(data, strategy, f"the {graph}"))
        counts = count_by_precision(products_of(view))
        memory = estimate_memory(view, options.max_batch)
        marked = ", ".join(f"{count} {precision}" for precision, count in counts.items())
        lines.append(
            f"  {graph:<8}{len(view.nodes)} nodes; convolutions and matrix products: {marked}; "
            f"batches 1 to {options.max_batch}; weights {memory.weights / 1e6:.1f} MB, "
            f"activations at most {memory.activations / 1e6:.1f} MB"
        )
    return lines
