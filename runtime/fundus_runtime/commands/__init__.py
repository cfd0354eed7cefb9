"""The runtime's command line; nothing here is imported by the library."""

from __future__ import annotations
