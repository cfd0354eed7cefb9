"""Holds an engine to its graph: every product runs in the precision that the graph gives it.

A product that runs wider than the graph says is slower than was bought; one that runs narrower
computes what nobody validated. Either is a violation. Other layers are listed, not judged: a real
INT8 engine has FP16 and FP32 layers. What TensorRT does not tell of is counted as untold, which is
no proof of anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fundus_export.tensorrt.layers import RANK, Layer
from fundus_export.tensorrt.products import Product
from fundus_export.tensorrt.strategy import Strategy

__all__ = ["PrecisionVerdict", "Violation", "judge"]


@dataclass(frozen=True)
class Violation:
    """A product that runs in another precision than the graph's.

    Attributes:
        node: of the graph.
        wanted: the graph's precision.
        ran: the engine's.
        layer: of the engine.
        evidence: the inspector's field that says so.
    """

    node: str
    wanted: str
    ran: str
    layer: str
    evidence: str

    def in_words(self) -> str:
        """One line for people."""
        return (
            f"{self.node} is {self.wanted} in the graph but runs in {self.ran} "
            f"(layer {self.layer!r}, {self.evidence})"
        )


@dataclass(frozen=True)
class PrecisionVerdict:
    """What the inspector says of one engine.

    Attributes:
        products: how many products were judged.
        proven: how many run as the graph says.
        violations: those that do not.
        untold: names of those that TensorRT says nothing of.
        layers_by_precision: how many layers of the engine compute in what.
        wider_layers: other layers that run wider than the build's precision, which is allowed.
        layers: all of the engine.
    """

    products: int
    proven: int
    violations: tuple[Violation, ...]
    untold: tuple[str, ...]
    layers_by_precision: Mapping[str, int]
    wider_layers: tuple[str, ...]
    layers: tuple[Layer, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "products": self.products,
            "proven": self.proven,
            "violations": [asdict(violation) for violation in self.violations],
            "untold": list(self.untold),
            "layers_by_precision": dict(self.layers_by_precision),
            "wider_layers": list(self.wider_layers),
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "precision": layer.precision,
                    "evidence": layer.evidence,
                    "nodes": list(layer.nodes),
                }
                for layer in self.layers
            ],
        }


def judge(
    products: Sequence[Product], layers: Sequence[Layer], strategy: Strategy
) -> PrecisionVerdict:
    """Compare the engine's layers with the graph's products.

    Args:
        products: of the graph.
        layers: of the engine, in which the products' names were looked for.
        strategy: how it was built.
    """
    judged = [p for p in products if p.precision != "fp32" or strategy.judges_fp32]
    by_node: dict[str, list[Layer]] = {}
    for layer in layers:
        for node in layer.nodes:
            by_node.setdefault(node, []).append(layer)
    violations: list[Violation] = []
    untold: list[str] = []
    for product in judged:
        found = _decisive(by_node.get(product.name, ()))
        if found is None:
            untold.append(product.name)
        elif not _keeps(product.precision, found.precision, strategy):
            violations.append(
                Violation(
                    product.name, product.precision, found.precision, found.name, found.evidence
                )
            )
    return PrecisionVerdict(
        products=len(judged),
        proven=len(judged) - len(violations) - len(untold),
        violations=tuple(violations),
        untold=tuple(untold),
        layers_by_precision=_count(layers),
        wider_layers=_wider(products, layers, strategy),
        layers=tuple(layers),
    )


def _decisive(layers: Iterable[Layer]) -> Layer | None:
    """The layer that computes a node's product; of several the widest.

    Layers around it, which move its inputs or finish its output, may name the node as well, so
    that they are asked only where no product does.
    """
    told = [layer for layer in layers if layer.precision in RANK and not layer.moves_only]
    candidates = [layer for layer in told if layer.is_product] or told
    return max(candidates, key=lambda layer: RANK[layer.precision], default=None)


def _keeps(wanted: str, ran: str, strategy: Strategy) -> bool:
    if wanted == "fp32" and strategy.tf32:
        return ran in ("fp32", "tf32")
    return ran == wanted


def _count(layers: Iterable[Layer]) -> dict[str, int]:
    counts = Counter(layer.precision for layer in layers if not layer.moves_only)
    moving = sum(layer.moves_only for layer in layers)
    return {**dict(sorted(counts.items())), **({"moves only": moving} if moving else {})}


def _wider(
    products: Sequence[Product], layers: Iterable[Layer], strategy: Strategy
) -> tuple[str, ...]:
    """Layers beside the products that run wider than the build was asked for."""
    asked = RANK[strategy.precision]
    names = {product.name for product in products}
    return tuple(
        f"{layer.precision} {layer.kind} {layer.name}"
        for layer in layers
        if not layer.moves_only
        and RANK.get(layer.precision, asked) > asked
        and not names & set(layer.nodes)
    )
