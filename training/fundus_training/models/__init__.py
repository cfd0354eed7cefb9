"""DMS-Net and what builds it: config, trunks, modules, weights, and the form for export."""

from __future__ import annotations

from fundus_training.models.config import ModelConfig
from fundus_training.models.deploy import folded_copy
from fundus_training.models.dmsnet import DMSNet, DMSNetOutput, EyeFeatures
from fundus_training.models.weights import load_trunk_weights

__all__ = [
    "DMSNet",
    "DMSNetOutput",
    "EyeFeatures",
    "ModelConfig",
    "folded_copy",
    "load_trunk_weights",
]
