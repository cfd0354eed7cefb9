"""Dual-path densely connected convolutions, the tail of CCAM and CIAM (reading 12).

Contract: one map a path, B x C/2 x H x W, to one merged map of the same shape. Each layer is
convolution, batch norm, ReLU in this order, so that the norm folds into the convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DenseBlock", "DualPath"]


class DenseBlock(nn.Module):
    """`depth` 3x3 convolutions, each seeing all maps before it; Huang et al. 2017.

    Maps B x C x H x W to B x (C + depth * growth) x H x W.
    """

    def __init__(self, channels: int, *, depth: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            conv_bn_relu(channels + index * growth, growth, kernel=3) for index in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class DualPath(nn.Module):
    """One dense block an eye, merged by a 1x1 convolution.

    Args:
        channels: C/2 of the features.
        depth: Layers of a block.
        growth: Channels that a layer adds.
        symmetric: Both paths share one block and the merge one weight over its two halves, so
            that exchanging the inputs changes nothing (reading 7).
    """

    def __init__(self, channels: int, *, depth: int, growth: int, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        widened = channels + depth * growth
        if symmetric:
            self.path = DenseBlock(channels, depth=depth, growth=growth)
        else:
            self.path_left = DenseBlock(channels, depth=depth, growth=growth)
            self.path_right = DenseBlock(channels, depth=depth, growth=growth)
        self.merge = conv_bn_relu(widened if symmetric else 2 * widened, channels, kernel=1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        merged: Tensor = self.merge(self._paths(left, right))
        return merged

    def _paths(self, left: Tensor, right: Tensor) -> Tensor:
        if not self.symmetric:
            return torch.cat([self.path_left(left), self.path_right(right)], dim=1)
        if left is right:
            doubled: Tensor = 2 * self.path(left)
            return doubled
        if self.training:
            # In one batch, so that the norms' statistics do not depend on which eye comes first.
            path_left, path_right = self.path(torch.cat([left, right])).chunk(2)
        else:
            path_left, path_right = self.path(left), self.path(right)
        summed: Tensor = path_left + path_right
        return summed


def conv_bn_relu(channels_in: int, channels_out: int, *, kernel: int) -> nn.Sequential:
    """Returns a same-size convolution with batch norm and ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))
