"""Holds a bundle's graphs to the rules of their dialect, on a machine that may have no torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fundus_export.bundle_files import RECIPE_NAME
from fundus_export.errors import ExportError
from fundus_runtime.bundle import Bundle
from fundus_runtime.manifest import GraphPair
from fundus_runtime.plans import GRAPHS

if TYPE_CHECKING:
    from fundus_export.dialect_check import Finding

__all__ = ["RECIPE_NAME", "require_dialect"]

_LARGEST = 2  # place in the recipe's list of a tensor: low, high, largest, means
_SHOWN = 8


def require_dialect(bundle: Bundle, pair: GraphPair) -> None:
    """Check both graphs of a form.

    Raises:
        ExportError: a rule is broken; names the nodes.
    """
    from fundus_export.dialect_check import GraphView, check_dialect, model_from_bytes
    from fundus_export.dialect_check.islands import islands_around

    seen = _largest_seen(bundle)
    findings: list[Finding] = []
    for graph, data in zip(GRAPHS, bundle.graph_bytes(pair), strict=True):
        model = model_from_bytes(data, f"the {graph} of {bundle.path}")
        islands = islands_around(GraphView(model), seen.get(graph, {}))
        findings += check_dialect(model, pair.dialect, graph=graph, islands=islands)
    if findings:
        shown = "; ".join(str(finding) for finding in findings[:_SHOWN])
        more = f"; and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
        raise ExportError(
            f"the {pair.name} graphs of {bundle.path} break their dialect's rules: {shown}{more}; "
            "export the bundle again"
        )


def _largest_seen(bundle: Bundle) -> dict[str, dict[str, float]]:
    """The largest magnitude that a calibration saw of each tensor, by graph; empty without one.

    Read from the recipe's JSON as it is: its own reader belongs to the quantiser, which needs an
    engine and a training framework that a robot lacks.
    """
    if RECIPE_NAME not in bundle.manifest.files:
        return {}
    try:
        values: dict[str, Any] = json.loads(bundle.file(RECIPE_NAME).read_bytes())
        return {
            graph: {name: float(found[_LARGEST]) for name, found in tensors.items()}
            for graph, tensors in values["ranges"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ExportError(
            f"{bundle.path}/{RECIPE_NAME} is no recipe ({type(error).__name__}: {error}); "
            "export the bundle again"
        ) from error
