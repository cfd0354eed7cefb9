"""What every trunk offers: its output, and the map with which its last grid begins.

Contract: B x 3 x S x S to maps of one grid, ceil(S/32) on each side. `early` is what the first
block of that grid makes: the blocks after it mix neighbouring places, and `out` is spread wider.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["Trunk", "TrunkMaps"]


class TrunkMaps(NamedTuple):
    """Two maps of one pass.

    Attributes:
        early: after the first block of the last grid, B x C' x H x W.
        out: X, the trunk's output, B x C x H x W.
    """

    early: Tensor
    out: Tensor


class Trunk(nn.Module):
    """An image trunk; `parts` is what its classes define."""

    def parts(self, image: Tensor) -> TrunkMaps:
        """Returns both maps of B images."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        return self.parts(image).out
