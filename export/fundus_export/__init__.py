"""Turns a trained checkpoint into the graphs and the bundle that `fundus_runtime` runs."""

from __future__ import annotations

from fundus_runtime.version import __version__

__all__ = ["__version__"]
