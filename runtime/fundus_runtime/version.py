"""The one place that holds the version; packaging, the native core and all commands read it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
