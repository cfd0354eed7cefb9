"""Decision-bounded mixed precision: the fewest products in higher precision that keep the limits.

Where INT8 decides otherwise more often than the certificate's limits allow, some products are
raised. Which ones is ranked on calibration photographs: each product is raised alone, and what
that takes off the error of features and logits is its gain. Then the products of the largest gain
are raised, one, two, four, ... of them, until the certificate holds, and the smallest number that
holds is looked for between the last two.

The ranking never sees the patients that are judged. The search looks at their certificate a few
times, each time at more raised products; it says how often.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
from tqdm import tqdm

from fundus_export.certificate import Certificate, open_on_cpu
from fundus_export.errors import ExportError
from fundus_export.graph_view import GraphView
from fundus_export.graphs import GraphBytes
from fundus_export.quantise.dialects import product_names, write_dialect
from fundus_export.quantise.placement import multiplications, products
from fundus_export.quantise.recipe import PARTS, Recipe
from fundus_runtime.backends.protocol import Backend
from fundus_runtime.labels import EYES

__all__ = ["Probe", "SearchResult", "raise_until_certified"]

_LOG = logging.getLogger(__name__)

# `int8-trt` has the pairs of `int8-trt8`, which runs several times as fast on a CPU because no FP16
# is emulated.
_RANKED_AS = {"int8-trt": "int8-trt8"}

Floats = npt.NDArray[np.float32]
Certify = Callable[[GraphBytes], Certificate]
Product = tuple[str, str]


@dataclass(frozen=True)
class Probe:
    """What the ranking is measured on.

    Attributes:
        pairs: preprocessed eyes of calibration photographs, 3 x S x S each.
        size: S.
        class_count: K.
    """

    pairs: Sequence[tuple[Floats, Floats]]
    size: int
    class_count: int


@dataclass(frozen=True)
class SearchResult:
    """The dialect that holds, or the best that there is.

    Attributes:
        graphs: encoder and head.
        recipe: with the raised products in it.
        certificate: of these graphs.
        raised: names of the raised products, by falling gain.
        looks: how many certificates were made.
        cost: in words, what raising them costs.
    """

    graphs: GraphBytes
    recipe: Recipe
    certificate: Certificate
    raised: tuple[str, ...]
    looks: int
    cost: str = ""


def raise_until_certified(
    source: GraphBytes,
    dialect: str,
    recipe: Recipe,
    certify: Certify,
    probe: Probe | None,
    *,
    progress: bool = True,
) -> SearchResult:
    """Write a dialect and raise products until its certificate holds.

    Args:
        source: the FP32 graphs.
        dialect: an INT8 dialect.
        recipe: what it has raised already stays raised.
        certify: makes the certificate of graphs of this dialect.
        probe: what to rank products on; None certifies the recipe as it is, without a search.
        progress: show progress bars on stderr.

    Returns:
        The first result that holds; where too few patients are the only miss, or there is no
        probe, what the recipe gives.

    Raises:
        ExportError: not even with every product raised do the limits hold, or only then.
    """
    search = _Search(source, dialect, recipe, certify)
    first = search.look(())
    if probe is None or _holds(first.certificate):
        return first
    _LOG.info("%s misses %s; ranking products", dialect, "; ".join(first.certificate.misses))
    ranked = _ranked(source, dialect, recipe, probe, progress=progress)
    failed, count = 0, 1
    while True:
        count = min(count, len(ranked))
        found = search.look(ranked[:count])
        if _holds(found.certificate):
            break
        if count >= len(ranked):
            raise ExportError(
                f"{dialect} does not keep the limits even with {count} products in higher "
                f"precision: {'; '.join(found.certificate.misses)}; calibrate on more photographs "
                "of the camera in use, or export with --precision fp16"
            )
        failed, count = count, 2 * count
    found = search.fewest(ranked, failed, found)
    if len(found.raised) == len(ranked):
        raise ExportError(
            f"{dialect} keeps the limits only with all of its products in higher precision, "
            f"{', '.join(found.raised)}, which leaves nothing in INT8; calibrate on more "
            "photographs of the camera in use, or export with --precision fp16"
        )
    return found


class _Search:
    """One dialect's certificates, by how many products are raised."""

    def __init__(self, source: GraphBytes, dialect: str, recipe: Recipe, certify: Certify) -> None:
        self._source, self._dialect, self._recipe = source, dialect, recipe
        self._certify = certify
        self._looks = 0

    def look(self, raised: Sequence[Product]) -> SearchResult:
        """The certificate with these products raised, besides those of the recipe."""
        recipe = with_more_raised(self._recipe, self._dialect, raised)
        graphs = write_dialect(self._source, self._dialect, recipe)
        certificate = self._certify(graphs)
        self._looks += 1
        verdict = "; ".join(certificate.misses) or "within the limits"
        _LOG.info("%s, %d products raised: %s", self._dialect, len(raised), verdict)
        names = tuple(name for _, name in raised)
        return SearchResult(graphs, recipe, certificate, names, self._looks)

    def fewest(self, ranked: Sequence[Product], failed: int, found: SearchResult) -> SearchResult:
        """The smallest number of raised products between one that failed and one that held."""
        while len(found.raised) - failed > 1:
            middle = (failed + len(found.raised)) // 2
            tried = self.look(ranked[:middle])
            if _holds(tried.certificate):
                found = tried
            else:
                failed = middle
        return replace(found, looks=self._looks, cost=self._cost(found))

    def _cost(self, found: SearchResult) -> str:
        """What was raised, how much larger the graphs are for it, how much work is done higher."""
        before = write_dialect(self._source, self._dialect, self._recipe)
        larger = _bytes(found.graphs) - _bytes(before)
        share = _share_of_multiplications(
            self._source,
            {
                part: set(found.recipe.raised_in(self._dialect, part))
                - set(self._recipe.raised_in(self._dialect, part))
                for part in PARTS
            },
        )
        return (
            f"{self._dialect}: {len(found.raised)} products in higher precision, "
            f"{', '.join(found.raised)}: {larger / 1e6:+.2f} MB, {share:.1%} of all "
            f"multiplications; {self._looks} certificates were looked at"
        )


def _bytes(graphs: GraphBytes) -> int:
    return len(graphs.encoder) + len(graphs.head)


def _share_of_multiplications(source: GraphBytes, names: Mapping[str, Collection[str]]) -> float:
    """What part of the multiplications these products of encoder and head take."""
    chosen = whole = 0
    for part in PARTS:
        view = GraphView(onnx.load_from_string(getattr(source, part)))
        counts = {node.name: multiplications(view, node) for node in products(view)}
        whole += sum(counts.values())
        chosen += sum(counts[name] for name in names[part])
    return chosen / whole


def with_more_raised(recipe: Recipe, dialect: str, raised: Sequence[Product]) -> Recipe:
    """A recipe with more products raised in a dialect."""
    if not raised:
        return recipe
    return recipe.with_raised(
        dialect,
        {
            part: recipe.raised_in(dialect, part)
            + tuple(name for where, name in raised if where == part)
            for part in PARTS
        },
    )


def _holds(certificate: Certificate) -> bool:
    """Every limit is kept; of too few patients nothing can be proved, whatever the precision."""
    too_few = certificate.patients.complete < certificate.limits.patients
    return certificate.within_limits or too_few


def _ranked(
    source: GraphBytes, dialect: str, recipe: Recipe, probe: Probe, *, progress: bool
) -> list[Product]:
    """Products by what raising each alone takes off the error, the largest first."""
    raised = {part: recipe.raised_in(dialect, part) for part in PARTS}
    ranked_as = _RANKED_AS.get(dialect, dialect)
    stand_in = recipe.with_raised(ranked_as, raised)
    reference = _answers(source, probe)
    before = _error(write_dialect(source, ranked_as, stand_in), reference, probe)
    names = product_names(source, ranked_as)
    products = [(part, name) for part in PARTS for name in names[part] if name not in raised[part]]
    gains = {}
    for product in tqdm(products, desc=f"ranking {dialect}", unit="product", disable=not progress):
        alone = with_more_raised(stand_in, ranked_as, [product])
        gains[product] = before - _error(write_dialect(source, ranked_as, alone), reference, probe)
    return sorted(products, key=lambda product: -gains[product])


def _error(graphs: GraphBytes, reference: tuple[Floats, Floats], probe: Probe) -> float:
    """Noise over signal of the features, and of the logits, added."""
    pairs = zip(_answers(graphs, probe), reference, strict=True)
    return sum(float(np.mean((came - own) ** 2) / np.mean(own**2)) for came, own in pairs)


def _answers(graphs: GraphBytes, probe: Probe) -> tuple[Floats, Floats]:
    """Features of all eyes, and the patients' logits, as an engine for the CPU gives them."""
    backend, _ = open_on_cpu(
        graphs.encoder, graphs.head, size=probe.size, class_count=probe.class_count
    )
    try:
        rows = [_answer(backend, left, right) for left, right in probe.pairs]
    finally:
        backend.close()
    features, logits = zip(*rows, strict=True)
    return np.concatenate(features), np.concatenate(logits)


def _answer(backend: Backend, left: Floats, right: Floats) -> tuple[Floats, Floats]:
    features = backend.encode(np.stack([left, right]), EYES).features
    present = np.ones(1, np.float32)
    return features, backend.fuse(features[:1], features[1:], present, present)
