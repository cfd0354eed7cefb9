"""CCAM, the Cross-Modal Contrastive Alignment Module: what differs between the eyes.

Contract: both eyes' features, B x C/2 x H x W each, to asymmetry features of the same shape.
"""

from __future__ import annotations

from torch import Tensor, nn

from fundus_training.models.cafm import CAFM
from fundus_training.models.dense import DualPath, FoldedDualPath

__all__ = ["CCAM"]


class CCAM(nn.Module):
    """CAFM, difference of the eyes, dual-path dense convolutions.

    Args:
        fusion: CAFM, or None to take the features as they are (reading 14).
        paths: The dual path.
        absolute: Gives both paths |left - right|; else left - right goes to the left path and
            right - left to the right one (reading 11).
    """

    def __init__(
        self, fusion: CAFM | None, paths: DualPath | FoldedDualPath, *, absolute: bool = False
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.paths = paths
        self.absolute = absolute

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        if self.fusion is not None:
            left, right = self.fusion(left, right)
        difference = left - right
        if self.absolute:
            difference = difference.abs()
        asymmetry: Tensor = self.paths(difference, difference if self.absolute else -difference)
        return asymmetry

    def folded(self) -> CCAM:
        """Returns the same function for export; norms must be folded."""
        assert isinstance(self.paths, DualPath)
        paths = FoldedDualPath(self.paths, mirrored=not self.absolute)
        return CCAM(self.fusion, paths, absolute=self.absolute)
