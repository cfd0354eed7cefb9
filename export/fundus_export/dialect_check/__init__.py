"""Proves, with no GPU and no engine, that a graph keeps the rules of its dialect."""

from __future__ import annotations

from fundus_export.dialect_check.check import check_dialect, model_from_bytes
from fundus_export.dialect_check.findings import Finding
from fundus_export.dialect_check.pairs import raised_layers
from fundus_export.dialect_check.view import UntrustedView

__all__ = ["Finding", "UntrustedView", "check_dialect", "model_from_bytes", "raised_layers"]
