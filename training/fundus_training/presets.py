"""What a training run is made of: model, preprocessing and recipe, and the presets that ship.

`RunConfig` is immutable and JSON-able; `--dump-config` prints it, `--config` reads it back. Unknown
keys are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from fundus_runtime.errors import SpecError
from fundus_runtime.preprocess import PreprocessSpec
from fundus_training.data.augment import AugmentConfig
from fundus_training.data.splits import SplitFractions
from fundus_training.errors import ConfigError
from fundus_training.models import ModelConfig

__all__ = ["PRESETS", "Precision", "RunConfig", "TrainConfig", "preset"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainConfig:
    """The recipe.

    Attributes:
        epochs: passes over the training patients; the cosine schedule ends with the last.
        batch_size: pairs that go through the model at once.
        accumulate: batches whose gradients are summed before a step.
        learning_rate: peak rate of AdamW.
        trunk_rate_factor: the trunk's share of it; below 1 for a pretrained trunk.
        weight_decay: on matrices and kernels alone, not on biases, norms and scalars.
        warmup_epochs: linear warm-up, in epochs; fractions are allowed.
        ema_decay: of the averaged weights that are validated and saved; 0 switches averaging off.
        class_weight_power: a class's positive weight is (negatives / positives) to this power.
        class_weight_limit: upper bound of that weight.
        eye_loss_weight: of the per-eye outputs against keyword-derived eye labels.
        label_smoothing: share of each target moved to one half.
        clip_norm: largest norm of the gradient; 0 switches clipping off.
        precision: ``auto`` is bf16 or fp16 on a GPU that has it, FP32 elsewhere.
        seed: of split, initialisation, order and augmentation.
        workers: processes that load pairs; -1 chooses 0 on the CPU and up to 8 with a GPU.
    """

    epochs: int = 30
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 3e-4
    trunk_rate_factor: float = 0.3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    ema_decay: float = 0.998
    class_weight_power: float = 0.3
    class_weight_limit: float = 10.0
    eye_loss_weight: float = 0.5
    label_smoothing: float = 0.02
    clip_norm: float = 5.0
    precision: Precision = "auto"
    seed: int = 0
    workers: int = -1

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: a value is of the wrong kind or out of range.
        """
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            whole = isinstance(getattr(type(self), name), int)
            kinds = (int,) if whole else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise ConfigError(f"{name} is {value!r}, expected {kind} from {low} to {high}")
        if self.precision not in get_args(Precision):
            raise ConfigError(
                f"precision is {self.precision!r}, expected one of {', '.join(get_args(Precision))}"
            )


_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch_size": (1, 4096),
    "accumulate": (1, 4096),
    "learning_rate": (1e-8, 10.0),
    "trunk_rate_factor": (0.0, 10.0),
    "weight_decay": (0.0, 10.0),
    "warmup_epochs": (0.0, 1000.0),
    "ema_decay": (0.0, 0.999999),
    "class_weight_power": (0.0, 1.0),
    "class_weight_limit": (1.0, 1000.0),
    "eye_loss_weight": (0.0, 100.0),
    "label_smoothing": (0.0, 0.5),
    "clip_norm": (0.0, 1e6),
    "seed": (0, 2**31 - 1),
    "workers": (-1, 256),
}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes, data aside."""

    model: ModelConfig = field(default_factory=ModelConfig)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    split: SplitFractions = field(default_factory=SplitFractions)

    def __post_init__(self) -> None:
        if self.model.image_size != self.preprocess.size:
            raise ConfigError(
                f"the model takes {self.model.image_size} px images but the preprocessing makes "
                f"{self.preprocess.size} px ones; give both the same size"
            )

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-able values."""
        return {
            "model": self.model.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "augment": self.augment.to_dict(),
            "train": asdict(self.train),
            "split": asdict(self.split),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, base: RunConfig | None = None) -> RunConfig:
        """Read `to_dict`'s values; what they leave out stays as in `base`.

        Raises:
            ConfigError: a key is unknown, or a value does not fit.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"the config is {type(values).__name__}, expected a table of sections"
            )
        current = (base or cls()).to_dict()
        _refuse_unknown(values, current, where="the config")
        for section, given in values.items():
            if not isinstance(given, Mapping):
                raise ConfigError(f"section {section} of the config is no table of values")
            _refuse_unknown(given, current[section], where=f"section {section} of the config")
            current[section].update(given)
        try:
            return cls(
                model=ModelConfig.from_dict(current["model"]),
                preprocess=PreprocessSpec.from_dict(current["preprocess"]),
                augment=AugmentConfig.from_dict(current["augment"]),
                train=TrainConfig(**current["train"]),
                split=SplitFractions(**current["split"]),
            )
        except (SpecError, TypeError) as error:
            raise ConfigError(f"a value of the config does not fit: {error}") from error

    def for_classes(self, count: int) -> RunConfig:
        """The same run with this many outputs."""
        return replace(self, model=replace(self.model, num_classes=count))

    def with_train(self, **changes: Any) -> RunConfig:
        """The same run with some values of the recipe changed."""
        return replace(self, train=replace(self.train, **changes))

    def unregularised(self) -> RunConfig:
        """The same model with augmentation and every regulariser off, to see whether it can fit."""
        train = replace(
            self.train, weight_decay=0.0, label_smoothing=0.0, ema_decay=0.0, clip_norm=0.0
        )
        return replace(
            self,
            model=replace(self.model, dropout=0.0),
            augment=AugmentConfig.none(),
            train=train,
        )


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], *, where: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"{where} has unknown keys {unknown}; known are {sorted(known)}")


def _sized(size: int) -> PreprocessSpec:
    """The default preprocessing at another size, the illumination window in proportion."""
    return PreprocessSpec(size=size, illumination_window_px=size // 6 | 1)


PRESETS: dict[str, RunConfig] = {
    "paper": RunConfig(
        model=ModelConfig(trunk="resnet152", image_size=224),
        preprocess=_sized(224),
        train=TrainConfig(epochs=40, batch_size=16, accumulate=2, learning_rate=3e-4),
    ),
    "paper-448": RunConfig(
        model=ModelConfig(trunk="resnet152", image_size=448),
        preprocess=_sized(448),
        train=TrainConfig(epochs=40, batch_size=8, accumulate=4, learning_rate=3e-4),
    ),
    "edge": RunConfig(
        model=ModelConfig(trunk="mobilenet_v2", image_size=224, dropout=0.3),
        preprocess=_sized(224),
        train=TrainConfig(
            epochs=14,
            batch_size=24,
            learning_rate=1e-3,
            trunk_rate_factor=0.4,
            weight_decay=0.02,
            ema_decay=0.993,
            eye_loss_weight=1.0,
        ),
    ),
    "tiny": RunConfig(
        model=ModelConfig(trunk="resnet18", image_size=64, attention_heads=4),
        preprocess=_sized(64),
        train=TrainConfig(
            # a head that learns faster than its random trunk: 40 epochs fit 16 pairs by heart
            epochs=10,
            batch_size=16,
            learning_rate=5e-3,
            trunk_rate_factor=0.3,
            ema_decay=0.9,
        ),
    ),
}


def preset(name: str) -> RunConfig:
    """The preset called `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
