"""MobileNetV2 (width 1.0) cut before its last convolution, under torchvision's key names.

Contract: B x 3 x S x S to B x 320 x ceil(S/32) x ceil(S/32); `features.0` to `features.17`. The
last 1x1 convolution to 1280 channels (`features.18`) is left out: OSIM takes its place at a
fraction of the cost. Sandler et al. 2018.
"""

from __future__ import annotations

from torch import Tensor, nn

from fundus_training.models.trunks.parts import Trunk, TrunkMaps

__all__ = ["InvertedResidual", "MobileNetV2"]

# Expansion, channels out, blocks, stride of the first block: table 2 of the MobileNetV2 paper.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The stem, and all blocks up to the first of the last stride: what follows stays on that grid.
_EARLY_BLOCKS = 15


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a shortcut where shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_bn_relu6(channels_in, hidden, kernel=1))
        layers.append(_conv_bn_relu6(hidden, hidden, kernel=3, stride=stride, groups=hidden))
        layers.append(nn.Conv2d(hidden, channels_out, 1, bias=False))
        layers.append(nn.BatchNorm2d(channels_out))
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(Trunk):
    """Stem and seven stages of inverted residuals."""

    def __init__(self) -> None:
        super().__init__()
        channels = 32
        features: list[nn.Module] = [_conv_bn_relu6(3, channels, kernel=3, stride=2)]
        for expansion, channels_out, blocks, first_stride in _STAGES:
            for index in range(blocks):
                stride = 1 if index else first_stride
                features.append(
                    InvertedResidual(channels, channels_out, stride=stride, expansion=expansion)
                )
                channels = channels_out
        self.features = nn.Sequential(*features)
        _initialise(self)

    def parts(self, image: Tensor) -> TrunkMaps:
        """Returns both maps of B images; see `Trunk`."""
        early = image
        blocks = list(self.features)
        for block in blocks[:_EARLY_BLOCKS]:
            early = block(early)
        out = early
        for block in blocks[_EARLY_BLOCKS:]:
            out = block(out)
        return TrunkMaps(early, out)


def _conv_bn_relu6(
    channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(inplace=True),
    )


def _initialise(trunk: nn.Module) -> None:
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
