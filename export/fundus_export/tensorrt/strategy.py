"""Which of a bundle's dialects a precision is built from, and how TensorRT is told.

Where a network can be strongly typed, the graph's own types bind TensorRT and no flag is set. On
8.x there is no such thing: flags allow a precision, and constraints on single layers demand it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Literal

from fundus_export.bundle_files import CHECKPOINT_NAME, RECIPE_NAME
from fundus_export.errors import ExportError
from fundus_export.tensorrt.features import Features
from fundus_export.tensorrt.options import Precision
from fundus_runtime.bundle import Bundle
from fundus_runtime.manifest import GraphPair

__all__ = ["Strategy", "choose_strategy", "dialect_of", "possible_strategies", "typed_strategy"]

Typing = Literal["strong typing", "flags"]

# Later sets are parsed, but not always as they are meant: from 18 on the axes of a mean are an
# input, which 8.5 overlooks, so that it takes the mean of everything.
_LARGEST_OPSET_OF_8 = 17
_TYPED_DIALECT = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "int8": "int8-trt"}
_FLAGS_DIALECT = {**_TYPED_DIALECT, "int8": "int8-trt8"}
_FLAGS: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "tf32": (),
    "fp16": ("FP16", "OBEY_PRECISION_CONSTRAINTS"),
    # 8.x wants its flag even where the graph quantises explicitly
    "int8": ("INT8", "FP16"),
}


@dataclass(frozen=True)
class Strategy:
    """How a precision is built.

    Attributes:
        precision: what was asked for.
        dialect: which of the bundle's graphs.
        typing: whether the graph's types or the builder's flags bind TensorRT.
        flags: the builder's flags to set; none under strong typing.
        tf32: whether TF32 may be used; it is on in TensorRT unless it is cleared.
        constrain_layers: whether every layer is told the precision that the graph has there.
        judges_fp32: whether a product that the graph has in FP32 must run in it; with the flags
            of an INT8 build TensorRT may choose FP16.
        largest_opset: that the parser reads as it is meant; None where there is no such bound.
    """

    precision: Precision
    dialect: str
    typing: Typing
    flags: tuple[str, ...] = ()
    tf32: bool = False
    constrain_layers: bool = False
    judges_fp32: bool = True
    largest_opset: int | None = None

    def in_words(self) -> str:
        """For people: what binds TensorRT."""
        bound = ", ".join(self.flags) or "none"
        if self.typing == "strong typing":
            bound = "the graph's own types"
        tf32 = "TF32 allowed" if self.tf32 else "TF32 cleared"
        return f"{self.typing} ({bound}), {tf32}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"typing": self.typing, "flags": list(self.flags), "tf32": self.tf32}


def choose_strategy(features: Features, precision: Precision) -> Strategy:
    """The strategy for the TensorRT at hand.

    Raises:
        ExportError: it offers neither strong typing nor the flags that are needed.
    """
    if features.strong_typing:
        return typed_strategy(precision)
    strategy = _flags_strategy(precision)
    missing = sorted(set(strategy.flags) - set(features.precision_flags))
    if missing or (strategy.constrain_layers and not features.layer_precision):
        raise ExportError(
            f"TensorRT {features.version} has neither strongly typed networks nor all of what "
            f"{precision} needs instead: {', '.join(missing) or 'a precision for each layer'}; "
            "use TensorRT 8.5, 8.6, or 10 and later"
        )
    return strategy


def possible_strategies(precision: Precision) -> tuple[Strategy, Strategy]:
    """What would be built on TensorRT 10 and later, and on 8.x, where none is at hand to ask."""
    return typed_strategy(precision), _flags_strategy(precision)


def typed_strategy(precision: Precision) -> Strategy:
    """The strategy for strongly typed networks."""
    return Strategy(precision, _TYPED_DIALECT[precision], "strong typing", tf32=precision == "tf32")


def _flags_strategy(precision: Precision) -> Strategy:
    return Strategy(
        precision,
        _FLAGS_DIALECT[precision],
        "flags",
        flags=_FLAGS[precision],
        tf32=precision == "tf32",
        constrain_layers=precision == "fp16",
        judges_fp32=precision != "int8",
        largest_opset=_LARGEST_OPSET_OF_8,
    )


def dialect_of(bundle: Bundle, strategy: Strategy) -> GraphPair:
    """The bundle's graphs of a strategy's dialect.

    Raises:
        ExportError: the bundle has none; says what it has, and how to make a bundle that has.
    """
    graphs = bundle.manifest.graphs
    if strategy.dialect in graphs:
        return graphs[strategy.dialect]
    raise ExportError(
        f"{strategy.precision} by {strategy.typing} is built from the dialect {strategy.dialect}, "
        f"but bundle {bundle.path} has {', '.join(sorted(graphs))}; "
        f"{_make_command(bundle, strategy)}"
    )


def _make_command(bundle: Bundle, strategy: Strategy) -> str:
    if CHECKPOINT_NAME not in bundle.manifest.files:
        return "it carries no checkpoint to make one from: ask for a bundle with this dialect"
    checkpoint, recipe = bundle.path / CHECKPOINT_NAME, bundle.path / RECIPE_NAME
    words = ["fundus-export", "bundle", "--checkpoint", str(checkpoint)]
    words += ["--out", f"{bundle.path}-{strategy.dialect}", "--dialect", strategy.dialect]
    if RECIPE_NAME in bundle.manifest.files and strategy.dialect != "fp32":
        words += ["--recipe", str(recipe)]
    elif strategy.precision == "int8":
        words += ["--calibration", "FOLDER_OF_PHOTOGRAPHS"]
    return f"make one with it where torch is installed: {shlex.join(words)}"
