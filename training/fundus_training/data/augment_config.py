"""How strongly pairs are varied in training; what each step does is in `augment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fundus_training.errors import ConfigError

__all__ = ["AugmentConfig"]

_PROBABILITIES = frozenset({"flip_and_swap", "blur", "noise", "jpeg", "cutmix", "drop_eye"})


@dataclass(frozen=True)
class AugmentConfig:
    """How strongly pairs are varied; probabilities and half-widths, 0 switches a step off.

    Attributes:
        flip_and_swap: probability of mirroring both eyes and swapping them.
        rotation_degrees: an eye turns by up to this either way.
        scale: an eye is scaled by 1 - scale to 1 + scale.
        aspect: width over height varies by this share.
        translation: an eye moves by up to this share of its side.
        brightness: levels are multiplied by 1 - brightness to 1 + brightness.
        contrast: the same for the distance from the middle level.
        saturation: the same for the distance from grey.
        gamma: levels are raised to exp(-gamma) to exp(gamma).
        channel_gain: red, green and blue are multiplied by up to 1 +- this each: a colour cast.
        blur: probability of a slight blur, an eye.
        noise: probability of noise of up to 6 levels, an eye.
        jpeg: probability of a JPEG of quality 40 to 90, an eye.
        cutmix: probability of a box from another patient with the same labels.
        drop_eye: probability of leaving one eye of two out.
    """

    flip_and_swap: float = 0.5
    rotation_degrees: float = 15.0
    scale: float = 0.1
    aspect: float = 0.05
    translation: float = 0.04
    brightness: float = 0.15
    contrast: float = 0.2
    saturation: float = 0.2
    gamma: float = 0.15
    channel_gain: float = 0.06
    blur: float = 0.1
    noise: float = 0.1
    jpeg: float = 0.1
    cutmix: float = 0.25
    drop_eye: float = 0.1

    def __post_init__(self) -> None:
        limits = {"rotation_degrees": 180.0, "gamma": 2.0}
        for name, value in asdict(self).items():
            limit = limits.get(name, 1.0 if name in _PROBABILITIES else 0.9)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"augmentation {name} is {value!r}, expected a number")
            if not 0.0 <= value <= limit:
                raise ConfigError(f"augmentation {name} is {value}, expected 0 to {limit:g}")

    @classmethod
    def none(cls) -> AugmentConfig:
        """Nothing is changed."""
        return cls(**dict.fromkeys((field.name for field in fields(cls)), 0.0))

    def to_dict(self) -> dict[str, float]:
        """The values by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AugmentConfig:
        """Read values back; those that are left out keep their defaults.

        Raises:
            ConfigError: a name is unknown or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown augmentation {unknown}; known are {sorted(known)}")
        return cls(**values)
