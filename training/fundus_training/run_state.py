"""The state from which a run goes on after an interruption, in one safetensors file.

Weights, averaged weights and optimiser moments are tensors; epoch, best score and history are JSON
in the header. Nothing is pickled. The file is replaced whole at the end of every epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from fundus_runtime.canonical import canonical_json
from fundus_training.errors import CheckpointError
from fundus_training.files import write_atomically

__all__ = ["Progress", "read_state", "write_state"]

_HEADER_KEY = "fundus_edge_run"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: epochs that are done.
        best_score: of the validation so far; None before the first.
        history: one row of figures an epoch.
        scaler: state of the FP16 gradient scaler.
    """

    epoch: int = 0
    best_score: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)


def write_state(
    path: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    *,
    run_sha256: str,
) -> None:
    """Write everything that the next epoch depends on.

    Args:
        path: the file.
        tensors: state dicts by name (`model`, `averaged`).
        optimizer: its moments.
        progress: how far the run is.
        run_sha256: hash of config and split; another run's state is refused by it.
    """
    flat = {f"{part}/{name}": t for part, state in tensors.items() for name, t in state.items()}
    for index, state in optimizer.state_dict()["state"].items():
        flat |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in flat.items()}
    header = canonical_json({"run_sha256": run_sha256, **vars(progress)}).decode()
    write_atomically(path, safetensors_bytes(stored, metadata={_HEADER_KEY: header}))


def read_state(
    path: Path, optimizer: torch.optim.Optimizer, *, run_sha256: str
) -> tuple[dict[str, dict[str, Tensor]], Progress]:
    """Read `write_state`'s file; the optimiser takes its moments back.

    Returns:
        State dicts by name, and the progress.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another run.
    """
    header, flat = _read(path)
    try:
        recorded, progress = header.pop("run_sha256"), Progress(**header)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no state of a run, or is damaged: {error}") from error
    if recorded != run_sha256:
        raise CheckpointError(
            f"{path} is of a run with another config, data set, split or initial weights; resume "
            "with the values that it was started with (config.json beside it), or choose another "
            "--out"
        )
    parts: dict[str, dict[str, Tensor]] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        part, rest = name.split("/", 1)
        if part == "optimizer":
            index, moment = rest.split("/", 1)
            moments.setdefault(int(index), {})[moment] = tensor
        else:
            parts.setdefault(part, {})[rest] = tensor
    _restore_moments(optimizer, moments)
    return parts, progress


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER_KEY])
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not there, so nothing can be resumed") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no state of a run, or is damaged: {error}") from error
    return dict(header), flat


def _restore_moments(
    optimizer: torch.optim.Optimizer, moments: Mapping[int, dict[str, Tensor]]
) -> None:
    """Give the optimiser its moments in the memory layout of their weights, as they were made.

    Another layout takes another code path, whose rounding may differ in the last bit.
    """
    groups = optimizer.state_dict()["param_groups"]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, state in moments.items():
        for name, tensor in state.items():
            if tensor.shape == weights[index].shape:
                state[name] = torch.empty_like(weights[index], requires_grad=False).copy_(tensor)
    optimizer.load_state_dict({"state": dict(moments), "param_groups": groups})
