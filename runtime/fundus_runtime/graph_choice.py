"""Which form of the model runs on this device, by what the bundle declares.

`int8-cpu` graphs sum products of unsigned and signed bytes. Processors with dot-product
instructions (VNNI, or ARM's) sum them exactly; older x86 processors saturate at 16 bits on the way
and answer otherwise than what was certified. Such graphs name the instructions that they need, and
a bundle may declare what runs where they are missing: then that runs, and the result says so.
Nothing else takes their place.

On a GPU, ONNX Runtime's CUDA provider has no kernels for quantised graphs, and its TensorRT
provider always lets FP32 be multiplied as TF32. Neither is offered under the other's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fundus_runtime import _native
from fundus_runtime.backends.settings import Precision
from fundus_runtime.errors import BundleError, EngineError
from fundus_runtime.manifest import GraphPair, Manifest

__all__ = [
    "CPU",
    "CPU_WITHOUT_DOT_PRODUCT",
    "CUDA",
    "TENSORRT",
    "GraphChoice",
    "graphs_for_cpu",
    "graphs_for_gpu",
]

CPU = "cpu"
CPU_WITHOUT_DOT_PRODUCT = "cpu_without_dot_product"
CUDA = "cuda"
TENSORRT = "tensorrt"

# What each kind of engine runs for a precision, as it is written.
_DIALECTS: Mapping[str, Mapping[str, str]] = {
    CPU: {"int8": "int8-cpu", "fp16": "fp16", "fp32": "fp32"},
    CUDA: {"fp16": "fp16", "fp32": "fp32", "tf32": "fp32"},
    TENSORRT: {"int8": "int8-trt", "fp16": "fp16", "tf32": "fp32"},
}
# What runs where the bundle declares nothing, the fastest first.
_UNDECLARED: Mapping[str, tuple[Precision, ...]] = {
    CUDA: ("fp16", "fp32"),
    TENSORRT: ("int8", "fp16"),
}
_WHY_NOT = {
    (CPU, "tf32"): "CPUs have no TF32; ask for fp32",
    (CUDA, "int8"): (
        "ONNX Runtime's CUDA provider has no kernels for quantised graphs, which would go through "
        "FP32 and be slower than fp16; ask for fp16, or take TensorRT"
    ),
    (TENSORRT, "fp32"): (
        "ONNX Runtime's TensorRT provider always allows TF32; ask for tf32, or take the backend "
        "tensorrt or the provider cuda for fp32"
    ),
}


class GraphChoice(NamedTuple):
    """What runs.

    Attributes:
        graphs: the form of the model.
        degraded_reason: why it is not the bundle's first choice; None where it is.
    """

    graphs: GraphPair
    degraded_reason: str | None = None


def graphs_for_cpu(
    manifest: Manifest,
    features: Mapping[str, bool] | None = None,
    *,
    precision: Precision | None = None,
) -> GraphChoice:
    """The graphs for a CPU.

    Args:
        manifest: of the bundle.
        features: the CPU's vector instructions; None for those of this one.
        precision: this one and no other; None for what the bundle declares.

    Raises:
        BundleError: the bundle has no graphs for a CPU, or none of this precision.
        EngineError: the CPU lacks what they need, and the bundle declares nothing else.
    """
    asked = None if precision is None else _of_precision(manifest, CPU, precision)
    graphs = manifest.graphs_for(CPU) if asked is None else asked
    has = _native.cpu_features() if features is None else features
    if runs_on(graphs, has):
        return GraphChoice(graphs)
    lacking = f"this processor has none of {', '.join(graphs.cpu_features)}"
    declared = None if asked else manifest.default_graphs.get(CPU_WITHOUT_DOT_PRODUCT)
    if declared is None or not runs_on(manifest.graphs[declared], has):
        raise EngineError(
            f"the graphs {graphs.name} of bundle {manifest.name!r} need dot-product instructions, "
            f"and {lacking}; they would answer wrongly here: export the bundle with "
            "--precision fp32"
        )
    return GraphChoice(
        manifest.graphs[declared],
        f"{lacking}, which the graphs {graphs.name} need; {declared} runs instead, as the bundle "
        "declares, and takes longer",
    )


def graphs_for_gpu(
    manifest: Manifest, kind: str, *, precision: Precision | None = None
) -> GraphChoice:
    """The graphs for ONNX Runtime on a GPU.

    Args:
        manifest: of the bundle.
        kind: `CUDA` or `TENSORRT`, the provider.
        precision: this one and no other; None for what the bundle declares under `kind`, else the
            fastest of its forms that the provider runs as it is written.

    Raises:
        BundleError: the bundle has none that the provider runs.
        EngineError: the provider cannot run this precision as it is written.
    """
    if precision is not None:
        return GraphChoice(_of_precision(manifest, kind, precision))
    if kind in manifest.default_graphs:
        return GraphChoice(manifest.graphs_for(kind))
    for fastest in _UNDECLARED[kind]:
        if (graphs := _of_dialect(manifest, _DIALECTS[kind][fastest])) is not None:
            return GraphChoice(graphs)
    raise BundleError(
        f"bundle {manifest.name!r} has {sorted(manifest.graphs)}, of which the provider {kind} "
        f"runs none; export it with {' or '.join(_UNDECLARED[kind])}"
    )


def runs_on(graphs: GraphPair, features: Mapping[str, bool]) -> bool:
    """Whether a CPU has one of the instructions that the graphs need."""
    return not graphs.cpu_features or any(features.get(name, False) for name in graphs.cpu_features)


def _of_precision(manifest: Manifest, kind: str, precision: Precision) -> GraphPair:
    dialect = _DIALECTS[kind].get(precision)
    if dialect is None:
        raise EngineError(f"{precision} does not run on {kind}: {_WHY_NOT[kind, precision]}")
    graphs = _of_dialect(manifest, dialect)
    if graphs is None:
        raise BundleError(
            f"{precision} on {kind} runs the dialect {dialect}, but bundle {manifest.name!r} has "
            f"{sorted(manifest.graphs)}; export it with that dialect"
        )
    return graphs


def _of_dialect(manifest: Manifest, dialect: str) -> GraphPair | None:
    return next((pair for pair in manifest.graphs.values() if pair.dialect == dialect), None)
