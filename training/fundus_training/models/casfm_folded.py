"""CASFM for export, as far as the classifier reads it.

The classifier reads the mean of F_fuse over its tokens, and all that lies between the attention's
weights and that mean is linear: the values, W_O, the mixing with alpha and beta, and equation 13.
So the mean is taken of the attention's weights, and these maps become one matrix with the
classifier's. With X the mixed pools as tokens, B x N x d, and R and E equation 10's convolution and
embedding, the tokens are T = X R + E. The queries T W_Q are X (R W_Q) + E W_Q, and since an eye's
attention weights p sum to one, p T is (p X) R + p E. What is left to compute are the pools, queries
and keys, and the softmax: the same function with its products in another order, those of constants
taken once and in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fundus_runtime.labels import EYES, Eye
from fundus_training.models.casfm import CASFM, pool_maximum_and_average

__all__ = ["FoldedCASFM"]


class FoldedCASFM(nn.Module):
    """Both eyes' features to M numbers a pair, of which the classifier's share is linear.

    Args:
        casfm: What to fold; it is left as it is.
        classifier: K x d, what the classifier multiplies the mean of F_fuse with.

    Attributes:
        share: K x M, what it is to multiply these numbers with instead, in float64.
        offset: K, what it is to add to that, in float64.
    """

    def __init__(self, casfm: CASFM, classifier: Tensor) -> None:
        super().__init__()
        self.project = casfm.project
        self.stride, self.padding = casfm.stride, casfm.padding
        self.heads = casfm.attention.heads
        self.spatial = casfm.spatial
        recalibrate = _recalibration(casfm)
        query = casfm.attention.query.weight.double() * casfm.attention.scale
        key = casfm.attention.key.weight.double()
        self.query = nn.Parameter((recalibrate @ query).float())
        self.key = nn.Parameter((recalibrate @ key).float())
        self.tied = casfm.symmetric
        for eye in EYES[:1] if self.tied else EYES:
            embedding = _embedding(casfm, eye)
            maximum = torch.sigmoid(casfm.lambda_(eye).double())
            self._keep("maximum", eye, maximum * casfm.pool_factor)
            self._keep("average", eye, (1 - maximum) * casfm.pool_factor)
            self._keep("query", eye, (embedding @ query).squeeze(0))
            self._keep("key", eye, (embedding @ key).squeeze(0))
        self.share, self.offset = _share_and_offset(casfm, classifier.double().T)

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Returns the M numbers in parts, to be concatenated along axis 1."""
        pools_left, pools_right = self._mixed_pools(left, "left"), self._mixed_pools(right, "right")
        tokens_left, tokens_right = _tokens(pools_left), _tokens(pools_right)
        weights_left = self._mean_weights(
            self._queries(tokens_right, "right"), self._keys(tokens_left, "left")
        )
        weights_right = self._mean_weights(
            self._queries(tokens_left, "left"), self._keys(tokens_right, "right")
        )
        parts = [
            (weights_left @ tokens_left).flatten(1),
            (weights_right @ tokens_right).flatten(1),
            pools_left.mean(dim=(2, 3)),
            pools_right.mean(dim=(2, 3)),
        ]
        if self.spatial:
            parts += [weights_left.flatten(1), weights_right.flatten(1)]
        return parts

    def _keep(self, name: str, eye: Eye, value: Tensor) -> None:
        self.register_buffer(f"{name}_{'both' if self.tied else eye}", value.detach().float())

    def _kept(self, name: str, eye: Eye) -> Tensor:
        return self.get_buffer(f"{name}_{'both' if self.tied else eye}")

    def _mixed_pools(self, features: Tensor, eye: Eye) -> Tensor:
        maximum, average = pool_maximum_and_average(
            self.project(features), self.stride, self.padding
        )
        return self._kept("maximum", eye) * maximum + self._kept("average", eye) * average

    def _queries(self, tokens: Tensor, eye: Eye) -> Tensor:
        return self._in_heads(tokens @ self.query + self._kept("query", eye))

    def _keys(self, tokens: Tensor, eye: Eye) -> Tensor:
        keys = tokens @ self.key
        # What all keys have in common cancels out in the softmax.
        return self._in_heads(keys + self._kept("key", eye) if self.spatial else keys)

    def _in_heads(self, tokens: Tensor) -> Tensor:
        return torch.unflatten(tokens, 2, (self.heads, -1)).transpose(1, 2)

    def _mean_weights(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Returns how much each head takes of each token, B x heads x N, the mean over queries."""
        return torch.softmax(queries @ keys.transpose(2, 3), dim=-1).mean(dim=2)


def _tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def _recalibration(casfm: CASFM) -> Tensor:
    """Returns R, d x d."""
    return casfm.recalibrate.weight.double().flatten(1).t()


def _embedding(casfm: CASFM, eye: Eye) -> Tensor:
    """Returns E, N x d, or 1 x d where it is the same at all positions."""
    embedding: Tensor = casfm.embedding(eye)
    return embedding.double().squeeze(0)


def _share_and_offset(casfm: CASFM, classifier: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the classifier's share, K x M, and its offset, K.

    Args:
        casfm: What is folded.
        classifier: d x K in float64.
    """
    recalibrate, heads = _recalibration(casfm), casfm.attention.heads
    value, output = casfm.attention.value.weight.double(), casfm.output.weight.double()
    fuse = casfm.fuse.weight.double()
    attended, residual, placed = [], [], []
    offset = casfm.fuse_bias.double() @ classifier
    for eye, half in zip(EYES, (fuse, fuse) if casfm.symmetric else fuse.chunk(2), strict=True):
        embedding, tail = _embedding(casfm, eye), half @ classifier
        alpha, beta = (torch.sigmoid(p(eye).double()) for p in (casfm.alpha, casfm.beta))
        # heads x d x K: an eye's token, as a head takes it in, to the logits
        by_head = torch.stack(
            [v @ o for v, o in zip(value.chunk(heads, 1), output.chunk(heads), strict=True)]
        ) @ (alpha * tail)
        attended.append((recalibrate @ by_head).flatten(0, 1))
        residual.append(beta * recalibrate @ tail)
        offset = offset + beta * embedding.mean(dim=0) @ tail
        if casfm.spatial:
            placed.append((embedding @ by_head).flatten(0, 1))
        else:
            offset = offset + (embedding @ by_head).sum(dim=(0, 1))
    return torch.cat([*attended, *residual, *placed]).T, offset
