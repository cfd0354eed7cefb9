"""Check the graphs of a bundle, with what its recipe allows; needs neither torch nor an engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from fundus_export.bundle_files import RECIPE_NAME
from fundus_export.dialect_check.check import check_dialect, model_from_bytes
from fundus_export.dialect_check.findings import Finding
from fundus_export.dialect_check.islands import islands_around
from fundus_export.dialect_check.pairs import raised_layers
from fundus_export.dialect_check.view import GraphView
from fundus_export.errors import ExportError
from fundus_runtime.bundle import Bundle
from fundus_runtime.manifest import GraphPair

__all__ = ["CheckedGraph", "check_bundle", "check_bytes", "check_form"]

_LARGEST = 2  # of what a recipe keeps of a tensor: low, high, largest, means


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


def check_form(bundle: Bundle, form: GraphPair) -> Iterator[CheckedGraph]:
    """Check one form's encoder and head.

    Around tensors that lay beyond FP16's safe range when the bundle was calibrated, the graph may
    compute in FP32.

    Raises:
        ExportError: the dialect is unknown, or a file is no graph or no recipe.
    """
    largest = _largest_seen(bundle)
    files = {"encoder": form.encoder, "head": form.head}
    for part, data in zip(files, bundle.graph_bytes(form), strict=True):
        name = PurePosixPath(files[part]).name
        yield check_bytes(data, name, form.dialect, largest=largest.get(part))


def check_bytes(
    data: bytes, name: str, dialect: str, *, largest: Mapping[str, float] | None = None
) -> CheckedGraph:
    """Check a serialised graph.

    Args:
        data: the bytes.
        name: what to call it.
        dialect: to check it against.
        largest: the largest magnitude that a calibration saw, by tensor.

    Raises:
        ExportError: the bytes are no ONNX model, or there is no such dialect.
    """
    model = model_from_bytes(data, name)
    view = GraphView(model)
    islands = islands_around(view, largest or {}) if view.fault is None else ()
    findings = check_dialect(model, dialect, graph=name, islands=islands)
    raised = raised_layers(view) if dialect.startswith("int8") and view.fault is None else ()
    return CheckedGraph(name, dialect, findings, raised)


def _largest_seen(bundle: Bundle) -> dict[str, dict[str, float]]:
    """The largest magnitude that a calibration saw, by part and tensor; empty without a recipe.

    Only this is read of the recipe, whose own reader needs the training framework.
    """
    if RECIPE_NAME not in bundle.manifest.files:
        return {}
    try:
        ranges = json.loads(bundle.file(RECIPE_NAME).read_bytes())["ranges"]
        return {
            part: {name: float(measured[_LARGEST]) for name, measured in tensors.items()}
            for part, tensors in ranges.items()
        }
    except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        raise ExportError(
            f"{bundle.path / RECIPE_NAME} is no recipe: {type(error).__name__}, {error}; export "
            "the bundle again"
        ) from error
