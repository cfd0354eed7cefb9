"""Inference engines behind one protocol; each is imported only when it is opened."""

from __future__ import annotations

from fundus_runtime.backends.protocol import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    HEAD_INPUTS,
    HEAD_OUTPUTS,
    Backend,
    EncodedEyes,
    encoded_eyes,
    encoder_feeds,
    named_as,
)
from fundus_runtime.backends.settings import EngineSettings

__all__ = [
    "ENCODER_INPUTS",
    "ENCODER_OUTPUTS",
    "HEAD_INPUTS",
    "HEAD_OUTPUTS",
    "Backend",
    "EncodedEyes",
    "EngineSettings",
    "encoded_eyes",
    "encoder_feeds",
    "named_as",
]
