"""CIAM, the Cross-Modal Integrative Alignment Module: what the eyes have in common.

Contract: both eyes' features, B x C/2 x H x W each, to symmetry features of the same shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fundus_training.models.cafm import CAFM
from fundus_training.models.dense import DualPath, FoldedDualPath

__all__ = ["CIAM", "spatial_similarity"]

# Keeps the square root's gradient finite where an eye's features are all zero.
_EPSILON = 1e-6


class CIAM(nn.Module):
    """CAFM, agreement of the eyes, dual-path dense convolutions, residual of the input.

    The agreement is the sum of the eyes, weighted at each position by their cosine similarity;
    both paths see it. The residual is the sum of the eyes as they came in.

    Args:
        fusion: CAFM, or None to take the features as they are (reading 14).
        paths: The dual path.
    """

    def __init__(self, fusion: CAFM | None, paths: DualPath | FoldedDualPath) -> None:
        super().__init__()
        self.fusion = fusion
        self.paths = paths

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.aligned(left, right) + (left + right)

    def aligned(self, left: Tensor, right: Tensor) -> Tensor:
        """Returns the symmetry features without the residual."""
        if self.fusion is not None:
            left, right = self.fusion(left, right)
        agreement = (left + right) * spatial_similarity(left, right)
        aligned: Tensor = self.paths(agreement, agreement)
        return aligned

    def folded(self) -> CIAM:
        """Returns the same function for export; norms must be folded."""
        assert isinstance(self.paths, DualPath)
        return CIAM(self.fusion, FoldedDualPath(self.paths, mirrored=False))


def spatial_similarity(left: Tensor, right: Tensor) -> Tensor:
    """Returns the cosine of the eyes' channel vectors at each position, B x 1 x H x W."""
    product = (left * right).sum(dim=1, keepdim=True)
    squares_left = (left * left).sum(dim=1, keepdim=True)
    squares_right = (right * right).sum(dim=1, keepdim=True)
    return product / torch.sqrt(squares_left * squares_right + _EPSILON)
