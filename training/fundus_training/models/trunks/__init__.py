"""Registry of the image trunks, each with torchvision's module names.

Contract: a trunk maps B x 3 x S x S to B x C x ceil(S/32) x ceil(S/32), tells its map of C'
channels with which that grid begins (`Trunk.parts`), and its state dict has the keys and shapes of
torchvision's model without the classifier, so that a user's pretrained file loads as it is. To add
a trunk, register a builder and its channels here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fundus_training.models.trunks.mobilenet_v2 import MobileNetV2
from fundus_training.models.trunks.parts import Trunk, TrunkMaps
from fundus_training.models.trunks.resnet import BasicBlock, Bottleneck, ResNet

__all__ = ["TRUNKS", "Trunk", "TrunkEntry", "TrunkMaps", "build_trunk"]


@dataclass(frozen=True)
class TrunkEntry:
    """How to build a trunk, C, the channels that come out of it, and C' of its early map."""

    build: Callable[[], Trunk]
    channels: int
    early_channels: int


TRUNKS: dict[str, TrunkEntry] = {
    "resnet18": TrunkEntry(partial(ResNet, BasicBlock, (2, 2, 2, 2)), 512, 512),
    "resnet34": TrunkEntry(partial(ResNet, BasicBlock, (3, 4, 6, 3)), 512, 512),
    "resnet50": TrunkEntry(partial(ResNet, Bottleneck, (3, 4, 6, 3)), 2048, 2048),
    "resnet101": TrunkEntry(partial(ResNet, Bottleneck, (3, 4, 23, 3)), 2048, 2048),
    "resnet152": TrunkEntry(partial(ResNet, Bottleneck, (3, 8, 36, 3)), 2048, 2048),
    "resnext50_32x4d": TrunkEntry(
        partial(ResNet, Bottleneck, (3, 4, 6, 3), groups=32, width_per_group=4), 2048, 2048
    ),
    "mobilenet_v2": TrunkEntry(MobileNetV2, 320, 160),
}


def build_trunk(name: str) -> Trunk:
    """Builds the trunk called `name`, randomly initialised; `name` is a key of `TRUNKS`."""
    return TRUNKS[name].build()
