"""Which form of the model runs on this processor, by what the bundle declares.

`int8-cpu` graphs sum products of unsigned and signed bytes. Processors with dot-product
instructions (VNNI, or ARM's) sum them exactly; older x86 processors saturate at 16 bits on the way
and answer otherwise than what was certified. Such graphs name the instructions that they need, and
a bundle may declare what runs where they are missing: then that runs, and the result says so.
Nothing else takes their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fundus_runtime import _native
from fundus_runtime.errors import EngineError
from fundus_runtime.manifest import GraphPair, Manifest

__all__ = ["CPU", "CPU_WITHOUT_DOT_PRODUCT", "GraphChoice", "graphs_for_cpu"]

CPU = "cpu"
CPU_WITHOUT_DOT_PRODUCT = "cpu_without_dot_product"


class GraphChoice(NamedTuple):
    """What runs.

    Attributes:
        graphs: the form of the model.
        degraded_reason: why it is not the bundle's first choice; None where it is.
    """

    graphs: GraphPair
    degraded_reason: str | None = None


def graphs_for_cpu(manifest: Manifest, features: Mapping[str, bool] | None = None) -> GraphChoice:
    """The graphs for a CPU.

    Args:
        manifest: of the bundle.
        features: the CPU's vector instructions; None for those of this one.

    Raises:
        BundleError: the bundle has no graphs for a CPU.
        EngineError: the CPU lacks what they need, and the bundle declares nothing else.
    """
    graphs = manifest.graphs_for(CPU)
    has = _native.cpu_features() if features is None else features
    if runs_on(graphs, has):
        return GraphChoice(graphs)
    lacking = f"this processor has none of {', '.join(graphs.cpu_features)}"
    declared = manifest.default_graphs.get(CPU_WITHOUT_DOT_PRODUCT)
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


def runs_on(graphs: GraphPair, features: Mapping[str, bool]) -> bool:
    """Whether a CPU has one of the instructions that the graphs need."""
    return not graphs.cpu_features or any(features.get(name, False) for name in graphs.cpu_features)
