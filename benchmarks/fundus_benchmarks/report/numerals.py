"""Measured values as text for tables: as many digits as they deserve, `–` for what is unknown."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["UNKNOWN", "measured", "number", "percent", "signed", "times", "words"]

UNKNOWN = "–"
_DIGITS = 3


def measured(value: object) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: object, digits: int = _DIGITS) -> str:
    """Significant digits, never an exponent: 0.0123, 1.92, 79.3, 1,240."""
    found = measured(value)
    if found is None:
        return UNKNOWN
    if found == 0:
        return "0"
    # Rounded first, so that 9.996 counts as 10.0.
    rounded = float(f"{found:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def times(ratio: object) -> str:
    """A ratio: 1.32×."""
    found = number(ratio)
    return found if found == UNKNOWN else f"{found}×"


def percent(share: object, decimals: int = 1) -> str:
    """A share of 1 in percent: 0.5 %."""
    found = measured(share)
    return UNKNOWN if found is None else f"{100 * found:.{decimals}f} %"


def signed(value: object, decimals: int = 4) -> str:
    """A difference with its sign."""
    found = measured(value)
    return UNKNOWN if found is None else f"{found:+.{decimals}f}".replace("-", "−")


def words(value: Any) -> str:
    """A setting or a description as it is, mappings and lists flattened; unknown where None."""
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return UNKNOWN if measured(value) is None else f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(one)}" for key, one in value.items()) or UNKNOWN
    if isinstance(value, (list, tuple)):
        return ", ".join(words(one) for one in value) or UNKNOWN
    return str(value)
