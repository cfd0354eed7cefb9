"""The checkpoint: one safetensors file that holds a model and all that is needed to trust it.

Tensors are the model's state dict (`weights` says in which precision). The header holds one JSON
text under the key `fundus_edge`: format and schema version, model config, classes, preprocess spec
with its hash, the ids of the split, training summary, metrics, calibration and provenance. A file
is written beside its place and moved there whole, never by halves, and reading one runs no code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from fundus_runtime.canonical import canonical_json
from fundus_runtime.errors import BundleError, SpecError
from fundus_runtime.labels import ClassList
from fundus_runtime.preprocess import PreprocessSpec
from fundus_training.calibrate import FittedCalibration
from fundus_training.data.splits import Split
from fundus_training.errors import CheckpointError, ConfigError, DataError
from fundus_training.files import write_atomically
from fundus_training.models import DMSNet, ModelConfig
from fundus_training.weights import State, packed, refuse_non_finite, unpacked

__all__ = [
    "CHECKPOINT_FORMAT",
    "SCHEMA_VERSION",
    "Checkpoint",
    "build_model",
    "is_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "with_calibration",
]

CHECKPOINT_FORMAT = "fundus-edge checkpoint"
SCHEMA_VERSION = 1

_HEADER_KEY = "fundus_edge"
_HEADER_KEYS = frozenset(
    {
        "format",
        "schema_version",
        "model",
        "classes",
        "preprocess",
        "preprocess_sha256",
        "split",
        "training",
        "metrics",
        "calibration",
        "provenance",
    }
)


@dataclass(frozen=True)
class Checkpoint:
    """A model with all that was decided about it.

    Attributes:
        model_config: the architecture.
        classes: what the logits mean, in their order.
        spec: how photographs are prepared.
        state: the model's state dict, FP32.
        split: ids of the patients of each part.
        training: JSON-able config and summary of the training (data set, counts, epochs).
        metrics: JSON-able figures of the last evaluation.
        calibration: probabilities and operating points, or None until `fundus-train calibrate`.
        provenance: JSON-able versions, seed, SHA-256 of the initial weights, terms of the weights.
    """

    model_config: ModelConfig
    classes: ClassList
    spec: PreprocessSpec
    state: State
    split: Split
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    calibration: FittedCalibration | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model_config.num_classes != len(self.classes):
            raise CheckpointError(
                f"the model has {self.model_config.num_classes} classes but the class list names "
                f"{len(self.classes)} ({' '.join(self.classes.letters)}); both must agree"
            )
        if self.model_config.image_size != self.spec.size:
            raise CheckpointError(
                f"the model takes {self.model_config.image_size} px images but the preprocess spec "
                f"makes {self.spec.size} px ones; give both the same size"
            )


def with_calibration(
    checkpoint: Checkpoint,
    calibration: FittedCalibration,
    metrics: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """The same model with this calibration, and with new metrics if some are given."""
    kept = checkpoint.metrics if metrics is None else metrics
    return dataclasses.replace(checkpoint, calibration=calibration, metrics=kept)


def build_model(checkpoint: Checkpoint) -> DMSNet:
    """The checkpoint's model on the CPU, in evaluation mode.

    Raises:
        CheckpointError: the tensors are not those of the model config.
    """
    model = DMSNet(checkpoint.model_config)
    try:
        model.load_state_dict(checkpoint.state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint's tensors do not fit its own model config: {error}; "
            "it was altered, or written by another version of fundus-edge"
        ) from error
    return model.eval()


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that the file is either the old one or the whole new one.

    Raises:
        CheckpointError: weights hold NaN or infinity, the header is not JSON-able, or the file
            cannot be written.
    """
    target = Path(path)
    refuse_non_finite(checkpoint.state)
    try:
        header = canonical_json(_header_from_checkpoint(checkpoint)).decode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{target.name} cannot be saved: training, metrics and provenance must be plain JSON "
            f"values without NaN ({error})"
        ) from error
    data = safetensors_bytes(packed(checkpoint.state), metadata={_HEADER_KEY: header})
    try:
        write_atomically(target, data)
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be written ({error.strerror or error}); what was there is unchanged"
        ) from error


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file is one of ours; False also where it cannot be read."""
    try:
        with safe_open(Path(path), framework="pt") as file:
            return _HEADER_KEY in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint and check that its parts belong together.

    Raises:
        CheckpointError: missing, no safetensors, another format, a newer schema, unknown keys,
            class lists or spec hashes that disagree, or weights that are not finite.
    """
    source = Path(path)
    header, tensors = _read(source)
    try:
        checkpoint = _checkpoint_from_header(header, unpacked(tensors))
        refuse_non_finite(checkpoint.state)
    except (BundleError, ConfigError, DataError, SpecError, CheckpointError) as error:
        raise CheckpointError(f"{source}: {error}") from error
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{source}: its header is damaged ({type(error).__name__}: {error}); use another copy"
        ) from error
    return checkpoint


def _header_from_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    fitted = checkpoint.calibration
    return {
        "format": CHECKPOINT_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "model": checkpoint.model_config.to_dict(),
        "classes": checkpoint.classes.to_dict(),
        "preprocess": checkpoint.spec.to_dict(),
        "preprocess_sha256": checkpoint.spec.sha256,
        "split": checkpoint.split.to_dict(),
        "training": dict(checkpoint.training),
        "metrics": dict(checkpoint.metrics),
        "calibration": None if fitted is None else fitted.to_dict(),
        "provenance": dict(checkpoint.provenance),
    }


def _checkpoint_from_header(header: Mapping[str, Any], state: State) -> Checkpoint:
    _require_known_schema(header)
    spec = PreprocessSpec.from_dict(header["preprocess"])
    if spec.sha256 != header["preprocess_sha256"]:
        raise CheckpointError(
            f"its preprocess spec hashes to {spec.sha256} but it was trained with "
            f"{header['preprocess_sha256']}; the file was altered: use the original"
        )
    classes = ClassList.from_dict(header["classes"])
    fitted = header["calibration"]
    return Checkpoint(
        model_config=ModelConfig.from_dict(header["model"]),
        classes=classes,
        spec=spec,
        state=state,
        split=Split.from_dict(header["split"]),
        training=header["training"],
        metrics=header["metrics"],
        calibration=None if fitted is None else FittedCalibration.from_dict(fitted, classes),
        provenance=header["provenance"],
    )


def _require_known_schema(header: Mapping[str, Any]) -> None:
    if header.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"its format is {header.get('format')!r}, expected {CHECKPOINT_FORMAT!r}"
        )
    version = header.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"its schema version is {version!r} but this fundus-edge reads {SCHEMA_VERSION}; "
            "use the version that wrote it"
        )
    unknown, missing = sorted(set(header) - _HEADER_KEYS), sorted(_HEADER_KEYS - set(header))
    if unknown or missing:
        raise CheckpointError(
            f"its header has unknown keys {unknown} and lacks {missing}; "
            "it was not written by this version of fundus-edge"
        )


def _read(source: Path) -> tuple[dict[str, Any], State]:
    """The header's JSON and the raw tensors."""
    if not source.is_file():
        raise CheckpointError(f"{source} is not there; give a .safetensors file of fundus-train")
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} is no safetensors file, or is cut short ({error}); checkpoints are never "
            "pickles: give the .safetensors file that fundus-train wrote"
        ) from error
    if _HEADER_KEY not in metadata:
        raise CheckpointError(
            f"{source} holds tensors but no fundus-edge header; a pretrained trunk goes to "
            "`fundus-train fit --init-weights`"
        )
    try:
        header = json.loads(metadata[_HEADER_KEY])
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{source}: its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{source}: its header is no JSON object")
    return header, tensors
