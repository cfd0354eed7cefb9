"""Where a run starts from: a pretrained trunk, or a whole model that was trained before.

A trunk's file holds torchvision's state dict. A checkpoint of fundus-edge brings every weight and
its split, so that no patient whom it was trained on ends up among those that judge the new run.
"""

from __future__ import annotations

from pathlib import Path

from fundus_runtime.canonical import sha256_of_file
from fundus_runtime.labels import ClassList
from fundus_training.checkpoint import Checkpoint, is_checkpoint, load_checkpoint
from fundus_training.data.splits import Split
from fundus_training.errors import CheckpointError
from fundus_training.models import DMSNet, load_trunk_weights
from fundus_training.presets import RunConfig

__all__ = ["InitialWeights"]


class InitialWeights:
    """The weights in a file.

    Args:
        path: a trunk's state dict, `.safetensors` or `.pth`, or a checkpoint of fundus-edge.

    Raises:
        CheckpointError: the file is a damaged checkpoint.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._checkpoint: Checkpoint | None = None
        if is_checkpoint(self.path):
            self._checkpoint = load_checkpoint(self.path)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return sha256_of_file(self.path)

    @property
    def split(self) -> Split | None:
        """The split that the weights were trained with; None for a trunk."""
        return None if self._checkpoint is None else self._checkpoint.split

    def require_fit(self, config: RunConfig, classes: ClassList) -> None:
        """Refuse a checkpoint of another model.

        Raises:
            CheckpointError: architecture, classes or preprocessing differ; dropout may.
        """
        given = self._checkpoint
        if given is None:
            return
        ours, theirs = config.model.to_dict(), given.model_config.to_dict()
        differing = [k for k in ours if ours[k] != theirs[k] and k != "dropout"]
        if given.classes.letters != classes.letters:
            differing.append("classes")
        ours_sha256, theirs_sha256 = config.preprocess.sha256, given.spec.sha256
        if theirs_sha256 != ours_sha256:
            differing.append(f"preprocess ({theirs_sha256[:12]} there, {ours_sha256[:12]} here)")
        if differing:
            raise CheckpointError(
                f"{self.path} is a checkpoint of another model: {', '.join(differing)} differ; "
                "train with its config, or start from a trunk's weights"
            )

    def load_into(self, model: DMSNet) -> None:
        """Load the weights in place.

        Raises:
            CheckpointError: they do not fit; the model is left as it was.
        """
        if self._checkpoint is None:
            load_trunk_weights(model, self.path)
        else:
            try:
                model.load_state_dict(self._checkpoint.state)
            except RuntimeError as error:
                raise CheckpointError(
                    f"{self.path}: its tensors do not fit its own model config: {error}; it was "
                    "altered, or written by another version of fundus-edge"
                ) from error
