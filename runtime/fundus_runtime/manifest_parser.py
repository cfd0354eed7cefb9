"""Reads a bundle's `manifest.json`, schema version 1, from bytes that nobody has vouched for yet.

Parsing validates everything that the runtime relies on; what it only reports (metrics, training
data, tools) is kept as plain JSON values. Unknown keys are refused, because a key that this version
does not know may change what the others mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NoReturn, TypeGuard

from fundus_runtime.calibration import Calibration, OperatingPoints
from fundus_runtime.errors import BundleError, SpecError
from fundus_runtime.labels import ClassList
from fundus_runtime.manifest import (
    BUNDLE_FORMAT,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    FileRecord,
    GraphPair,
    Manifest,
)
from fundus_runtime.preprocess import PreprocessSpec
from fundus_runtime.signature import SIGNATURE_NAME

__all__ = ["parse_manifest"]

_REQUIRED = frozenset(
    {
        "format",
        "schema_version",
        "name",
        "version",
        "classes",
        "preprocess",
        "preprocess_sha256",
        "graphs",
        "default_graphs",
        "files",
        "calibration",
        "operating_points",
        "licence",
        "intended_use",
        "not_a_medical_device",
    }
)
_OPTIONAL = frozenset(
    {"certificates", "created", "model", "training_data", "metrics", "parity", "golden", "tools"}
)
_GRAPH_KEYS = {"encoder", "head", "dialect", "precision", "opset"}
_GRAPH_OPTIONS = {"calibration", "cpu_features"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_manifest(data: bytes) -> Manifest:
    """Parse and validate the bytes of a `manifest.json`.

    Raises:
        BundleError: the bytes are no manifest that this version understands.
    """
    values = _json_object(data)
    _require_format(values)
    unknown = sorted(set(values) - _REQUIRED - _OPTIONAL)
    missing = sorted(_REQUIRED - set(values))
    if unknown or missing:
        raise BundleError(
            f"the manifest has unknown keys {unknown} and lacks {missing}; it was written for "
            "another version of fundus-edge: export the bundle again"
        )
    if values["not_a_medical_device"] is not True:
        raise BundleError(
            f"the manifest must state `not_a_medical_device: true`, but states "
            f"{values['not_a_medical_device']!r}; this software is for research only"
        )
    _object(values.get("certificates", {}), "certificates")
    classes = ClassList.from_dict(values["classes"])
    patient, eye = _calibrations(values["calibration"], classes.letters)
    files = _files(values["files"])
    graphs = _graphs(values["graphs"], files, classes.letters)
    return Manifest(
        name=_text(values, "name"),
        version=_text(values, "version"),
        classes=classes,
        spec=_spec(values["preprocess"], values["preprocess_sha256"]),
        graphs=graphs,
        default_graphs=_default_graphs(values["default_graphs"], graphs),
        files=files,
        calibration=patient,
        eye_calibration=eye,
        operating_points=OperatingPoints.from_dict(values["operating_points"], classes.letters),
        intended_use=_text(values, "intended_use"),
        licence=values["licence"],
        reported={key: values[key] for key in sorted(_OPTIONAL & set(values))},
    )


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"the manifest is not readable as JSON: {error}; export or copy the bundle again"
        ) from error
    if not isinstance(values, dict):
        raise BundleError(f"the manifest holds a {type(values).__name__}, expected an object")
    return values


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        # the last of two equal keys would win, and another reader may take the first
        raise ValueError("a key appears twice in one object")
    return values


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _require_format(values: Mapping[str, Any]) -> None:
    if values.get("format") != BUNDLE_FORMAT:
        raise BundleError(
            f"the manifest states the format {values.get('format')!r}, expected "
            f"{BUNDLE_FORMAT!r}; give the folder of a fundus-edge bundle"
        )
    version = values.get("schema_version")
    if type(version) is not int or version < 1:
        raise BundleError(
            f"the manifest states the schema version {version!r}, expected {SCHEMA_VERSION}"
        )
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"the manifest has schema version {version}, but this fundus-edge reads "
            f"{SCHEMA_VERSION}; update fundus-edge or export the bundle with this version"
        )


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values[key]
    if not isinstance(value, str) or not value.strip():
        raise BundleError(f"{key} must be a text, got {value!r}")
    return value


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{what} must be an object, got {type(value).__name__}")
    return value


def _spec(fields: Any, recorded: Any) -> PreprocessSpec:
    try:
        spec = PreprocessSpec.from_dict(_object(fields, "preprocess"))
    except (SpecError, TypeError) as error:
        raise BundleError(f"preprocess: {error}") from error
    if spec.sha256 != recorded:
        raise BundleError(
            f"the manifest records preprocess_sha256 {recorded!r}, but its preprocess spec "
            f"hashes to {spec.sha256}; export the bundle again from its checkpoint"
        )
    return spec


def _calibrations(value: Any, letters: tuple[str, ...]) -> tuple[Calibration, Calibration | None]:
    entry = _object(value, "calibration")
    for key in ("patient", "eye"):
        if key not in entry:
            raise BundleError(f"calibration lacks {key!r}; calibrate and export")
    eye = entry["eye"]
    return (
        Calibration.from_dict(entry["patient"], letters),
        None if eye is None else Calibration.from_dict(eye, letters),
    )


def _files(value: Any) -> dict[str, FileRecord]:
    files = {}
    for name, record in _object(value, "files").items():
        _require_inner_name(name)
        entry = _object(record, f"files[{name!r}]")
        sha256, size = entry.get("sha256"), entry.get("bytes")
        if set(entry) != {"sha256", "bytes"} or not _is_sha256(sha256) or not _is_size(size):
            raise BundleError(
                f"files[{name!r}] needs exactly sha256 (64 lower-case hexadecimal "
                f"digits) and bytes (a whole number), got {dict(entry)}"
            )
        files[name] = FileRecord(sha256, size)
    return files


def _is_sha256(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _require_inner_name(name: str) -> None:
    path = PurePosixPath(name)
    if (
        not name
        or path.is_absolute()
        or ".." in path.parts
        or str(path) != name
        or any(mark in name for mark in ("\\", ":", "\0"))
        or name in (MANIFEST_NAME, SIGNATURE_NAME)
    ):
        raise BundleError(
            f"the manifest lists the file name {name!r}, but names must be plain paths within "
            "the bundle, such as graphs/encoder.onnx; do not use this bundle"
        )


def _graphs(
    value: Any, files: Mapping[str, FileRecord], letters: tuple[str, ...]
) -> dict[str, GraphPair]:
    graphs = {}
    for name, entry in _object(value, "graphs").items():
        fields = _object(entry, f"graphs[{name!r}]")
        if set(fields) - _GRAPH_OPTIONS != _GRAPH_KEYS or type(fields["opset"]) is not int:
            raise BundleError(
                f"graphs[{name!r}] needs the keys {sorted(_GRAPH_KEYS)}, opset a whole number, "
                f"and may have {sorted(_GRAPH_OPTIONS)}, got {sorted(fields)}"
            )
        for part in ("encoder", "head"):
            if not isinstance(fields[part], str) or fields[part] not in files:
                raise BundleError(
                    f"the {part} of graphs[{name!r}] is {fields[part]!r}, which "
                    "`files` does not list; export the bundle again"
                )
        graphs[name] = GraphPair(
            name=name,
            encoder=fields["encoder"],
            head=fields["head"],
            dialect=_text(fields, "dialect"),
            precision=_text(fields, "precision"),
            opset=fields["opset"],
            cpu_features=_cpu_features(fields.get("cpu_features", []), name),
            **_own_calibrations(fields.get("calibration"), letters),
        )
    return graphs


def _cpu_features(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(feature, str) for feature in value):
        raise BundleError(f"graphs[{name!r}]: cpu_features must be a list of names, got {value!r}")
    return tuple(value)


def _own_calibrations(value: Any, letters: tuple[str, ...]) -> dict[str, Calibration | None]:
    if value is None:
        return {}
    patient, eye = _calibrations(value, letters)
    return {"calibration": patient, "eye_calibration": eye}


def _default_graphs(value: Any, graphs: Mapping[str, GraphPair]) -> dict[str, str]:
    defaults = dict(_object(value, "default_graphs"))
    for kind, name in defaults.items():
        if not isinstance(name, str) or name not in graphs:
            raise BundleError(
                f"default_graphs[{kind!r}] is {name!r}, but graphs has {sorted(graphs)}"
            )
    return defaults
