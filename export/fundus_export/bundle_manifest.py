"""What a bundle is made of, and the manifest that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import numpy as np

from fundus_export.forms import Form, FormPlan
from fundus_export.golden import golden_entry
from fundus_export.library_versions import onnxruntime_version
from fundus_export.model_card import INTENDED_USE
from fundus_export.parity import Parity
from fundus_export.quantise.recipe import PARTS
from fundus_export.quantise.scheme import precision_of
from fundus_runtime.canonical import sha256_hex
from fundus_runtime.graph_choice import CPU, CPU_WITHOUT_DOT_PRODUCT
from fundus_runtime.manifest import BUNDLE_FORMAT, SCHEMA_VERSION
from fundus_runtime.version import __version__
from fundus_training.calibrate import FittedCalibration
from fundus_training.checkpoint import Checkpoint

__all__ = ["BundlePlan", "PreparedPairs", "bundle_manifest", "graph_names"]

Tensor = np.ndarray[Any, np.dtype[np.float32]]

# Any of these sums unsigned with signed bytes exactly; without one, x86 saturates on the way.
_DOT_PRODUCT = ("avx512_vnni", "avx_vnni", "asimddp")


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
        forms: the dialects, and how they are made and judged.
    """

    name: str
    bundle_version: str
    checkpoint: Checkpoint
    checkpoint_bytes: bytes
    pairs: PreparedPairs | None = None
    evaluations: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    forms: FormPlan = field(default_factory=FormPlan)


def graph_names(dialect: str) -> dict[str, str]:
    """Names of a dialect's files in the bundle, by part."""
    return {part: f"graphs/{part}_{dialect}.onnx" for part in PARTS}


def bundle_manifest(
    plan: BundlePlan,
    fitted: FittedCalibration,
    forms: Sequence[Form],
    files: Mapping[str, bytes],
    parity: Parity,
) -> dict[str, Any]:
    """The manifest's values, certificates left out.

    Args:
        plan: what the bundle is made of.
        fitted: the checkpoint's calibration.
        forms: the graphs.
        files: every other file of the bundle.
        parity: of the FP32 graphs with PyTorch.
    """
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
        "graphs": {form.dialect: _graph_entry(form) for form in forms},
        "default_graphs": _default_graphs([form.dialect for form in forms]),
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
        "golden": golden_entry(),
        "tools": {
            "fundus_edge": __version__,
            **{name: version(name) for name in ("torch", "onnx", "onnxscript")},
            "onnxruntime": onnxruntime_version(),
        },
        "licence": {
            "weights": "research use only; the terms of the training data apply",
            "golden_pictures": "CC0",
        },
        "intended_use": INTENDED_USE,
        "not_a_medical_device": True,
    }


def _graph_entry(form: Form) -> dict[str, Any]:
    entry: dict[str, Any] = {
        **graph_names(form.dialect),
        "dialect": form.dialect,
        "precision": precision_of(form.dialect),
        "opset": form.graphs.opset,
    }
    if form.dialect == "int8-cpu":
        entry["cpu_features"] = list(_DOT_PRODUCT)
    return entry


def _default_graphs(dialects: Sequence[str]) -> dict[str, str]:
    """What a CPU takes: INT8 where it can sum it exactly, else the widest form that there is."""
    exact = [dialect for dialect in ("fp32", "fp16") if dialect in dialects]
    if "int8-cpu" in dialects:
        fallback = {CPU_WITHOUT_DOT_PRODUCT: exact[0]} if exact else {}
        return {CPU: "int8-cpu", **fallback}
    return {CPU: exact[0]} if exact else {}
