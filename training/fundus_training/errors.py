"""Errors of the training package: every one says what came, what was expected and what to do."""

from __future__ import annotations

from fundus_runtime.errors import FundusError

__all__ = ["CheckpointError", "ConfigError", "DataError", "TrainingError"]


class TrainingError(FundusError):
    """Base of everything that the training package raises on purpose."""


class DataError(TrainingError):
    """A data set cannot be read as it is: layout, annotations or photographs."""


class CheckpointError(TrainingError):
    """A weights file cannot be used: missing, altered, or made for another model."""


class ConfigError(TrainingError):
    """A configuration value is unknown or out of range."""
