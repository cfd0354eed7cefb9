"""The forms of a model in a bundle: each dialect written, checked, and certified on evidence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from fundus_export.certificate import (
    Certificate,
    CertificateLimits,
    Evidence,
    LayerError,
    Subject,
    certify_backend,
    measure_layer_errors,
    onnxruntime_in_words,
    open_on_cpu,
)
from fundus_export.dialect_check import check_dialect
from fundus_export.errors import ExportError
from fundus_export.graph_view import GraphView
from fundus_export.graphs import GraphBytes
from fundus_export.half import island_of
from fundus_export.quantise.dialects import write_dialect
from fundus_export.quantise.recipe import PARTS, Recipe
from fundus_export.quantise.scheme import INT8_DIALECTS
from fundus_export.sensitivity import Probe, raise_until_certified
from fundus_runtime import _native
from fundus_runtime.canonical import sha256_hex
from fundus_training.checkpoint import Checkpoint

__all__ = ["Form", "FormPlan", "write_forms"]

_LOG = logging.getLogger(__name__)

_RESAMPLES = 1000
_LAYER_PAIRS = 24


@dataclass(frozen=True)
class Form:
    """One dialect of the model.

    Attributes:
        dialect: its name.
        graphs: encoder and head.
        certificate: None where there was no evidence.
        raised: products that the search put into higher precision.
        looks: certificates that the search made.
    """

    dialect: str
    graphs: GraphBytes
    certificate: Certificate | None = None
    raised: tuple[str, ...] = ()
    looks: int = 0


@dataclass(frozen=True)
class FormPlan:
    """What to write and how to judge it.

    Attributes:
        dialects: in the bundle's order.
        recipe: of INT8; None where there is no INT8.
        evidence: patients to certify on, or None.
        probe: what a search ranks products on; None makes none.
        limits: of the certificates.
    """

    dialects: Sequence[str] = ("fp32",)
    recipe: Recipe | None = None
    evidence: Evidence | None = None
    probe: Probe | None = None
    limits: CertificateLimits = field(default_factory=CertificateLimits)


def write_forms(
    source: GraphBytes,
    plan: FormPlan,
    checkpoint: Checkpoint,
    checkpoint_sha256: str,
    *,
    progress: bool = True,
) -> tuple[tuple[Form, ...], Recipe | None]:
    """Write every dialect of the plan.

    Args:
        source: the FP32 graphs.
        plan: which dialects, and how they are judged.
        checkpoint: that the graphs were exported from.
        checkpoint_sha256: of its file.
        progress: show progress bars on stderr.

    Returns:
        The forms, and the recipe with what a search raised.

    Raises:
        ExportError: a dialect breaks its own rules, or does not keep the limits.
    """
    forms, recipe = [], plan.recipe
    judge = _Judge(source, plan, checkpoint, checkpoint_sha256, progress)
    for dialect in plan.dialects:
        form, recipe = judge.form(dialect, recipe)
        _require_rules(form, source, recipe)
        forms.append(form)
    return tuple(forms), recipe


class _Judge:
    """Writes dialects of one checkpoint and certifies them on the same patients."""

    def __init__(
        self,
        source: GraphBytes,
        plan: FormPlan,
        checkpoint: Checkpoint,
        checkpoint_sha256: str,
        progress: bool,
    ) -> None:
        self._source, self._plan, self._checkpoint = source, plan, checkpoint
        self._checkpoint_sha256 = checkpoint_sha256
        self._progress = progress

    def form(self, dialect: str, recipe: Recipe | None) -> tuple[Form, Recipe | None]:
        if self._plan.evidence is None:
            return Form(dialect, write_dialect(self._source, dialect, recipe)), recipe
        if dialect not in INT8_DIALECTS or recipe is None:
            graphs = write_dialect(self._source, dialect, recipe)
            return Form(dialect, graphs, self._certificate(dialect, graphs, final=True)), recipe
        found = raise_until_certified(
            self._source,
            dialect,
            recipe,
            lambda graphs: self._certificate(dialect, graphs),
            self._plan.probe,
            progress=self._progress,
        )
        certificate = self._certificate(dialect, found.graphs, final=True)
        if found.raised:
            _LOG.info("%s", found.cost)
        form = Form(dialect, found.graphs, certificate, found.raised, found.looks)
        return form, found.recipe

    def _certificate(self, dialect: str, graphs: GraphBytes, *, final: bool = False) -> Certificate:
        """Of these graphs; the last one also ranks the layers and gives the score an interval."""
        evidence, size = self._plan.evidence, self._checkpoint.spec.size
        assert evidence is not None  # asked for only where there is some
        errors: tuple[LayerError, ...] = ()
        if final and dialect != "fp32":
            pairs = list(evidence.patients.complete_pairs(_LAYER_PAIRS))
            errors = measure_layer_errors(self._source, graphs, pairs, progress=self._progress)
        backend, provider = open_on_cpu(
            graphs.encoder,
            graphs.head,
            size=size,
            class_count=len(self._checkpoint.classes),
        )
        try:
            return certify_backend(
                backend,
                evidence,
                self._subject(dialect, graphs, provider),
                limits=self._plan.limits,
                layer_errors=errors,
                resamples=_RESAMPLES if final else 0,
                progress=self._progress,
            )
        finally:
            backend.close()

    def _subject(self, dialect: str, graphs: GraphBytes, provider: str) -> Subject:
        features = _native.cpu_features()
        return Subject(
            dialect=dialect,
            provider=provider,
            engine=onnxruntime_in_words(),
            cpu_features=tuple(sorted(name for name, has in features.items() if has)),
            encoder_sha256=sha256_hex(graphs.encoder),
            head_sha256=sha256_hex(graphs.head),
            checkpoint_sha256=self._checkpoint_sha256,
            preprocess_sha256=self._checkpoint.spec.sha256,
        )


def _require_rules(form: Form, source: GraphBytes, recipe: Recipe | None) -> None:
    models = {part: onnx.load_from_string(getattr(form.graphs, part)) for part in PARTS}
    for part, model in models.items():
        largest = {} if recipe is None else recipe.largest(part)
        findings = check_dialect(
            model,
            form.dialect,
            graph=part,
            islands=island_of(GraphView(onnx.load_from_string(getattr(source, part))), largest),
            raised=() if recipe is None else recipe.raised_in(form.dialect, part),
            beside=models["head" if part == "encoder" else "encoder"],
        )
        if findings:
            first = findings[0]
            raise ExportError(
                f"the {part} in {form.dialect} breaks {len(findings)} rules of its dialect, the "
                f"first at {first.node}: {first.rule}: {first.mend}; this is a fault of the export"
            )
