"""Check the graphs of a bundle, with what its recipe allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from fundus_export.dialect_check.check import check_dialect, model_from_bytes
from fundus_export.dialect_check.findings import Finding
from fundus_export.dialect_check.pairs import products, raised_layers
from fundus_export.dialect_check.view import GraphView
from fundus_export.errors import ExportError
from fundus_export.half import LARGEST_SAFE
from fundus_export.quantise.recipe import RECIPE_NAME, Recipe
from fundus_runtime.bundle import Bundle
from fundus_runtime.manifest import GraphPair

__all__ = ["CheckedGraph", "check_bundle", "check_bytes"]


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

    Products that the bundle's recipe saw beyond FP16's range may compute in FP32.

    Raises:
        ExportError: the bundle has no graphs of that dialect, or a file is no graph.
    """
    forms = [form for form in bundle.manifest.graphs.values() if dialect in (None, form.dialect)]
    if not forms:
        there = ", ".join(sorted(form.dialect for form in bundle.manifest.graphs.values()))
        raise ExportError(f"{bundle.path} has no graphs of the dialect {dialect!r}; it has {there}")
    recipe = _recipe(bundle)
    for form in forms:
        yield from _check_form(bundle, form, recipe)


def check_bytes(
    data: bytes, name: str, dialect: str, *, largest: dict[str, float] | None = None
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
    findings = check_dialect(model, dialect, graph=name, islands=_islands(view, largest or {}))
    raised = raised_layers(view) if dialect.startswith("int8") and view.fault is None else ()
    return CheckedGraph(name, dialect, findings, raised)


def _check_form(bundle: Bundle, form: GraphPair, recipe: Recipe | None) -> Iterator[CheckedGraph]:
    files = {"encoder": form.encoder, "head": form.head}
    for part, data in zip(files, bundle.graph_bytes(form), strict=True):
        largest = None if recipe is None else recipe.largest(part)
        name = PurePosixPath(files[part]).name
        yield check_bytes(data, name, form.dialect, largest=largest)


def _recipe(bundle: Bundle) -> Recipe | None:
    if RECIPE_NAME not in bundle.manifest.files:
        return None
    return Recipe.from_bytes(bundle.file(RECIPE_NAME).read_bytes(), where=RECIPE_NAME)


def _islands(view: GraphView, largest: dict[str, float]) -> tuple[str, ...]:
    return tuple(
        product.node.name
        for product in products(view)
        if largest.get(product.node.output[0], 0.0) > LARGEST_SAFE
    )
