"""From the FP32 graphs and a recipe to the graphs of any dialect: the one quantiser.

Contract: `source` is what `export_graphs` wrote; it is not changed. The same source and recipe give
the same bytes. Inputs and outputs are FP32 in every dialect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import checker, numpy_helper

from fundus_export.errors import ExportError
from fundus_export.graph_view import GraphView
from fundus_export.graphs import GraphBytes
from fundus_export.half import to_half
from fundus_export.islands import island_of, tensors_to_watch
from fundus_export.opsets import with_opset
from fundus_export.quantise.affinity import sample_affinities
from fundus_export.quantise.placement import place, products
from fundus_export.quantise.qdq import insert_pairs
from fundus_export.quantise.recipe import PARTS, Recipe
from fundus_export.quantise.scheme import DIALECTS, INT8_DIALECTS, scheme_of
from fundus_export.quantise.stem import fold_stem

__all__ = ["measured_tensors", "product_names", "write_dialect"]


def write_dialect(source: GraphBytes, dialect: str, recipe: Recipe | None = None) -> GraphBytes:
    """Encoder and head in a dialect.

    Args:
        source: the FP32 graphs.
        dialect: one of `DIALECTS`.
        recipe: ranges and raised products; INT8 needs one, FP16 takes its magnitudes where there
            is one.

    Raises:
        ExportError: the dialect is unknown, INT8 has no recipe, the recipe is for other graphs or
            raises what they do not have, or a weight is NaN or infinite.
    """
    if dialect not in DIALECTS:
        raise ExportError(f"there is no dialect {dialect!r}; there is {', '.join(DIALECTS)}")
    if recipe is not None:
        recipe.require_for(source)
    models = {part: _loaded(source, part) for part in PARTS}
    if dialect == "fp32":
        return source
    if dialect in INT8_DIALECTS and recipe is None:
        raise ExportError(
            f"the dialect {dialect} needs measured ranges; give photographs to calibrate with: "
            "--calibration DIR"
        )
    written = {part: _write_part(models[part], part, dialect, recipe) for part in PARTS}
    opset = scheme_of(dialect).opset if dialect in INT8_DIALECTS else source.opset
    return GraphBytes(written["encoder"], written["head"], opset)


def measured_tensors(source: GraphBytes) -> dict[str, tuple[str, ...]]:
    """Which tensors of encoder and head a recipe must know, for all dialects together.

    Those that are quantised, for their scales, and all others whose magnitude says whether FP16
    reaches far enough.
    """
    return {part: _tensors_of(_loaded(source, part), part) for part in PARTS}


def product_names(source: GraphBytes, dialect: str) -> dict[str, tuple[str, ...]]:
    """The products of encoder and head that a dialect quantises, in the order of computation."""
    scheme = scheme_of(dialect)
    names = {}
    for part in PARTS:
        view = GraphView(_loaded(source, part))
        quantised = place(view, scheme).quantised
        names[part] = tuple(node.name for node in products(view) if node.name in quantised)
    return names


def _tensors_of(model: onnx.ModelProto, part: str) -> tuple[str, ...]:
    wanted = dict.fromkeys(tensors_to_watch(GraphView(model)))
    for dialect in INT8_DIALECTS:
        view = GraphView(_prepared(model, part, dialect))
        wanted.update(dict.fromkeys(place(view, scheme_of(dialect)).tensors))
    return tuple(wanted)


def _prepared(model: onnx.ModelProto, part: str, dialect: str) -> onnx.ModelProto:
    if dialect == "int8-cpu" and part == "head":
        return sample_affinities(model)
    return model


def _write_part(model: onnx.ModelProto, part: str, dialect: str, recipe: Recipe | None) -> bytes:
    largest: Mapping[str, float] = {} if recipe is None else recipe.largest(part)
    if dialect == "fp16":
        written = to_half(model, island_of(GraphView(model), largest))
    else:
        assert recipe is not None  # write_dialect has checked it
        written = _quantised(_prepared(model, part, dialect), part, dialect, recipe)
        if dialect == "int8-cpu" and part == "encoder":
            written = fold_stem(written)
    checker.check_model(written, full_check=True)
    return bytes(written.SerializeToString(deterministic=True))


def _quantised(model: onnx.ModelProto, part: str, dialect: str, recipe: Recipe) -> onnx.ModelProto:
    scheme = scheme_of(dialect)
    view = GraphView(model)
    raised = recipe.raised_in(dialect, part)
    _require_products(view, part, raised)
    island = island_of(view, recipe.largest(part)) if scheme.half else frozenset()
    placement = place(view, scheme, raised)
    written = insert_pairs(model, placement, recipe.ranges[part], scheme, wide=island)
    written = with_opset(written, scheme.opset)
    return to_half(written, island) if scheme.half else written


def _require_products(view: GraphView, part: str, raised: Collection[str]) -> None:
    unknown = set(raised) - {node.name for node in products(view)}
    if unknown:
        raise ExportError(
            f"the recipe raises {', '.join(sorted(unknown))}, but the {part} has no product of "
            "that name; calibrate again"
        )


def _loaded(source: GraphBytes, part: str) -> onnx.ModelProto:
    """A part of the source, in which every node is known by its name and every weight finite."""
    model = onnx.load_from_string(getattr(source, part))
    names = Counter(node.name for node in model.graph.node)
    doubtful = [name for name, count in names.items() if count > 1 or not name]
    if doubtful:
        raise ExportError(
            f"the {part} has several nodes, or nameless ones, under the name {doubtful[0]!r}; it "
            "is no graph that fundus-export wrote"
        )
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            _require_finite(tensor, part)
    return model


def _require_finite(tensor: onnx.TensorProto, part: str) -> None:
    value = numpy_helper.to_array(tensor)
    bad = value.size - int(np.isfinite(value).sum())
    if bad:
        raise ExportError(
            f"{bad} of the {value.size} numbers in {tensor.name!r} of the {part} are NaN or "
            "infinite; such a model cannot be exported: use another checkpoint"
        )
