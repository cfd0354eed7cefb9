"""Write a bundle: graphs, checkpoint, golden pairs, model card, and the manifest over them all.

A bundle appears under its name only when it is whole and has been opened and run once by the
runtime that will use it; until then it lies in a temporary folder beside.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fundus_export.bundle_files import CHECKPOINT_NAME, RECIPE_NAME
from fundus_export.bundle_manifest import BundlePlan, PreparedPairs, bundle_manifest, graph_names
from fundus_export.certificate import open_on_cpu
from fundus_export.certificate.in_bundle import certified_manifest
from fundus_export.errors import ExportError
from fundus_export.forms import Form, write_forms
from fundus_export.golden import golden_files, golden_pairs, require_golden
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.model_card import model_card
from fundus_export.parity import Answers, Parity, answers_of_graphs, answers_of_model, compare
from fundus_export.signing import SigningKey, sign_manifest
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.manifest import MANIFEST_NAME
from fundus_runtime.preprocess import preprocess
from fundus_runtime.screener import Screener
from fundus_runtime.signature import SIGNATURE_NAME
from fundus_runtime.trusted_keys import TrustedKeys
from fundus_training.calibrate import FittedCalibration
from fundus_training.checkpoint import Checkpoint, build_model
from fundus_training.models import DMSNet

__all__ = ["BundlePlan", "PreparedPairs", "write_bundle"]

Tensor = np.ndarray[Any, np.dtype[np.float32]]


def write_bundle(
    plan: BundlePlan, out: Path, *, force: bool = False, key: SigningKey | None = None
) -> Bundle:
    """Export, compare, write, and open what was written.

    Args:
        plan: what to write.
        out: the bundle's folder; its parent must exist.
        force: replace a bundle that is there.
        key: to sign it with; None leaves it unsigned, and refused by robots until it is. Unsigned
            stays, too, what misses a certificate's limit.

    Raises:
        ExportError: the checkpoint is not calibrated, the graphs differ from the model, the
            runtime answers the golden pairs otherwise, or the folder cannot be written; nothing is
            left half-made.
        BundleError: the runtime refuses what was written, which is a fault of the export.
    """
    fitted = _calibration_of(plan.checkpoint)
    _require_replaceable(out, force=force)
    model = build_model(plan.checkpoint)
    source = export_graphs(model)
    golden = golden_pairs()
    left, right = (
        np.stack([preprocess(pair.frame(eye), plan.checkpoint.spec).tensor for pair in golden])
        for eye in ("left", "right")
    )
    parity = _parity(
        model, source, fitted, plan.pairs or PreparedPairs(left, right, "golden pairs")
    )
    forms, recipe = write_forms(
        source, plan.forms, plan.checkpoint, sha256_hex(plan.checkpoint_bytes)
    )
    answers = {form.dialect: _answers(form, model, left, right) for form in forms}
    files = {
        **_graph_files(forms),
        **({} if recipe is None else {RECIPE_NAME: recipe.to_bytes()}),
        CHECKPOINT_NAME: plan.checkpoint_bytes,
        "MODEL_CARD.md": model_card(
            plan.name, plan.checkpoint, plan.evaluations, plan.notes
        ).encode(),
        **golden_files(golden, answers),
    }
    manifest = bundle_manifest(plan, fitted, forms, files, parity)
    certificates = {form.dialect: form.certificate for form in forms if form.certificate}
    files[MANIFEST_NAME] = certified_manifest(manifest, certificates)
    if key is not None and all(one.within_limits for one in certificates.values()):
        files[SIGNATURE_NAME] = sign_manifest(files[MANIFEST_NAME], key).to_bytes()
    return _place(files, out, TrustedKeys() if key is None else key.trusted())


def _graph_files(forms: Sequence[Form]) -> dict[str, bytes]:
    return {
        name: getattr(form.graphs, part)
        for form in forms
        for part, name in graph_names(form.dialect).items()
    }


def _answers(form: Form, model: DMSNet, left: Tensor, right: Tensor) -> Answers:
    """What a form answers the golden pairs: as PyTorch does, or as it was certified on the CPU."""
    if form.dialect == "fp32":
        return answers_of_model(model, left, right)
    backend, _ = open_on_cpu(
        form.graphs.encoder,
        form.graphs.head,
        size=model.config.image_size,
        class_count=model.config.num_classes,
    )
    try:
        return answers_of_graphs(backend, left, right)
    finally:
        backend.close()


def _calibration_of(checkpoint: Checkpoint) -> FittedCalibration:
    if checkpoint.model_config.task != "multi_label":
        raise ExportError(
            "the model was trained with task 'softmax', but a bundle's probabilities are one "
            "sigmoid a class; train with task 'multi_label'"
        )
    if checkpoint.calibration is None:
        raise ExportError(
            "the checkpoint has no calibration and no operating points, so that nothing can be "
            "decided with it; run `fundus-train calibrate` on it first"
        )
    return checkpoint.calibration


def _require_replaceable(out: Path, *, force: bool) -> None:
    if not out.parent.is_dir():
        raise ExportError(f"the folder {out.parent} does not exist; create it first")
    if not out.exists():
        return
    if not force:
        raise ExportError(f"{out} exists; choose another --out, or replace it with --force")
    if not (out / MANIFEST_NAME).is_file():
        raise ExportError(f"{out} is no bundle, so that it is not replaced; choose another --out")


def _parity(
    model: DMSNet, graphs: GraphBytes, fitted: FittedCalibration, pairs: PreparedPairs
) -> Parity:
    backend = OnnxRuntimeBackend(
        graphs.encoder,
        graphs.head,
        size=model.config.image_size,
        class_count=model.config.num_classes,
    )
    try:
        came = answers_of_graphs(backend, pairs.left, pairs.right)
    finally:
        backend.close()
    expected = answers_of_model(model, pairs.left, pairs.right)
    return compare(expected, came, fitted.patient, fitted.eye, source=pairs.source)


def _place(files: Mapping[str, bytes], out: Path, keys: TrustedKeys) -> Bundle:
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ExportError(f"{out.parent} cannot be written: {error}") from error
    try:
        made.chmod(0o755)
        for name, data in files.items():
            target = made / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        # the runtime has the last word on what it is given
        bundle = Bundle.open(made, trusted_keys=keys, require_trust=False)
        _require_golden_answers(bundle)
        _swap(made, out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error}; nothing was left behind") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return replace(bundle, path=out)


def _require_golden_answers(bundle: Bundle) -> None:
    """Screen the golden pairs with every form, from the files, as a robot's CPU would."""
    point = bundle.manifest.operating_points.get()
    for graphs in bundle.manifest.graphs.values():
        backend, _ = open_on_cpu(
            *bundle.graph_bytes(graphs),
            size=bundle.manifest.spec.size,
            class_count=len(bundle.manifest.classes),
        )
        with Screener(bundle, backend, graphs, point) as screener:
            require_golden(bundle, screener)


def _swap(made: Path, out: Path) -> None:
    """Put the new folder in the old one's place; the old one goes only once that has worked."""
    if not out.exists():
        made.rename(out)
        return
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    try:
        made.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
