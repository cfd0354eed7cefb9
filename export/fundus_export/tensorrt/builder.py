"""Builds a bundle's plans for this device, holds them to the graphs and to the validated model.

    bundle (verified) -> dialect, enough golden pairs -> network -> plan -> inspector
    -> golden pairs -> certificate -> the plans' cache

Nothing is written before everything has passed. The timing cache alone is saved at once, since
what was measured stays true whatever becomes of the plan.
"""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import replace
from typing import Any

from fundus_export.errors import ExportError
from fundus_export.tensorrt.checks import Certify, answer_golden_pairs, require_golden_pairs
from fundus_export.tensorrt.dialect import require_dialect
from fundus_export.tensorrt.layers import inspect_engine, read_layers
from fundus_export.tensorrt.machine import Machine, alone_on
from fundus_export.tensorrt.network import (
    constrain_layers,
    make_builder,
    make_config,
    parse_network,
    profile_shapes,
    readable,
)
from fundus_export.tensorrt.options import EngineOptions
from fundus_export.tensorrt.products import Product, float_nodes, products_of
from fundus_export.tensorrt.progress import BuildProgress, attach_monitor, run_showing
from fundus_export.tensorrt.report import EngineReport, PlanReport
from fundus_export.tensorrt.strategy import Strategy, choose_strategy, dialect_of
from fundus_export.tensorrt.timing_cache import load_timing_cache, save_timing_cache
from fundus_export.tensorrt.verdict import PrecisionVerdict, judge
from fundus_runtime.backends.tensorrt import TensorRTBackend
from fundus_runtime.backends.tensorrt_install import make_log, refusal
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.errors import PlanError
from fundus_runtime.manifest import GraphPair
from fundus_runtime.plan_key import PlanKey
from fundus_runtime.plan_writer import write_plans
from fundus_runtime.plans import GRAPHS, plans_folder, read_plans, read_report
from fundus_runtime.version import __version__

__all__ = ["build_engine"]

_LOG = logging.getLogger(__name__)


def build_engine(
    bundle: Bundle,
    options: EngineOptions,
    machine: Machine,
    *,
    certify: Certify | None = None,
    force: bool = False,
) -> EngineReport:
    """Build, check and store the plans of a bundle for this device.

    Args:
        bundle: verified.
        options: how to build.
        machine: TensorRT and the GPU; the GPU is closed at the end.
        certify: makes the certificate with the engine; None to run the golden pairs alone.
        force: build although there are plans for this device already.

    Returns:
        What was made and where it lies.

    Raises:
        ExportError: the bundle lacks the dialect or breaks its rules, has too few golden pairs,
            TensorRT cannot build it, a product runs in another precision than the graph's, or the
            engine answers otherwise than the validated model. The previous plans are as they were.
        EngineError: TensorRT failed.
        PlanError: the plans cannot be written.
    """
    try:
        strategy = choose_strategy(machine.features, options.precision)
        pair = dialect_of(bundle, strategy)
        key = PlanKey(
            machine.device, options.precision, pair.dialect, options.max_batch, bundle.sha256
        )
        _require_free(bundle, key, force=force)
        require_dialect(bundle, pair)
        require_golden_pairs(bundle, pair)
        with alone_on(plans_folder(bundle)):
            plans, reports = _build_both(bundle, pair, strategy, options, machine)
            report = EngineReport(
                bundle={
                    "name": bundle.manifest.name,
                    "version": bundle.manifest.version,
                    "trust": bundle.trust,
                },
                key=key,
                tools={
                    "fundus_edge": __version__,
                    "python": platform.python_version(),
                    "device_memory": machine.gpu.library,
                },
                strategy=strategy,
                options=options,
                plans=reports,
                **_answers(bundle, pair, plans, options, machine, certify),
            )
            folder = write_plans(bundle, key, plans, report.to_dict())
            _require_readable(bundle, key)
            return replace(report, folder=folder)
    finally:
        machine.gpu.close()


def _require_free(bundle: Bundle, key: PlanKey, *, force: bool) -> None:
    folder = plans_folder(bundle) / key.folder_name
    try:
        read_report(folder)
    except PlanError:
        return
    if not force:
        raise ExportError(
            f"there are plans for this device already, in {folder}; use them, or build again with "
            "--force"
        )


def _require_readable(bundle: Bundle, key: PlanKey) -> None:
    """Read back what was written as the runtime will, which loads none of an unsigned bundle."""
    if bundle.trust != "unsigned":
        read_plans(bundle, key.device, precision=key.precision, max_batch=key.max_batch)


def _build_both(
    bundle: Bundle,
    pair: GraphPair,
    strategy: Strategy,
    options: EngineOptions,
    machine: Machine,
) -> tuple[dict[str, bytes], dict[str, PlanReport]]:
    plans, reports = {}, {}
    for graph, data in zip(GRAPHS, bundle.graph_bytes(pair), strict=True):
        plans[graph], reports[graph] = _build(graph, data, strategy, options, machine)
    if found := [v for report in reports.values() for v in report.verdict.violations]:
        listed = "; ".join(violation.in_words() for violation in found)
        raise ExportError(
            f"{len(found)} convolutions or matrix products run in another precision than the "
            f"graph's: {listed}. The plans are not kept"
        )
    return plans, reports


def _build(
    graph: str, data: bytes, strategy: Strategy, options: EngineOptions, machine: Machine
) -> tuple[bytes, PlanReport]:
    """One plan, inspected."""
    from fundus_export.graph_view import GraphView

    trt, features, log = machine.trt, machine.features, make_log(machine.trt)
    model = readable(data, strategy, f"the {graph}")
    view = GraphView(model)
    builder = make_builder(trt, log)
    # the parser owns memory that the network reads until it has been built
    network, _parser = parse_network(trt, builder, features, strategy, graph, model, log)
    shapes = profile_shapes(network, graph, options.max_batch)
    config = make_config(trt, builder, features, strategy, options, shapes)
    if strategy.constrain_layers:
        told = constrain_layers(trt, network, float_nodes(view))
        _LOG.info("%s: %d layers are told the graph's precision", graph, told)
    load_timing_cache(config, options.timing_cache, log)
    start = time.monotonic()
    plan = _serialised(graph, builder, network, config, machine, log)
    seconds = time.monotonic() - start
    save_timing_cache(config, options.timing_cache)
    best = {name: shape.best for name, shape in shapes.items()}
    verdict, memory = _inspected(graph, plan, products_of(view), best, strategy, machine, log)
    return plan, PlanReport(
        onnx_sha256=sha256_hex(data),
        plan_sha256=sha256_hex(plan),
        plan_bytes=len(plan),
        build_seconds=seconds,
        device_memory_bytes=memory,
        verdict=verdict,
    )


def _serialised(
    graph: str, builder: Any, network: Any, config: Any, machine: Machine, log: Any
) -> bytes:
    progress = BuildProgress()
    reports = machine.features.progress_monitor
    # TensorRT calls the monitor without holding it
    _monitor = attach_monitor(machine.trt, config, progress) if reports else None
    plan = run_showing(
        f"building the {graph}",
        lambda: builder.build_serialized_network(network, config),
        progress,
        stops=reports,
    )
    if plan is None:
        raise refusal(f"building the {graph}", log.messages)
    return bytes(plan)


def _inspected(
    graph: str,
    plan: bytes,
    products: tuple[Product, ...],
    shapes: dict[str, tuple[int, ...]],
    strategy: Strategy,
    machine: Machine,
    log: Any,
) -> tuple[PrecisionVerdict, int]:
    """What the inspector says of a plan that was built a moment ago, and the memory it runs in."""
    runtime = machine.trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise refusal(f"loading the {graph}'s plan", log.messages)
    information = inspect_engine(machine.trt, engine, shapes)
    layers = read_layers(information, [product.name for product in products])
    return judge(products, layers, strategy), _memory(engine)


def _memory(engine: Any) -> int:
    """Bytes of a context; the attribute was renamed in 10 and its old name went in 11."""
    size = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if size is None else size)


def _answers(
    bundle: Bundle,
    pair: GraphPair,
    plans: dict[str, bytes],
    options: EngineOptions,
    machine: Machine,
    certify: Certify | None,
) -> dict[str, Any]:
    """What the plans answer, asked through the runtime's own backend."""
    backend = TensorRTBackend(
        plans["encoder"],
        plans["head"],
        size=bundle.manifest.spec.size,
        class_count=len(bundle.manifest.classes),
        max_batch=options.max_batch,
        device=machine.gpu,
    )
    try:
        golden = answer_golden_pairs(bundle, pair, backend)
        return {
            "golden": golden,
            "certificate": None if certify is None else certify(backend),
        }
    finally:
        backend.close()
