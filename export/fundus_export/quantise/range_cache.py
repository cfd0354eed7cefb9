"""Measured ranges on disk, each file under a hash of all that decides them.

A file is taken only where everything that it records is what is asked for: graph, photographs,
preprocessing, method, tensors, and for the head the encoder that feeds it. A file that says
otherwise, or is not whole, is refused and left as it is. The engine's version is recorded but not
asked for: between versions activations differ by float32's rounding, a thousandth of the width of
the bins that ranges are read from, while measuring again takes minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fundus_export.errors import ExportError
from fundus_export.library_versions import onnxruntime_version
from fundus_export.quantise.images import CalibrationImages
from fundus_export.quantise.ranges import RangeMethod, TensorRange
from fundus_runtime.atomic import atomic_text, require_writable
from fundus_runtime.canonical import canonical_json, sha256_hex
from fundus_runtime.errors import ResultError
from fundus_runtime.version import __version__

__all__ = ["RangeKey", "cache_file", "load_or_measure"]

_FORMAT = "fundus-edge activation ranges"
# raised whenever the same photographs would give other ranges
_MEASUREMENT = 1
_MAX_BYTES = 64 * 2**20

Ranges = dict[str, TensorRange]


@dataclass(frozen=True)
class RangeKey:
    """Everything that decides measured ranges.

    Attributes:
        graph: SHA-256 of the graph that was run.
        encoder: SHA-256 of the encoder whose features fed it; None for the encoder itself.
        photographs: SHA-256 of `CalibrationImages`.
        preprocessing: SHA-256 of the spec.
        method: how ranges were chosen.
        tensors: SHA-256 of the sorted names.
        measurement: number of the way of measuring.
    """

    graph: str
    encoder: str | None
    photographs: str
    preprocessing: str
    method: str
    tensors: str
    measurement: int = _MEASUREMENT

    @classmethod
    def of(
        cls,
        graph: bytes,
        images: CalibrationImages,
        method: RangeMethod,
        tensors: Sequence[str],
        *,
        encoder: bytes | None = None,
    ) -> RangeKey:
        """The key of a measurement.

        Args:
            graph: the graph that is run.
            images: the photographs.
            method: how ranges are chosen.
            tensors: what is measured.
            encoder: the graph whose features are fed, where `graph` is the head.
        """
        return cls(
            graph=sha256_hex(graph),
            encoder=None if encoder is None else sha256_hex(encoder),
            photographs=images.sha256,
            preprocessing=images.spec.sha256,
            method=f"{method.name} {method.percentile!r}",
            tensors=_names_hash(tensors),
        )

    @property
    def sha256(self) -> str:
        """Names the measurement."""
        return sha256_hex(canonical_json(asdict(self)))


def cache_file(folder: str | Path, key: RangeKey) -> Path:
    """Where a folder keeps the ranges of a key."""
    return Path(folder) / f"ranges-{key.sha256[:32]}.json"


def load_or_measure(
    key: RangeKey, measure: Callable[[], Ranges], *, path: str | Path | None
) -> Ranges:
    """The ranges that a file holds, or measured ones, which are then written to it.

    Args:
        key: what decides the ranges.
        measure: called where there is no file.
        path: the file, usually `cache_file`; its folder is made. None measures and keeps nothing.

    Raises:
        ExportError: the file holds other ranges or is damaged, or it cannot be written; a file that
            is there is never replaced.
    """
    if path is None:
        return measure()
    path = Path(path)
    if _exists(path):
        return _loaded(path, key)
    _require_room(path)
    ranges = measure()
    if _names_hash(ranges) != key.tensors:
        raise ExportError("other tensors were measured than the key of the cache says")
    if _exists(path):  # another process measured the same meanwhile
        return _loaded(path, key)
    _write(path, key, ranges)
    return ranges


def _names_hash(tensors: Sequence[str] | Mapping[str, Any]) -> str:
    return sha256_hex(canonical_json(sorted(set(tensors))))


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except OSError as error:
        raise _unusable(path, error) from error


def _require_room(path: Path) -> None:
    """Before minutes of measuring, not after them."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_writable(path, force=False)
    except (OSError, ResultError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> ExportError:
    return ExportError(
        f"{path} cannot keep measured ranges: {error}; choose another cache folder or free space"
    )


def _write(path: Path, key: RangeKey, ranges: Ranges) -> None:
    content = {
        "format": _FORMAT,
        "key": asdict(key),
        "measured_with": {"fundus_edge": __version__, "onnxruntime": onnxruntime_version()},
        "ranges": {tensor: found.to_list() for tensor, found in ranges.items()},
    }
    content["sha256"] = sha256_hex(canonical_json(content))
    try:
        with atomic_text(path, force=False) as stream:
            json.dump(content, stream, indent=1, allow_nan=False)
            stream.write("\n")
    except ResultError as error:
        raise _unusable(path, error) from error


def _loaded(path: Path, key: RangeKey) -> Ranges:
    content = _content(path)
    recorded = _fields(content.get("key"))
    differences = [
        f"{name} {_short(recorded.get(name))} instead of {_short(asked)}"
        for name, asked in asdict(key).items()
        if recorded.get(name) != asked
    ]
    if differences:
        raise ExportError(
            f"{path} holds the ranges of another calibration ({'; '.join(differences)}), so it is "
            "not used, nor replaced; choose another cache folder, or remove the file"
        )
    try:
        ranges = {
            tensor: TensorRange.from_list(found)
            for tensor, found in _fields(content.get("ranges")).items()
        }
    except (TypeError, ValueError, OverflowError, ExportError) as error:
        raise _damaged(path, str(error)) from error
    if _names_hash(ranges) != key.tensors:
        raise _damaged(path, "its ranges are of other tensors than it says")
    return ranges


def _content(path: Path) -> dict[str, Any]:
    """What a file says, if nobody changed it since it was written."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _damaged(path, f"it has more than {_MAX_BYTES} bytes")
        content = _fields(json.loads(path.read_text(encoding="utf-8")))
        recorded = content.pop("sha256", None)
        actual = sha256_hex(canonical_json(content))
    except OSError as error:
        raise ExportError(
            f"{path} cannot be read: {error.strerror or error}; remove it, or choose another "
            "cache folder"
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if content.get("format") != _FORMAT:
        raise _damaged(path, f"its format is {content.get('format')!r}, expected {_FORMAT!r}")
    if recorded != actual:
        raise _damaged(path, "it was changed after it was written")
    return content


def _fields(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _damaged(path: Path, reason: str) -> ExportError:
    return ExportError(
        f"{path} is no whole file of measured ranges: {reason}; remove it, and it is measured again"
    )


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
