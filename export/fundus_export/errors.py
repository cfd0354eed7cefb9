"""Typed errors of the export."""

from __future__ import annotations

from fundus_runtime.errors import FundusError

__all__ = ["ExportError"]


class ExportError(FundusError):
    """A checkpoint cannot become the bundle that was asked for; nothing was written."""
