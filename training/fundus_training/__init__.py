"""Trains and judges the two-eye network that `fundus_export` turns into bundles."""

from __future__ import annotations

from fundus_runtime.version import __version__

__all__ = ["__version__"]
