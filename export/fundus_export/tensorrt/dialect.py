"""Holds a bundle's graphs to the rules of their dialect, on a machine that may have no torch."""

from __future__ import annotations

from fundus_export.errors import ExportError
from fundus_runtime.bundle import Bundle
from fundus_runtime.manifest import GraphPair

__all__ = ["require_dialect"]

_SHOWN = 8


def require_dialect(bundle: Bundle, pair: GraphPair) -> None:
    """Check both graphs of a form.

    Raises:
        ExportError: a rule is broken; names the nodes.
    """
    from fundus_export.dialect_check.bundles import check_form

    findings = [finding for graph in check_form(bundle, pair) for finding in graph.findings]
    if findings:
        shown = "; ".join(str(finding) for finding in findings[:_SHOWN])
        more = f"; and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
        raise ExportError(
            f"the {pair.name} graphs of {bundle.path} break their dialect's rules: {shown}{more}; "
            "export the bundle again"
        )
