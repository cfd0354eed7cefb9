"""CASFM, the Calibrated Analogous Semantic Fusion Module (paper, equations 8 to 13).

Contract: both eyes' features, B x C/2 x H x W each, to F_fuse as tokens, B x N x d, with N the
positions that are left after pooling with k = 2. Tokens are rows, so that every projection is a
matrix product with a constant right-hand side, which engines quantise best.

Both eyes share the 1x1 convolutions and the projections W_Q, W_K, W_V, W_O, which carry no bias: in
a softmax over keys a bias of the keys cancels out. The paper's P_0 W_p is a product of two learned
tensors that only ever meet as a product, so it is stored as one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fundus_runtime.labels import Eye
from fundus_training.models.per_eye import EyeParameter

__all__ = ["CASFM", "CrossAttention", "Projection", "pool_maximum_and_average"]

_KERNEL = 2


class Projection(nn.Module):
    """Tokens times a learned matrix, `tokens @ weight`, without bias.

    `nn.Linear` stores the transpose, which the exporter then leaves in the graph as a node.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_in, width_out))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens @ self.weight


class CrossAttention(nn.Module):
    """Multi-head attention of one eye's queries over the other's keys and values (eq. 11).

    Args:
        width: d, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = Projection(width, width)
        self.key = Projection(width, width)
        self.value = Projection(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Returns Z, B x N x d: `queries` ask, `tokens` give keys and values, both B x N x d."""
        query = self._heads(self.query(queries) * self.scale)
        key = self._heads(self.key(tokens))
        value = self._heads(self.value(tokens))
        weights = torch.softmax(query @ key.transpose(2, 3), dim=-1)
        return (weights @ value).transpose(1, 2).flatten(2)

    def _heads(self, tokens: Tensor) -> Tensor:
        return torch.unflatten(tokens, 2, (self.heads, -1)).transpose(1, 2)


class CASFM(nn.Module):
    """Pooled tokens of both eyes, bidirectional cross-attention, adaptive residual, fusion.

    Args:
        channels: C/2 of the features.
        size: H = W of the features.
        width: d of the tokens.
        heads: Heads of the attention.
        pool_factor: `literal` multiplies both pools by 1/k^2 as eq. 8 prints (reading 5).
        positional_embedding: `per_eye` or `spatial` (reading 6).
        symmetric: Ties lambda, alpha, beta and the embeddings, and shares eq. 13's convolution
            over the two halves, so that swapping the eyes changes nothing (reading 7).
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        width: int,
        heads: int,
        pool_factor: str = "omitted",
        positional_embedding: str = "per_eye",
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding, side = _pooling(size)
        self.spatial = positional_embedding == "spatial"
        positions = side * side if self.spatial else 1
        self.pool_factor = 1 / _KERNEL**2 if pool_factor == "literal" else 1.0
        self.project = nn.Conv2d(channels, width, 1)
        self.recalibrate = nn.Conv2d(width, width, 1, bias=False)
        # Each is the sigmoid of a learned number, so it stays within [0, 1] and starts at 1/2.
        self.lambda_ = EyeParameter(1, tied=symmetric)
        self.alpha = EyeParameter(1, tied=symmetric)
        self.beta = EyeParameter(1, tied=symmetric)
        self.embedding = EyeParameter(1, positions, width, tied=symmetric, std=0.02)
        self.attention = CrossAttention(width, heads)
        self.output = Projection(width, width)
        self.fuse = Projection(width if symmetric else 2 * width, width)
        self.fuse_bias = nn.Parameter(torch.zeros(width))
        self.symmetric = symmetric
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.xavier_uniform_(self.recalibrate.weight)
        # Small, so that training starts from the pooled features and learns to attend.
        nn.init.normal_(self.output.weight, std=0.02)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        tokens_left = self.tokens(left, "left")
        tokens_right = self.tokens(right, "right")
        attended_left = self.attention(tokens_right, tokens_left)
        attended_right = self.attention(tokens_left, tokens_right)
        return self._fused(
            self._residual(attended_left, tokens_left, "left"),
            self._residual(attended_right, tokens_right, "right"),
        )

    def tokens(self, features: Tensor, eye: Eye) -> Tensor:
        """Returns F' of eqs. 8 to 10, B x N x d."""
        mixed = self.recalibrate(self._mixed_pools(self.project(features), eye))
        tokens: Tensor = mixed.flatten(2).transpose(1, 2) + self.embedding(eye)
        return tokens

    def _mixed_pools(self, projected: Tensor, eye: Eye) -> Tensor:
        maximum, average = pool_maximum_and_average(projected, self.stride, self.padding)
        share = torch.sigmoid(self.lambda_(eye))
        mixed: Tensor = (share * maximum + (1 - share) * average) * self.pool_factor
        return mixed

    def _residual(self, attended: Tensor, tokens: Tensor, eye: Eye) -> Tensor:
        alpha, beta = torch.sigmoid(self.alpha(eye)), torch.sigmoid(self.beta(eye))
        residual: Tensor = alpha * self.output(attended) + beta * tokens
        return residual

    def _fused(self, left: Tensor, right: Tensor) -> Tensor:
        both = left + right if self.symmetric else torch.cat([left, right], dim=2)
        fused: Tensor = self.fuse(both) + self.fuse_bias
        return fused


def pool_maximum_and_average(projected: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Returns eq. 8's two pools; padding is neither the maximum nor part of the average."""
    maximum = F.max_pool2d(projected, _KERNEL, stride, padding)
    average = F.avg_pool2d(projected, _KERNEL, stride, padding, count_include_pad=False)
    return maximum, average


def _pooling(size: int) -> tuple[int, int, int]:
    """Returns stride and padding of the pools on a map of side `size`, and the side they leave.

    Odd sides are padded, since an unpadded pool would never see the last row and column. A map of
    side 2 is pooled step by step: one token would leave the attention nothing to choose from.
    """
    if size <= _KERNEL:
        return 1, 1, size + 1
    return _KERNEL, size % _KERNEL, -(-size // _KERNEL)
