"""Loading of pretrained trunks under torchvision's key names.

Contract: the file's tensors must match the trunk's exactly; nothing is loaded unless all do.
Weights are read from safetensors, or from a .pth with torch's restricted unpickler.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fundus_training.errors import CheckpointError

if TYPE_CHECKING:
    from fundus_training.models.dmsnet import DMSNet

__all__ = ["load_trunk_weights"]

# What torchvision's whole models have beyond the trunk.
_BEYOND_THE_TRUNK = ("fc.", "classifier.", "features.18.")
# Counts training steps, is read by nothing here, and older files lack it.
_OPTIONAL_SUFFIX = ".num_batches_tracked"
_NAMES_SHOWN = 8


def load_trunk_weights(model: DMSNet, path: str | Path) -> None:
    """Loads a pretrained trunk into `model.trunk` in place.

    Args:
        model: The model whose trunk takes the weights.
        path: A torchvision state dict of the same architecture, `.safetensors` or `.pth`. Keys
            of the classifier (`fc.*`, `classifier.*`) and `features.18.*` are ignored.

    Raises:
        CheckpointError: The file is missing or unreadable, or a key is missing, unexpected or of
            another shape; the message names the keys and the model is left as it was.
    """
    state = _trunk_tensors(Path(path))
    expected = model.trunk.state_dict()
    _check_matches(state, expected, path=Path(path), trunk=model.config.trunk)
    model.trunk.load_state_dict(state | _absent_counters(state, expected))


def _trunk_tensors(path: Path) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in _read_tensors(path).items()
        if not name.startswith(_BEYOND_THE_TRUNK)
    }


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise CheckpointError(
            f"trunk weights {path} end in {path.suffix or 'no suffix'}; "
            "expected a .safetensors or .pth file"
        )
    if not path.is_file():
        raise CheckpointError(f"trunk weights {path} do not exist; give the path of a file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pth(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"trunk weights {path} are no readable safetensors file") from error


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises nearly anything on a damaged file
        raise CheckpointError(
            f"trunk weights {path} cannot be read as a plain state dict; "
            "save the model's state_dict() alone, best as .safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"trunk weights {path} hold something other than a flat mapping of names to tensors; "
            "save the model's state_dict() alone"
        )
    return dict(state)


def _check_matches(
    state: dict[str, Tensor], expected: dict[str, Tensor], *, path: Path, trunk: str
) -> None:
    required = {name for name in expected if not name.endswith(_OPTIONAL_SUFFIX)}
    problems = []
    if missing := required - state.keys():
        problems.append(f"missing {_shortened(missing)}")
    if unexpected := state.keys() - expected.keys():
        problems.append(f"unexpected {_shortened(unexpected)}")
    mis_shaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in state.keys() & expected.keys()
        if state[name].shape != expected[name].shape
    ]
    if mis_shaped:
        problems.append(f"mis-shaped {_shortened(mis_shaped)}")
    if problems:
        raise CheckpointError(
            f"trunk weights {path} do not fit trunk {trunk}: {'; '.join(problems)}; "
            "give the torchvision state dict of that architecture"
        )


def _absent_counters(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in expected.items() if name not in state}


def _shortened(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _NAMES_SHOWN
    return ", ".join(ordered[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
