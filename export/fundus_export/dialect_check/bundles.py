"""Check the graphs of a bundle, with what its recipe allows; needs neither torch nor an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import onnx

from fundus_export.dialect_check.allowances import Allowance, allowances_of
from fundus_export.dialect_check.check import check_dialect, model_from_bytes
from fundus_export.dialect_check.findings import Finding
from fundus_export.dialect_check.islands import islands_around
from fundus_export.dialect_check.pairs import raised_layers
from fundus_export.dialect_check.view import UntrustedView
from fundus_export.errors import ExportError
from fundus_runtime.bundle import Bundle
from fundus_runtime.manifest import GraphPair

__all__ = ["CheckedGraph", "check_bundle", "check_bytes", "check_form"]


@dataclass(frozen=True)
class CheckedGraph:
    """One graph and what the checker said.

    Attributes:
        graph: its file's name.
        dialect: that it was checked against.
        findings: none for a graph that keeps its dialect.
        raised: convolutions and matrix products with weights that are not quantised, where the
            dialect is an INT8 one.
    """

    graph: str
    dialect: str
    findings: tuple[Finding, ...]
    raised: tuple[str, ...]


def check_bundle(bundle: Bundle, dialect: str | None = None) -> Iterator[CheckedGraph]:
    """Check encoder and head of one dialect, or of all that the bundle has.

    Raises:
        ExportError: the bundle has no graphs of that dialect, or a file is no graph.
    """
    forms = [form for form in bundle.manifest.graphs.values() if dialect in (None, form.dialect)]
    if not forms:
        there = ", ".join(sorted(form.dialect for form in bundle.manifest.graphs.values()))
        raise ExportError(f"{bundle.path} has no graphs of the dialect {dialect!r}; it has {there}")
    for form in forms:
        yield from check_form(bundle, form)


def check_form(bundle: Bundle, form: GraphPair) -> tuple[CheckedGraph, ...]:
    """Check one form's encoder and head, with what the bundle's recipe allows.

    Raises:
        ExportError: the dialect is unknown, or a file is no graph or no recipe.
    """
    allowed = allowances_of(bundle, form.dialect)
    names = {"encoder": form.encoder, "head": form.head}
    models = {
        part: model_from_bytes(data, PurePosixPath(names[part]).name)
        for part, data in zip(names, bundle.graph_bytes(form), strict=True)
    }
    return tuple(
        _checked(
            model,
            PurePosixPath(names[part]).name,
            form.dialect,
            allowed[part],
            beside=models["head" if part == "encoder" else "encoder"],
        )
        for part, model in models.items()
    )


def check_bytes(
    data: bytes, name: str, dialect: str, *, largest: Mapping[str, float] | None = None
) -> CheckedGraph:
    """Check a serialised graph on its own.

    Args:
        data: the bytes.
        name: what to call it.
        dialect: to check it against.
        largest: the largest magnitude that a calibration saw, by tensor.

    Raises:
        ExportError: the bytes are no ONNX model, or there is no such dialect.
    """
    return _checked(model_from_bytes(data, name), name, dialect, Allowance(largest or {}))


def _checked(
    model: onnx.ModelProto,
    name: str,
    dialect: str,
    allowed: Allowance,
    *,
    beside: onnx.ModelProto | None = None,
) -> CheckedGraph:
    view = UntrustedView(model)
    islands = islands_around(view, allowed.largest) if view.fault is None else ()
    findings = check_dialect(
        model, dialect, graph=name, islands=islands, raised=allowed.raised, beside=beside
    )
    raised = raised_layers(view) if dialect.startswith("int8") and view.fault is None else ()
    return CheckedGraph(name, dialect, findings, raised)
