"""DMS-Net: two fundus photographs in, one bilateral answer out.

Contract: images are float32, B x 3 x S x S, preprocessed and normalised, S as in the config. The
model falls into an encoder, which one eye needs alone, and a head, which needs both: `encode` and
`fuse` are what is exported, `forward` is both for training. Outputs are logits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fundus_runtime.labels import EYES, Eye
from fundus_training.errors import ConfigError
from fundus_training.models.config import ModelConfig
from fundus_training.models.head import (
    AuxiliaryHead,
    BilateralHead,
    FoldedAuxiliaryHead,
    FoldedHead,
)
from fundus_training.models.osim import OSIM
from fundus_training.models.per_eye import EyeParameter
from fundus_training.models.trunks import TrunkMaps, build_trunk

__all__ = ["DMSNet", "DMSNetOutput", "EyeFeatures"]


class EyeFeatures(NamedTuple):
    """What the encoder makes of one eye.

    Attributes:
        features: F, B x C/2 x H x W.
        logits: The eye's own logits, B x K; None without the auxiliary head.
        maps: Each place's share of them, B x K x H x W: `logits` is their mean. None likewise.
    """

    features: Tensor
    logits: Tensor | None
    maps: Tensor | None


class DMSNetOutput(NamedTuple):
    """What the model makes of a batch of pairs.

    Attributes:
        logits: The patients' logits, B x K.
        left_logits: The left eyes' own logits, B x K; None without the auxiliary head. They mean
            nothing where the eye is absent.
        right_logits: The same of the right eyes.
    """

    logits: Tensor
    left_logits: Tensor | None
    right_logits: Tensor | None


class DMSNet(nn.Module):
    """Siamese trunk, OSIM, and the bilateral head of CASFM, CCAM and CIAM.

    Args:
        config: Every choice there is to make; see `ModelConfig`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = build_trunk(config.trunk)
        self.osim = _reducers(config)
        self.auxiliary: AuxiliaryHead | FoldedAuxiliaryHead | None = (
            AuxiliaryHead(config.auxiliary_channels, config.num_classes, dropout=config.dropout)
            if config.auxiliary_head
            else None
        )
        self.absent = EyeParameter(
            1, config.feature_channels, 1, 1, tied=config.symmetric, std=0.02
        )
        self.head: BilateralHead | FoldedHead = BilateralHead(config)

    def encode(self, image: Tensor, eye: Eye = "left") -> EyeFeatures:
        """Encodes photographs of one eye: trunk, OSIM and the auxiliary head.

        Args:
            image: B x 3 x S x S.
            eye: Which eye they show; it matters only where the eyes do not share their OSIM.

        Raises:
            ConfigError: The images are not of the size that the model was made for.
        """
        self._check_size(image)
        maps = self.trunk.parts(image)
        return self._described(maps, self._reduce(maps.out, eye))

    def encode_each(self, image: Tensor, is_left: Tensor) -> EyeFeatures:
        """Encodes photographs of either eye in one batch, for models whose eyes differ in OSIM.

        Args:
            image: B x 3 x S x S.
            is_left: B numbers, 1 where the row shows a left eye, 0 where a right one.

        Raises:
            ConfigError: The images are not of the size that the model was made for.
        """
        self._check_size(image)
        maps = self.trunk.parts(image)
        left, right = (self._reduce(maps.out, eye) for eye in EYES)
        return self._described(maps, torch.where(_holds(is_left), left, right))

    def fuse(
        self,
        features_left: Tensor,
        features_right: Tensor,
        left_present: Tensor,
        right_present: Tensor,
    ) -> Tensor:
        """Returns the patients' logits, B x K, from both eyes' features.

        Args:
            features_left: F of the left eyes, B x C/2 x H x W.
            features_right: F of the right eyes.
            left_present: B numbers, 1 where the left eye was photographed; where it is 0 the
                learned absent token takes the features' place, whatever they hold.
            right_present: The same of the right eyes.
        """
        left = self._or_absent(features_left, left_present, "left")
        right = self._or_absent(features_right, right_present, "right")
        logits: Tensor = self.head(left, right)
        return logits

    def forward(
        self,
        left: Tensor,
        right: Tensor,
        left_present: Tensor | None = None,
        right_present: Tensor | None = None,
    ) -> DMSNetOutput:
        """Encodes and fuses pairs, both eyes through the trunk in one batch of 2B.

        Args:
            left: Left eyes, B x 3 x S x S.
            right: Right eyes, of the same shape.
            left_present: B numbers, 1 where the left eye is there, None for all. An absent eye's
                image must still be finite in training: the trunk's batch norms see it.
            right_present: The same of the right eyes.
        """
        of_left, of_right = self._encode_pairs(left, right)
        present = left.new_ones(left.shape[0])
        logits = self.fuse(
            of_left.features,
            of_right.features,
            present if left_present is None else left_present,
            present if right_present is None else right_present,
        )
        return DMSNetOutput(logits, of_left.logits, of_right.logits)

    def _encode_pairs(self, left: Tensor, right: Tensor) -> tuple[EyeFeatures, EyeFeatures]:
        self._check_size(left)
        self._check_size(right)
        both = self.trunk.parts(torch.cat([left, right]))
        halves = zip(*(maps.chunk(2) for maps in both), strict=True)
        maps_left, maps_right = (TrunkMaps(*half) for half in halves)
        if self.config.eyes_share_encoder:
            features_left, features_right = self._reduce(both.out, "left").chunk(2)
        else:
            features_left = self._reduce(maps_left.out, "left")
            features_right = self._reduce(maps_right.out, "right")
        return (
            self._described(maps_left, features_left),
            self._described(maps_right, features_right),
        )

    def _reduce(self, maps: Tensor, eye: Eye) -> Tensor:
        name = "both" if self.config.eyes_share_encoder else eye
        features: Tensor = self.osim[name](maps)
        return features

    def _described(self, maps: TrunkMaps, features: Tensor) -> EyeFeatures:
        if self.auxiliary is None:
            return EyeFeatures(features, None, None)
        read = maps.early if self.config.auxiliary_input == "trunk" else features
        return EyeFeatures(features, *self.auxiliary.described(read))

    def _or_absent(self, features: Tensor, present: Tensor, eye: Eye) -> Tensor:
        return torch.where(_holds(present), features, self.absent(eye))

    def _check_size(self, image: Tensor) -> None:
        size = self.config.image_size
        if image.dim() != 4 or tuple(image.shape[1:]) != (3, size, size):
            raise ConfigError(
                f"the images are of shape {tuple(image.shape)}; this model expects "
                f"(B, 3, {size}, {size}): preprocess to that size or set image_size"
            )


def _holds(flags: Tensor) -> Tensor:
    """Returns B flags as conditions over maps: a selection, unlike a product, stops a NaN."""
    return flags.view(-1, 1, 1, 1) > 0.5


def _reducers(config: ModelConfig) -> nn.ModuleDict:
    if config.eyes_share_encoder:
        return nn.ModuleDict({"both": _reducer(config, kept=config.osim_left)})
    kept = {"left": config.osim_left, "right": config.osim_right}
    return nn.ModuleDict({eye: _reducer(config, kept=kept[eye]) for eye in EYES})


def _reducer(config: ModelConfig, *, kept: bool) -> nn.Module:
    if not kept:
        return nn.Conv2d(config.trunk_channels, config.feature_channels, 1)
    return OSIM(
        config.trunk_channels,
        config.grid,
        scale_reading=config.osim_scale_reading,
        attention=config.osim_attention,
    )
