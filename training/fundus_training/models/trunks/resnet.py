"""ResNet and ResNeXt trunks without pooling and classifier, under torchvision's key names.

Contract: B x 3 x S x S to B x C x ceil(S/32) x ceil(S/32). The bottleneck strides in its 3x3
convolution ("v1.5"), as the weights in circulation expect. He et al. 2016, Xie et al. 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from fundus_training.models.trunks.parts import Trunk, TrunkMaps

__all__ = ["BasicBlock", "Bottleneck", "ResNet"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        stride: int,
        downsample: nn.Module | None,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        del groups, width_per_group  # only bottlenecks have ResNeXt forms
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(y)) + shortcut)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided, perhaps grouped) and 1x1 convolution, and a shortcut."""

    expansion = 4

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        stride: int,
        downsample: nn.Module | None,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        width = channels * width_per_group // 64 * groups
        channels_out = channels * self.expansion
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        out: Tensor = self.relu(self.bn3(self.conv3(y)) + shortcut)
        return out


class ResNet(Trunk):
    """Stem and four stages of `block`; `depths` is the number of blocks in each."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        build = partial(block, groups=groups, width_per_group=width_per_group)
        widths = [64 * block.expansion * 2**stage for stage in range(4)]
        self.layer1 = _stage(build, 64, widths[0], channels=64, depth=depths[0], stride=1)
        self.layer2 = _stage(build, widths[0], widths[1], channels=128, depth=depths[1], stride=2)
        self.layer3 = _stage(build, widths[1], widths[2], channels=256, depth=depths[2], stride=2)
        self.layer4 = _stage(build, widths[2], widths[3], channels=512, depth=depths[3], stride=2)
        _initialise(self)

    def parts(self, image: Tensor) -> TrunkMaps:
        """Returns both maps of B images; see `Trunk`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        first, *rest = self.layer4
        early = first(self.layer3(self.layer2(self.layer1(x))))
        out = early
        for block in rest:
            out = block(out)
        return TrunkMaps(early, out)


def _stage(
    build: Callable[..., nn.Module],
    channels_in: int,
    channels_out: int,
    *,
    channels: int,
    depth: int,
    stride: int,
) -> nn.Sequential:
    shortcut = _shortcut(channels_in, channels_out, stride)
    first = build(channels_in, channels, stride=stride, downsample=shortcut)
    rest = [build(channels_out, channels, stride=1, downsample=None) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
    )


def _initialise(trunk: nn.Module) -> None:
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
