"""Write a bundle: graphs, checkpoint, golden pairs, model card, and the manifest over them all.

A bundle appears under its name only when it is whole and has been opened and run once by the
runtime that will use it; until then it lies in a temporary folder beside.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fundus_export.errors import ExportError
from fundus_export.golden import golden_entry, golden_files, golden_pairs, require_golden
from fundus_export.graphs import GraphBytes, export_graphs
from fundus_export.model_card import INTENDED_USE, model_card
from fundus_export.parity import Answers, Parity, answers_of_graphs, answers_of_model, compare
from fundus_export.signing import SigningKey, sign_manifest
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.manifest import BUNDLE_FORMAT, MANIFEST_NAME, SCHEMA_VERSION
from fundus_runtime.preprocess import preprocess
from fundus_runtime.signature import SIGNATURE_NAME
from fundus_runtime.trusted_keys import TrustedKeys
from fundus_runtime.version import __version__
from fundus_training.calibrate import FittedCalibration
from fundus_training.checkpoint import Checkpoint, build_model
from fundus_training.models import DMSNet

__all__ = ["BundlePlan", "PreparedPairs", "write_bundle"]

Tensor = np.ndarray[Any, np.dtype[np.float32]]

_CHECKPOINT_NAME = "checkpoint.safetensors"
_GRAPH_NAMES = {"encoder": "graphs/encoder_fp32.onnx", "head": "graphs/head_fp32.onnx"}


@dataclass(frozen=True)
class PreparedPairs:
    """Preprocessed real eyes to compare the graphs on, N x 3 x S x S each, and where from."""

    left: Tensor
    right: Tensor
    source: str


@dataclass(frozen=True)
class BundlePlan:
    """What a bundle is made of.

    Attributes:
        name: of the bundle.
        bundle_version: of the bundle, not of this package.
        checkpoint: calibrated.
        checkpoint_bytes: the checkpoint's file, which the bundle carries as it is.
        pairs: real pairs for the parity check, or None for the golden ones alone.
        evaluations: reports of `fundus-train evaluate` for manifest and model card.
        notes: sentences for both about where the model comes from.
    """

    name: str
    bundle_version: str
    checkpoint: Checkpoint
    checkpoint_bytes: bytes
    pairs: PreparedPairs | None = None
    evaluations: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()


def write_bundle(
    plan: BundlePlan, out: Path, *, force: bool = False, key: SigningKey | None = None
) -> Bundle:
    """Export, compare, write, and open what was written.

    Args:
        plan: what to write.
        out: the bundle's folder; its parent must exist.
        force: replace a bundle that is there.
        key: to sign it with; None leaves it unsigned, and refused by robots until it is.

    Raises:
        ExportError: the checkpoint is not calibrated, the graphs differ from the model, the
            runtime answers the golden pairs otherwise, or the folder cannot be written; nothing is
            left half-made.
        BundleError: the runtime refuses what was written, which is a fault of the export.
    """
    fitted = _calibration_of(plan.checkpoint)
    _require_replaceable(out, force=force)
    model = build_model(plan.checkpoint)
    graphs = export_graphs(model)
    golden = golden_pairs()
    golden_left, golden_right = (
        np.stack([preprocess(pair.frame(eye), plan.checkpoint.spec).tensor for pair in golden])
        for eye in ("left", "right")
    )
    pairs = plan.pairs or PreparedPairs(golden_left, golden_right, "golden pairs")
    expected = answers_of_model(model, golden_left, golden_right)
    parity = _parity(model, graphs, fitted, pairs)
    files = {
        _GRAPH_NAMES["encoder"]: graphs.encoder,
        _GRAPH_NAMES["head"]: graphs.head,
        _CHECKPOINT_NAME: plan.checkpoint_bytes,
        "MODEL_CARD.md": model_card(
            plan.name, plan.checkpoint, plan.evaluations, plan.notes
        ).encode(),
        **golden_files(golden),
    }
    manifest = _manifest(plan, fitted, graphs, files, parity)
    manifest["golden"] = golden_entry(golden, _golden_answers(expected, fitted))
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    files[MANIFEST_NAME] = (text + "\n").encode()
    if key is not None:
        files[SIGNATURE_NAME] = sign_manifest(files[MANIFEST_NAME], key).to_bytes()
    return _place(files, out, TrustedKeys() if key is None else key.trusted())


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


def _golden_answers(expected: Answers, fitted: FittedCalibration) -> list[dict[str, Any]]:
    point = fitted.points.get()
    letters = fitted.patient.letters
    answers = []
    for row in range(len(expected.both)):
        patient = _by_letter(letters, fitted.patient.apply(expected.both[row]))
        answers.append(
            {
                "probabilities": patient,
                "left_probabilities": _of_eye(fitted, expected.left[row]),
                "right_probabilities": _of_eye(fitted, expected.right[row]),
                "present": [k for k, p in patient.items() if p >= point.threshold_of[k]],
            }
        )
    return answers


def _of_eye(fitted: FittedCalibration, logits: Tensor) -> dict[str, float]:
    """One eye's answer; none where no eye was labelled, since the outputs then mean nothing."""
    return _by_letter(fitted.eye.letters, fitted.eye.apply(logits)) if fitted.eyes else {}


def _by_letter(letters: tuple[str, ...], values: Tensor) -> dict[str, float]:
    return {letter: round(float(value), 7) for letter, value in zip(letters, values, strict=True)}


def _manifest(
    plan: BundlePlan,
    fitted: FittedCalibration,
    graphs: GraphBytes,
    files: Mapping[str, bytes],
    parity: Parity,
) -> dict[str, Any]:
    checkpoint = plan.checkpoint
    return {
        "format": BUNDLE_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "name": plan.name,
        "version": plan.bundle_version,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "model": checkpoint.model_config.to_dict(),
        "classes": checkpoint.classes.to_dict(),
        "preprocess": checkpoint.spec.to_dict(),
        "preprocess_sha256": checkpoint.spec.sha256,
        "graphs": {
            "fp32": {
                **_GRAPH_NAMES,
                "dialect": "fp32",
                "precision": "fp32",
                "opset": graphs.opset,
            }
        },
        "default_graphs": {"cpu": "fp32"},
        "files": {
            name: {"sha256": sha256_hex(data), "bytes": len(data)} for name, data in files.items()
        },
        "calibration": {
            "patient": fitted.patient.to_dict(),
            "eye": fitted.eye.to_dict() if fitted.eyes else None,
            "fitted_on": fitted.fitted_on,
            "patients": fitted.patients,
        },
        "operating_points": fitted.points.to_dict(),
        "training_data": {
            "notes": list(plan.notes),
            "init_weights_sha256": checkpoint.provenance.get("init_weights_sha256"),
            **{
                key: checkpoint.training.get(key)
                for key in (
                    "data_layout",
                    "patients",
                    "positives_in_train",
                    "ungradable_photographs",
                )
            },
        },
        "metrics": {"evaluations": [dict(report) for report in plan.evaluations]},
        "parity": parity.to_dict(),
        "tools": {
            "fundus_edge": __version__,
            **{name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
        },
        "licence": {
            "weights": "research use only; the terms of the training data apply",
            "golden_pictures": "CC0",
        },
        "intended_use": INTENDED_USE,
        "not_a_medical_device": True,
    }


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
        require_golden(bundle)
        _swap(made, out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error}; nothing was left behind") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return replace(bundle, path=out)


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
