"""The one description of a DMS-Net: every open reading of the paper is a field of `ModelConfig`.

Contract: immutable, validated when made, JSON-able by `to_dict`/`from_dict`; two models of equal
config have the same parameters and the same graph. The readings are argued in `docs/model.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from fundus_training.errors import ConfigError
from fundus_training.models.trunks import TRUNKS

__all__ = ["ModelConfig"]

Task = Literal["multi_label", "softmax"]
OsimScaleReading = Literal["grid", "kernel"]
OsimAttention = Literal["1x1", "7x7"]
OsimWeights = Literal["shared", "per_eye"]
PoolFactor = Literal["omitted", "literal"]
PositionalEmbedding = Literal["per_eye", "spatial"]
Mixing = Literal["per_eye", "symmetric"]
CafmGate = Literal["sigmoid", "softmax"]
CcamDifference = Literal["signed", "absolute"]
AuxiliaryInput = Literal["features", "trunk"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "trunk": tuple(TRUNKS),
    "task": get_args(Task),
    "osim_scale_reading": get_args(OsimScaleReading),
    "osim_attention": get_args(OsimAttention),
    "osim_weights": get_args(OsimWeights),
    "casfm_pool_factor": get_args(PoolFactor),
    "positional_embedding": get_args(PositionalEmbedding),
    "mixing": get_args(Mixing),
    "cafm_gate": get_args(CafmGate),
    "ccam_difference": get_args(CcamDifference),
    "auxiliary_input": get_args(AuxiliaryInput),
}
_SWITCHES = ("osim_left", "osim_right", "casfm", "cafm", "ccam", "ciam", "auxiliary_head")
_SMALLEST = {
    "num_classes": 1,
    "image_size": 64,
    "attention_heads": 1,
    "attention_width": 0,
    "dense_depth": 1,
    "dense_growth": 0,
}


@dataclass(frozen=True)
class ModelConfig:
    """What a `DMSNet` is made of; the defaults are the paper-sized model.

    Attributes:
        trunk: Name in `fundus_training.models.trunks.TRUNKS`, shared by both eyes.
        num_classes: Classes of the patient's and of each eye's logits.
        image_size: Side of the square input, in pixels, at least 64; fixes the output grid.
        task: What the logits mean, for loss and metrics; the graph is the same (reading 1).
        osim_scale_reading: Scales 2 and 4 are output grids or pooling kernels (reading 3).
        osim_attention: Kernel of eq. 7's convolution (reading 4).
        osim_weights: One OSIM for both eyes, or one an eye (reading 13).
        osim_left: Off replaces the left eye's OSIM by a 1x1 convolution (table 2).
        osim_right: The same for the right eye.
        casfm: Off removes CASFM and its share of the classifier (table 2).
        casfm_pool_factor: Eq. 8's factor 1/k^2 (reading 5).
        positional_embedding: One vector an eye, or one map an eye (reading 6).
        mixing: `symmetric` makes the patient's logits invariant to swapping the eyes (reading 7).
        attention_heads: Heads of CASFM's attention (reading 8).
        attention_width: d; 0 means C/4 rounded to a multiple of 64, at least 64 (reading 8).
        cafm: Off feeds CCAM and CIAM with the eyes' features as they are (reading 14).
        cafm_gate: CAFM's spatial gate (reading 10).
        ccam: Off removes CCAM (table 2).
        ccam_difference: Signed, one sign a path, or absolute (reading 11).
        ciam: Off removes CIAM (table 2).
        dense_depth: Layers of each dense block (reading 12).
        dense_growth: Channels that each layer adds; 0 means C/24 rounded to a multiple of 16,
            within 64 to 128 (reading 12).
        dropout: Probability before both classifiers.
        auxiliary_head: Per-eye logits beside the patient's.
        auxiliary_input: They are read from the eye's features F, or from the trunk's early map,
            where places are not mixed yet, so that their heat maps show where.
    """

    trunk: str = "resnet152"
    num_classes: int = 8
    image_size: int = 224
    task: Task = "multi_label"
    osim_scale_reading: OsimScaleReading = "grid"
    osim_attention: OsimAttention = "1x1"
    osim_weights: OsimWeights = "shared"
    osim_left: bool = True
    osim_right: bool = True
    casfm: bool = True
    casfm_pool_factor: PoolFactor = "omitted"
    positional_embedding: PositionalEmbedding = "per_eye"
    mixing: Mixing = "per_eye"
    attention_heads: int = 8
    attention_width: int = 0
    cafm: bool = True
    cafm_gate: CafmGate = "sigmoid"
    ccam: bool = True
    ccam_difference: CcamDifference = "signed"
    ciam: bool = True
    dense_depth: int = 3
    dense_growth: int = 0
    dropout: float = 0.2
    auxiliary_head: bool = True
    auxiliary_input: AuxiliaryInput = "features"

    def __post_init__(self) -> None:
        self._check_types_and_ranges()
        self._check_combinations()

    @property
    def trunk_channels(self) -> int:
        """C, the channels of the trunk's output."""
        return TRUNKS[self.trunk].channels

    @property
    def feature_channels(self) -> int:
        """C/2, the channels of an eye's features F."""
        return self.trunk_channels // 2

    @property
    def auxiliary_channels(self) -> int:
        """Channels of what the auxiliary head reads."""
        early = TRUNKS[self.trunk].early_channels
        return early if self.auxiliary_input == "trunk" else self.feature_channels

    @property
    def grid(self) -> int:
        """H = W of the trunk's output: five halvings, each rounded up."""
        return -(-self.image_size // 32)

    @property
    def width(self) -> int:
        """d, the attention width in use."""
        return self.attention_width or max(64, _to_multiple(self.trunk_channels / 4, 64))

    @property
    def growth(self) -> int:
        """The dense blocks' growth in use."""
        automatic = min(128, max(64, _to_multiple(self.trunk_channels / 24, 16)))
        return self.dense_growth or automatic

    @property
    def symmetric(self) -> bool:
        """Whether swapping the eyes leaves the patient's logits as they are."""
        return self.mixing == "symmetric"

    @property
    def eyes_share_encoder(self) -> bool:
        """Whether `encode` does the same for both eyes, so that one encoder graph serves both."""
        return self.osim_left == self.osim_right and self.osim_weights == "shared"

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as JSON-able values, one key a field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Builds a config from a mapping; absent keys take their defaults.

        Raises:
            ConfigError: A key is unknown, or a value is of the wrong kind or out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise ConfigError(
                f"the model config has unknown keys {', '.join(unknown)}; "
                f"known keys are {', '.join(known)}"
            )
        return cls(**values)

    def _check_types_and_ranges(self) -> None:
        for name, choices in _CHOICES.items():
            _require(getattr(self, name) in choices, name, self, f"one of {', '.join(choices)}")
        for name in _SWITCHES:
            _require(isinstance(getattr(self, name), bool), name, self, "true or false")
        for name, smallest in _SMALLEST.items():
            value = getattr(self, name)
            enough = isinstance(value, int) and not isinstance(value, bool) and value >= smallest
            _require(enough, name, self, f"a whole number of at least {smallest}")
        _require(_is_share(self.dropout), "dropout", self, "a number in [0, 1)")

    def _check_combinations(self) -> None:
        if not (self.casfm or self.ccam or self.ciam):
            raise ConfigError(
                "casfm, ccam and ciam are all off, which leaves the classifier no input; "
                "switch at least one on"
            )
        if self.width % self.attention_heads:
            raise ConfigError(
                f"the attention width {self.width} is no multiple of attention_heads "
                f"{self.attention_heads}; choose an attention_width that is"
            )
        if self.symmetric and not self.eyes_share_encoder:
            raise ConfigError(
                "mixing 'symmetric' needs the same encoder for both eyes; set osim_weights to "
                "'shared' and osim_left and osim_right to the same value, or mixing to 'per_eye'"
            )
        if self.task == "softmax" and self.num_classes < 2:
            raise ConfigError("task 'softmax' needs num_classes of at least 2, not 1")


def _to_multiple(value: float, step: int) -> int:
    return int(value / step + 0.5) * step


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _require(satisfied: bool, name: str, config: ModelConfig, expected: str) -> None:
    if not satisfied:
        raise ConfigError(f"{name} is {getattr(config, name)!r}; expected {expected}")
