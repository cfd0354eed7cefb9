"""The two classifiers: the bilateral head over both eyes, and the auxiliary one over each.

Contract: features F of an eye are B x C/2 x H x W; logits are B x K. The auxiliary head is linear
in a map's mean, so that its logits are the mean of a map too, B x K x H x W: each place's share of
them, exactly (class activation mapping, Zhou et al. 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fundus_training.models.cafm import CAFM
from fundus_training.models.casfm import CASFM
from fundus_training.models.casfm_folded import FoldedCASFM
from fundus_training.models.ccam import CCAM
from fundus_training.models.ciam import CIAM
from fundus_training.models.config import ModelConfig
from fundus_training.models.dense import DualPath

__all__ = ["AuxiliaryHead", "BilateralHead", "FoldedAuxiliaryHead", "FoldedHead"]


class AuxiliaryHead(nn.Module):
    """One eye's logits from its own map: global average, dropout, linear."""

    def __init__(self, channels: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = _classifier(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(features.mean(dim=(2, 3))))
        return logits

    def described(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits, B x K, and each place's share of them, B x K x H x W."""
        weight = self.linear.weight[:, :, None, None]
        return self(features), F.conv2d(features, weight, self.linear.bias)

    def folded(self) -> FoldedAuxiliaryHead:
        """Returns the same function in evaluation mode, the logits as the mean of the shares."""
        return FoldedAuxiliaryHead(self)


class FoldedAuxiliaryHead(nn.Module):
    """The auxiliary head for export: a 1x1 convolution and its mean over places."""

    def __init__(self, head: AuxiliaryHead) -> None:
        super().__init__()
        linear = head.linear
        self.conv = nn.Conv2d(linear.in_features, linear.out_features, 1)
        self.conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None].clone())
        self.conv.bias = nn.Parameter(linear.bias.detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        return self.described(features)[0]

    def described(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits, B x K, and each place's share of them, B x K x H x W."""
        maps: Tensor = self.conv(features)
        return maps.mean(dim=(2, 3)), maps


class BilateralHead(nn.Module):
    """Both eyes' features to the patient's logits: CASFM, CCAM and CIAM side by side.

    A component that the config switches off is None and has no share in the classifier.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.casfm = _casfm(config) if config.casfm else None
        self.ccam = _ccam(config) if config.ccam else None
        self.ciam = CIAM(_cafm(config), _dual_path(config)) if config.ciam else None
        channels = config.width * config.casfm
        channels += config.feature_channels * (config.ccam + config.ciam)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = _classifier(channels, config.num_classes)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        pooled = []
        if self.casfm is not None:
            pooled.append(self.casfm(left, right).mean(dim=1))
        if self.ccam is not None:
            pooled.append(self.ccam(left, right).mean(dim=(2, 3)))
        if self.ciam is not None:
            pooled.append(self.ciam(left, right).mean(dim=(2, 3)))
        logits: Tensor = self.linear(self.dropout(torch.cat(pooled, dim=1)))
        return logits


class FoldedHead(nn.Module):
    """The bilateral head for export, evaluation mode; its norms must be folded.

    CASFM ends at what the classifier reads of it, CCAM and CIAM have folded paths, and the mean of
    CIAM's residual is that of both eyes' features, which CAFM takes too.
    """

    def __init__(self, head: BilateralHead) -> None:
        super().__init__()
        weight, bias = head.linear.weight.detach(), head.linear.bias.detach().double()
        self.casfm: FoldedCASFM | None = None
        if head.casfm is not None:
            width = head.casfm.fuse_bias.numel()
            self.casfm = FoldedCASFM(head.casfm, weight[:, :width])
            weight = torch.cat([self.casfm.share, weight[:, width:]], dim=1)
            bias = bias + self.casfm.offset
        self.ccam = head.ccam.folded() if head.ccam is not None else None
        self.ciam = head.ciam.folded() if head.ciam is not None else None
        self.linear = nn.Linear(weight.shape[1], weight.shape[0])
        self.linear.weight = nn.Parameter(weight.float())
        self.linear.bias = nn.Parameter(bias.float())

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        parts = []
        if self.casfm is not None:
            parts += self.casfm(left, right)
        if self.ccam is not None:
            parts.append(self.ccam(left, right).mean(dim=(2, 3)))
        if self.ciam is not None:
            means = [maps.mean(dim=(2, 3), keepdim=True) for maps in (left, right)]
            aligned = self.ciam.aligned(left, right).mean(dim=(2, 3), keepdim=True)
            parts.append((aligned + (means[0] + means[1])).flatten(1))
        logits: Tensor = self.linear(torch.cat(parts, dim=1))
        return logits


def _casfm(config: ModelConfig) -> CASFM:
    return CASFM(
        config.feature_channels,
        config.grid,
        width=config.width,
        heads=config.attention_heads,
        pool_factor=config.casfm_pool_factor,
        positional_embedding=config.positional_embedding,
        symmetric=config.symmetric,
    )


def _ccam(config: ModelConfig) -> CCAM:
    absolute = config.ccam_difference == "absolute"
    return CCAM(_cafm(config), _dual_path(config), absolute=absolute)


def _cafm(config: ModelConfig) -> CAFM | None:
    return CAFM(config.feature_channels, gate=config.cafm_gate) if config.cafm else None


def _dual_path(config: ModelConfig) -> DualPath:
    return DualPath(
        config.feature_channels,
        depth=config.dense_depth,
        growth=config.growth,
        symmetric=config.symmetric,
    )


def _classifier(channels: int, num_classes: int) -> nn.Linear:
    linear = nn.Linear(channels, num_classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
