"""What the checker says of a graph, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fundus_export.dialect_check.traits import Traits
from fundus_export.dialect_check.view import UntrustedView

__all__ = ["Breach", "Finding", "Rule", "dialect_rule", "rule"]


@dataclass(frozen=True)
class Finding:
    """One place where a graph breaks a rule of its dialect.

    Attributes:
        graph: which graph, as the caller named it.
        node: the node, or the tensor or property where no node is to blame.
        rule: the rule's id.
        mend: what was found, what is expected, what to do.
    """

    graph: str
    node: str
    rule: str
    mend: str

    def __str__(self) -> str:
        return f"{self.graph}: {self.node}: {self.rule}: {self.mend}"


class Breach(NamedTuple):
    """What a rule found: `node` and `mend` of a `Finding`."""

    node: str
    mend: str


PlainSearch = Callable[[UntrustedView], Iterator[Breach]]
Search = Callable[[UntrustedView, Traits], Iterator[Breach]]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: stable, for people and programs.
        demand: what a graph must be, in one line.
        source: where the rule comes from.
        search: finds where a graph breaks it.
    """

    id: str
    demand: str
    source: str
    search: Search


def rule(id_: str, demand: str, *, source: str) -> Callable[[PlainSearch], Rule]:
    """Make a `Rule` of a search that is the same in every dialect."""
    return lambda search: Rule(id_, demand, source, lambda view, _: search(view))


def dialect_rule(id_: str, demand: str, *, source: str) -> Callable[[Search], Rule]:
    """Make a `Rule` of a search that looks at what sets the dialect apart."""
    return lambda search: Rule(id_, demand, source, search)
