"""What a bundle's manifest says, schema version 1, in typed form; `manifest_parser.py` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fundus_runtime.calibration import Calibration, OperatingPoints
from fundus_runtime.errors import BundleError
from fundus_runtime.labels import ClassList
from fundus_runtime.preprocess import PreprocessSpec

__all__ = [
    "BUNDLE_FORMAT",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "FileRecord",
    "GraphPair",
    "Manifest",
]

BUNDLE_FORMAT = "fundus-edge bundle"
MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says about one file: its SHA-256 and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphPair:
    """One form of the model: its two graphs and how they are written.

    Attributes:
        name: the key under `graphs`, for example `fp32`.
        encoder: file name of the encoder within the bundle.
        head: file name of the head within the bundle.
        dialect: which rules the graphs keep.
        precision: what they compute in.
        opset: ONNX operator set.
        cpu_features: names of `fundus_runtime._native.cpu_features()`, any one of which these
            graphs need on a CPU; empty where any CPU will do.
        calibration: of the patient's logits; None for the bundle's own.
        eye_calibration: of one eye's logits; None for the bundle's own.
    """

    name: str
    encoder: str
    head: str
    dialect: str
    precision: str
    opset: int
    cpu_features: tuple[str, ...] = ()
    calibration: Calibration | None = None
    eye_calibration: Calibration | None = None


@dataclass(frozen=True)
class Manifest:
    """A bundle's description, validated.

    Attributes:
        name: the bundle's name.
        version: the bundle's version.
        classes: class letters, names and the normal class.
        spec: the preprocessing that the model was trained with.
        graphs: the forms of the model, by name.
        default_graphs: which form a kind of engine uses unless told otherwise.
        files: every file of the bundle but the manifest, by POSIX name.
        calibration: of the patient's logits.
        eye_calibration: of one eye's logits; None where the training had no labels of single eyes,
            so that the per-eye outputs mean nothing.
        operating_points: thresholds, and the default point.
        intended_use: what the model may be used for.
        licence: terms of the weights.
        reported: what is only reported: created, model, training_data, metrics, parity, ...
    """

    name: str
    version: str
    classes: ClassList
    spec: PreprocessSpec
    graphs: Mapping[str, GraphPair]
    default_graphs: Mapping[str, str]
    files: Mapping[str, FileRecord]
    calibration: Calibration
    eye_calibration: Calibration | None
    operating_points: OperatingPoints
    intended_use: str
    licence: Any
    reported: Mapping[str, Any] = field(default_factory=dict)

    def calibration_of(self, graphs: GraphPair) -> Calibration:
        """The calibration of these graphs' logits of a patient: their own, or the bundle's."""
        return self.calibration if graphs.calibration is None else graphs.calibration

    def eye_calibration_of(self, graphs: GraphPair) -> Calibration | None:
        """The same of one eye's logits; None where these mean nothing."""
        if self.eye_calibration is None or graphs.eye_calibration is None:
            return self.eye_calibration
        return graphs.eye_calibration

    def graphs_for(self, kind: str) -> GraphPair:
        """The form of the model for a kind of engine, for example `cpu`.

        Raises:
            BundleError: the bundle has none for it.
        """
        name = self.default_graphs.get(kind)
        if name is None:
            raise BundleError(
                f"bundle {self.name!r} has graphs for {sorted(self.default_graphs)}, none for "
                f"{kind!r}; export it again with graphs for {kind!r}"
            )
        return self.graphs[name]
