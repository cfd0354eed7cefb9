"""CAFM, the cross-attention fusion inside CCAM and CIAM (docs/model.md, readings 10 and 14).

Contract: both eyes' features, B x C/2 x H x W each, to both eyes' gated features of the same
shape. Bottleneck and gate are shared by the eyes, so the module treats left and right alike.

The affinity's row and column softmax could share one exponential, exp(a_i b_j). That is left out
on purpose: with one shift for the whole matrix a row far below the largest entry underflows to
0/0, the earlier the narrower the number format, and no shift serves rows and columns at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CAFM", "Bottleneck"]

_RATIO = 16
_SMALLEST_BOTTLENECK = 8
_GATE_CHANNELS = 8


class CAFM(nn.Module):
    """Channel affinity between the eyes, then a spatial gate on each.

    Args:
        channels: C/2 of the features.
        gate: `sigmoid`, or `softmax` over positions (reading 10).
    """

    def __init__(self, channels: int, *, gate: str = "sigmoid") -> None:
        super().__init__()
        hidden = max(_SMALLEST_BOTTLENECK, channels // _RATIO)
        self.bottleneck: nn.Sequential = Bottleneck(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1)
        )
        self.gate = nn.Sequential(
            nn.Conv2d(2, _GATE_CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            # A bias would cancel out in the softmax.
            nn.Conv2d(_GATE_CHANNELS, 1, 3, padding=1, bias=gate != "softmax"),
        )
        self.gate_over_positions = gate == "softmax"
        for layer in (*self.bottleneck, *self.gate):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        attended_left, attended_right = self.exchange(left, right)
        return self._gated(left, attended_left), self._gated(right, attended_right)

    def descriptor(self, features: Tensor) -> Tensor:
        """Returns an eye's channel descriptor, B x C/2."""
        average = features.mean(dim=(2, 3), keepdim=True)
        maximum = features.amax(dim=(2, 3), keepdim=True)
        descriptor: Tensor = self.bottleneck(torch.cat([average, maximum], dim=3)).flatten(1)
        return descriptor

    def exchange(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Applies the affinity A = a_left a_right^T to both eyes' channels.

        The left eye takes A with each row summing to one, the right eye A with each column doing
        so. The latter is the row softmax of A^T = a_right a_left^T, which spares a transpose and
        shows that swapping the eyes swaps the results.
        """
        own, other = self.descriptor(left), self.descriptor(right)
        return _mix_channels(own, other, left), _mix_channels(other, own, right)

    def _gated(self, features: Tensor, attended: Tensor) -> Tensor:
        summary = torch.cat(
            [attended.mean(dim=1, keepdim=True), attended.amax(dim=1, keepdim=True)], dim=1
        )
        gate = self.gate(summary)
        if self.gate_over_positions:
            gate = torch.softmax(gate.flatten(2), dim=2).view_as(gate)
        else:
            gate = torch.sigmoid(gate)
        gated: Tensor = features * (gate + 1)
        return gated


class Bottleneck(nn.Sequential):
    """Convolution, ReLU, convolution of both pools, B x C x 1 x 2, and their sum, B x C x 1."""

    def forward(self, pools: Tensor) -> Tensor:
        for layer in self:
            pools = layer(pools)
        return pools.sum(dim=3)

    def folded(self) -> nn.Sequential:
        """Returns the same function for export: the last convolution reads both pools at once.

        It is linear, so that its kernel can take the sum, in which its bias counts twice.
        """
        first, activation, last = self
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        both = nn.Conv2d(last.in_channels, last.out_channels, (1, 2))
        both.weight = nn.Parameter(last.weight.detach().repeat(1, 1, 1, 2))
        both.bias = nn.Parameter(2 * last.bias.detach())
        return nn.Sequential(first, activation, both)


def _mix_channels(own: Tensor, other: Tensor, features: Tensor) -> Tensor:
    affinity = F.softmax(own.unsqueeze(2) * other.unsqueeze(1), dim=2)
    return torch.unflatten(affinity @ features.flatten(2), 2, features.shape[2:])
