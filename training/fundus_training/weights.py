"""Weights as a checkpoint stores them: FP32 in memory, FP16 on disk wherever that loses nothing.

Models that ship are rounded to FP16 before they are validated and exported, so that checkpoint and
graphs are one model. Such matrices take two bytes a number on disk and come back as FP32, bit for
bit. Batch norms, biases and scalars always stay FP32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fundus_training.errors import CheckpointError

__all__ = ["State", "packed", "refuse_non_finite", "round_weights_to_fp16", "state_of", "unpacked"]

State = dict[str, torch.Tensor]

_ALLOWED = (torch.float32, torch.int64, torch.bool)


def state_of(model: torch.nn.Module) -> State:
    """A copy of a model's state dict, detached and on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def round_weights_to_fp16(state: Mapping[str, torch.Tensor]) -> State:
    """Convolution, linear and embedding weights rounded to the nearest number that FP16 has.

    Every tensor keeps its dtype; those with fewer than two dimensions (batch norms, biases,
    scalars) keep their values too.

    Raises:
        CheckpointError: a weight is too large for FP16; the message names its tensor.
    """
    return {
        name: _rounded(name, tensor) if _is_matrix(tensor) else tensor.detach().clone()
        for name, tensor in state.items()
    }


def _rounded(name: str, tensor: torch.Tensor) -> torch.Tensor:
    rounded = tensor.detach().half().to(tensor.dtype)
    if not torch.isfinite(rounded).all():
        raise CheckpointError(
            f"{name} reaches {tensor.abs().max().item():.4g}, which FP16 cannot hold (its largest "
            "number is 65504); keep this model in FP32, or train it with more weight decay"
        )
    return rounded


def _is_matrix(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 2


def refuse_non_finite(state: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        CheckpointError: naming the first such tensors.
    """
    broken = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if broken:
        raise CheckpointError(
            f"{len(broken)} tensors hold NaN or infinity ({', '.join(broken[:3])}); the training "
            "diverged: lower the learning rate and start from the last good checkpoint"
        )


def packed(state: Mapping[str, torch.Tensor]) -> State:
    """The tensors to write: own memory, on the CPU, matrices in FP16 where that is exact.

    Raises:
        CheckpointError: a tensor has a dtype that checkpoints do not hold.
    """
    return {name: _packed(name, tensor) for name, tensor in state.items()}


def _packed(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype not in _ALLOWED:
        raise CheckpointError(
            f"{name} is {tensor.dtype}, but checkpoints hold float32 weights; save the master "
            "weights, not a copy in lower precision"
        )
    own = tensor.detach().cpu().contiguous().clone()
    if not _is_matrix(own):
        return own
    half = own.half()
    return half if torch.equal(half.to(torch.float32), own) else own


def unpacked(state: Mapping[str, torch.Tensor]) -> State:
    """What `packed` wrote, as FP32 again.

    Raises:
        CheckpointError: a tensor has a dtype that checkpoints do not hold.
    """
    return {name: _unpacked(name, tensor) for name, tensor in state.items()}


def _unpacked(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype == torch.float16:
        return tensor.to(torch.float32)
    if tensor.dtype not in _ALLOWED:
        raise CheckpointError(
            f"{name} is stored as {tensor.dtype}, but checkpoints hold float32, float16, int64 "
            "and bool; write the file with fundus-edge"
        )
    return tensor
