"""Frozen dataclasses as plain JSON values and back, strictly, by their annotations alone.

Understood are dataclasses, `tuple[X, ...]`, `Mapping[str, X]`, `X | None`, int, float, str and
bool. A key too many or too few and a value of another kind are errors that name the place.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from fundus_export.errors import ExportError

__all__ = ["from_plain", "to_plain"]

_T = TypeVar("_T")


def to_plain(value: Any) -> Any:
    """The value as dicts, lists, numbers, texts and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(one) for one in value]
    return value


def from_plain(kind: type[_T], value: Any, where: str) -> _T:
    """Read a dataclass back.

    Args:
        kind: the dataclass.
        value: what `to_plain` made of one.
        where: what it is, for messages.

    Raises:
        ExportError: the value is none.
    """
    expected = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, Mapping) or set(value) != expected:
        came = sorted(value) if isinstance(value, Mapping) else type(value).__name__
        raise ExportError(
            f"{where} needs exactly the keys {sorted(expected)}, got {came}; it was written by "
            "another version of fundus-edge or altered: certify again"
        )
    hints = typing.get_type_hints(kind)
    return kind(
        **{name: _decoded(hints[name], value[name], f"{where}.{name}") for name in expected}
    )


def _decoded(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (one for one in arguments if one is not type(None))
        return None if value is None else _decoded(inner, value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_decoded(arguments[0], one, f"{where}[{i}]") for i, one in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return {
            str(key): _decoded(arguments[1], one, f"{where}.{key}") for key, one in value.items()
        }
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_plain(kind, value, where)
    return _scalar(kind, value, where)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    wanted = getattr(kind, "__name__", str(kind))
    raise ExportError(f"{where} must be {wanted}, got {value!r}; certify again")
