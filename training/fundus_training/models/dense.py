"""Dual-path densely connected convolutions, the tail of CCAM and CIAM (reading 12).

Contract: one map a path, B x C/2 x H x W, to one merged map of the same shape. Each layer is
convolution, batch norm, ReLU in this order, so that the norm folds into the convolution.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ["DenseBlock", "DualPath", "FoldedDualPath"]


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
        return torch.cat([x, *self.grow(x)], dim=1)

    def grow(self, x: Tensor) -> list[Tensor]:
        """Returns what each layer adds, B x growth x H x W."""
        grown: list[Tensor] = []
        for layer in self.layers:
            grown.append(layer(torch.cat([x, *grown], dim=1) if grown else x))
        return grown


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

    def blocks(self) -> tuple[DenseBlock, DenseBlock]:
        """Returns the left and the right path's block, which may be the same."""
        if self.symmetric:
            return self.path, self.path
        return self.path_left, self.path_right

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


class FoldedDualPath(nn.Module):
    """A dual path whose paths see one map up to its sign, for export; its norms must be folded.

    The sign goes into the right path's weights. The merge would read the map through both paths;
    it reads it once, with the sum of both weights, or not at all where they cancel out.

    Args:
        paths: The dual path, which is left as it is.
        mirrored: The right path sees the negative of the left path's map, else the same map.
    """

    def __init__(self, paths: DualPath, *, mirrored: bool) -> None:
        super().__init__()
        conv = paths.merge[0]
        assert isinstance(conv, nn.Conv2d)
        channels, sign = conv.out_channels, -1.0 if mirrored else 1.0
        halves = (conv.weight,) * 2 if paths.symmetric else conv.weight.chunk(2, dim=1)
        left, right = (half.detach() for half in halves)
        of_map = left[:, :channels] + sign * right[:, :channels]
        of_left, of_right = left[:, channels:], right[:, channels:]
        self.left, block = paths.blocks()
        self.right: DenseBlock | None = None
        self.reads_map = not (paths.symmetric and mirrored)
        if paths.symmetric and not mirrored:
            parts = [of_map, of_left + of_right]  # both paths are one
        else:
            self.right = _reading_signed(block, channels, sign)
            parts = [of_map, of_left, of_right] if self.reads_map else [of_left, of_right]
        self.merge = nn.Sequential(_conv_from(torch.cat(parts, dim=1), conv.bias), nn.ReLU())

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Merges the paths; `right` follows from `left` and is not read."""
        del right
        maps = [left] if self.reads_map else []
        maps += self.left.grow(left)
        if self.right is not None:
            maps += self.right.grow(left)
        merged: Tensor = self.merge(torch.cat(maps, dim=1))
        return merged


def conv_bn_relu(channels_in: int, channels_out: int, *, kernel: int) -> nn.Sequential:
    """Returns a same-size convolution with batch norm and ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


def _reading_signed(block: DenseBlock, channels: int, sign: float) -> DenseBlock:
    """Returns a copy that grows on a map of `channels` what the block grows on sign * map."""
    signed = copy.deepcopy(block)
    with torch.no_grad():
        for layer in signed.layers:
            assert isinstance(layer, nn.Sequential)
            assert isinstance(layer[0], nn.Conv2d)
            layer[0].weight[:, :channels] *= sign
    return signed


def _conv_from(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    conv.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv
