"""OSIM, the OmniPool Spatial Integrator Module (paper, equations 1 to 7).

Contract: one eye's trunk output X, B x C x H x W, to its features F, B x C/2 x H x W. H = W is
fixed when the module is made, because pooling and resizing are constant matrices: exporters turn
adaptive pooling into gathers that engines refuse.

Equation 6 convolves the concatenation of five maps. A 1x1 convolution is linear and acts on
channels alone, so it is computed here as the sum of five, each where it is cheapest: the global
pools' share on 1x1, the scales' shares on their small grids before the resize. That is about a
fifth of the work and the same function.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["OSIM", "FoldedOSIM", "pool_matrix", "resize_matrix"]

_SCALES = (2, 4)


def pool_matrix(size: int, scale: int, *, reading: str) -> Tensor:
    """Returns average pooling as a matrix.

    Args:
        size: H = W of the map.
        scale: Output side for reading `grid`, side and stride of the kernel for `kernel`; kernels
            that overhang the map average what they cover.
        reading: `grid` or `kernel`.

    Returns:
        M of shape HW x n^2 with `map.flatten(2) @ M` the pooled map, n its side.
    """
    basis = torch.eye(size * size).view(-1, 1, size, size)
    if reading == "grid":
        pooled = F.adaptive_avg_pool2d(basis, scale)
    else:
        pooled = F.avg_pool2d(basis, min(scale, size), ceil_mode=True, count_include_pad=False)
    return pooled.flatten(1).contiguous()


def resize_matrix(side: int, size: int) -> Tensor:
    """Returns bilinear resizing from side x side to size x size as a matrix, side^2 x size^2."""
    basis = torch.eye(side * side).view(-1, 1, side, side)
    resized = F.interpolate(basis, size=(size, size), mode="bilinear", align_corners=False)
    return resized.flatten(1).contiguous()


class _Scales(nn.Module):
    """Pooling to OSIM's two scales and back, as constant matrices."""

    pool2: Tensor
    pool4: Tensor
    resize2: Tensor
    resize4: Tensor

    def __init__(self, size: int, reading: str) -> None:
        super().__init__()
        for scale in _SCALES:
            pool = pool_matrix(size, scale, reading=reading)
            resize = resize_matrix(round(pool.shape[1] ** 0.5), size)
            # Not persistent: they follow from the config, and a state dict is learned values.
            self.register_buffer(f"pool{scale}", pool, persistent=False)
            self.register_buffer(f"resize{scale}", resize, persistent=False)

    def forward(
        self, x: Tensor, reduce2: Callable[[Tensor], Tensor], reduce4: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Sums both scales' shares of eq. 6; `reduce*` are 1x1 convolutions on small grids."""
        flat = x.flatten(2)
        medium = reduce2(_square(flat @ self.pool2)).flatten(2) @ self.resize2
        coarse = reduce4(_square(flat @ self.pool4)).flatten(2) @ self.resize4
        return _square(medium + coarse)


class OSIM(nn.Module):
    """Five-scale pooling, channel reduction and spatial attention.

    Args:
        channels: C of the trunk's output.
        size: H = W of the trunk's output.
        scale_reading: `grid` or `kernel` (reading 3).
        attention: `1x1` or `7x7`, the kernel of eq. 7 (reading 4).
    """

    def __init__(self, channels: int, size: int, *, scale_reading: str, attention: str) -> None:
        super().__init__()
        kernel = 7 if attention == "7x7" else 1
        self.reduce = nn.Conv2d(5 * channels, channels // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels // 2)
        self.scales = _Scales(size, scale_reading)
        self.attention = nn.Conv2d(channels // 2, 1, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        reduced = F.relu(self.norm(self.reduce_maps(x)))
        return _attend(reduced, self.attention)

    def reduce_maps(self, x: Tensor) -> Tensor:
        """Returns eq. 6's convolution of eq. 5's concatenation, before the batch norm."""
        own, peak, mean, medium, coarse = self.reduce.weight.chunk(5, dim=1)
        pooled = F.conv2d(_global_maximum(x), peak) + F.conv2d(_global_mean(x), mean)
        scales: Tensor = self.scales(
            x, lambda grid: F.conv2d(grid, medium), lambda grid: F.conv2d(grid, coarse)
        )
        return F.conv2d(x, own) + pooled + scales

    def folded(self) -> FoldedOSIM:
        """Returns the same function in evaluation mode, as plain convolutions."""
        return FoldedOSIM(self)


class FoldedOSIM(nn.Module):
    """OSIM for export: the batch norm folded in, the reduction's weight stored as its parts.

    An engine then sees convolutions with constant weights and nothing to compute on weights.
    """

    def __init__(self, osim: OSIM) -> None:
        super().__init__()
        weight, bias = _folded_weight(osim.reduce, osim.norm)
        own, peak, mean, medium, coarse = weight.chunk(5, dim=1)
        self.own = _conv_from(own, bias)
        self.pooled = _conv_from(torch.cat([peak, mean], dim=1))
        self.medium = _conv_from(medium)
        self.coarse = _conv_from(coarse)
        self.scales = osim.scales
        self.attention = osim.attention

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(torch.cat([_global_maximum(x), _global_mean(x)], dim=1))
        scales = self.scales(x, self.medium, self.coarse)
        return _attend(F.relu(self.own(x) + pooled + scales), self.attention)


def _square(flat: Tensor) -> Tensor:
    side = round(flat.shape[2] ** 0.5)
    return torch.unflatten(flat, 2, (side, side))


def _global_maximum(x: Tensor) -> Tensor:
    return x.amax(dim=(2, 3), keepdim=True)


def _global_mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


def _attend(reduced: Tensor, attention: nn.Module) -> Tensor:
    gated: Tensor = reduced * torch.sigmoid(attention(reduced))
    return gated


def _folded_weight(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None  # the type allows norms without statistics
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale


def _conv_from(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    conv.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv
