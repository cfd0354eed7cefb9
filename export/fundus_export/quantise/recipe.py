"""The recipe of a bundle's INT8 graphs: all that makes them again from the checkpoint alone.

It holds the ranges that were measured, how and on which photographs (by their hashes), and which
products were raised to higher precision in which dialect. With it, another dialect of the same
model can be written later, with no photographs at hand. It travels in the bundle as
`graphs/recipe.json`; the certificate reads there which photographs it must not judge on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fundus_export.bundle_files import RECIPE_NAME
from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes
from fundus_export.quantise.ranges import RangeMethod, TensorRange
from fundus_export.quantise.scheme import RAISED_AS
from fundus_runtime.canonical import sha256_hex

__all__ = ["PARTS", "RECIPE_NAME", "Recipe", "rounded_ranges"]

PARTS = ("encoder", "head")
_FORMAT = "fundus-edge quantisation recipe"
_SCHEMA_VERSION = 1
_KEYS = frozenset(
    {"format", "schema_version", "graphs", "preprocess_sha256", "images", "method", "ranges"}
    | {"raised"}
)
_DIGITS = 7

Ranges = Mapping[str, TensorRange]


@dataclass(frozen=True)
class Recipe:
    """How a model was quantised.

    Attributes:
        graphs: SHA-256 of the FP32 encoder and head that the names belong to.
        preprocess_sha256: of the spec that prepared the photographs.
        images: `sha256` over all of them, and `files`, the SHA-256 of each.
        method: how ranges were chosen.
        ranges: by part and tensor.
        raised: names of the products that stay high, by dialect and part.
    """

    graphs: Mapping[str, str]
    preprocess_sha256: str
    images: Mapping[str, Any]
    method: RangeMethod
    ranges: Mapping[str, Ranges]
    raised: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def raised_in(self, dialect: str, part: str) -> tuple[str, ...]:
        """Products of a part that stay high in a dialect."""
        chosen = dialect if dialect in self.raised else RAISED_AS.get(dialect, dialect)
        return tuple(self.raised.get(chosen, {}).get(part, ()))

    def with_raised(self, dialect: str, raised: Mapping[str, tuple[str, ...]]) -> Recipe:
        """The recipe with other products raised in a dialect."""
        kept = {part: tuple(names) for part, names in raised.items() if names}
        return replace(self, raised={**self.raised, dialect: kept})

    def largest(self, part: str) -> dict[str, float]:
        """The largest magnitude that was seen of every measured tensor."""
        return {name: found.largest for name, found in self.ranges[part].items()}

    def require_for(self, source: GraphBytes) -> None:
        """Check that the recipe belongs to these FP32 graphs.

        Raises:
            ExportError: it was made for others.
        """
        for part in PARTS:
            actual = sha256_hex(getattr(source, part))
            if self.graphs[part] != actual:
                raise ExportError(
                    f"the recipe was made for the FP32 {part} {self.graphs[part][:12]}, but this "
                    f"one is {actual[:12]}: another checkpoint, or graphs of another version of "
                    "torch; calibrate again with --calibration DIR"
                )

    def to_bytes(self) -> bytes:
        """The recipe as a JSON file."""
        values = {
            "format": _FORMAT,
            "schema_version": _SCHEMA_VERSION,
            "graphs": dict(self.graphs),
            "preprocess_sha256": self.preprocess_sha256,
            "images": dict(self.images),
            "method": self.method.to_dict(),
            "ranges": {
                part: {name: found.to_list() for name, found in self.ranges[part].items()}
                for part in PARTS
            },
            "raised": {
                dialect: {part: list(names) for part, names in parts.items()}
                for dialect, parts in self.raised.items()
            },
        }
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return (text + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = RECIPE_NAME) -> Recipe:
        """Read a recipe back.

        Args:
            data: the file's bytes.
            where: the file's name, for errors.

        Raises:
            ExportError: the bytes are no recipe that this version understands.
        """
        try:
            values = json.loads(data, parse_constant=_refuse_constant)
            if values.get("format") != _FORMAT or values.get("schema_version") != _SCHEMA_VERSION:
                raise ValueError(f"it is no {_FORMAT} of schema version {_SCHEMA_VERSION}")
            if set(values) != _KEYS:
                raise ValueError(f"its keys are {sorted(values)}, expected {sorted(_KEYS)}")
            return cls._from_values(values)
        except ExportError as error:
            raise ExportError(f"{where} is no recipe: {error}; calibrate again") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ExportError(f"{where} is no recipe: {error!r}; calibrate again") from error

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> Recipe:
        method = values["method"]
        return cls(
            graphs={part: str(values["graphs"][part]) for part in PARTS},
            preprocess_sha256=str(values["preprocess_sha256"]),
            images=dict(values["images"]),
            method=RangeMethod(method["name"], method["percentile"]),
            ranges={
                part: {
                    str(name): TensorRange.from_list(found)
                    for name, found in values["ranges"][part].items()
                }
                for part in PARTS
            },
            raised={
                str(dialect): {str(part): tuple(map(str, names)) for part, names in parts.items()}
                for dialect, parts in values["raised"].items()
            },
        )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def rounded_ranges(ranges: Ranges) -> dict[str, TensorRange]:
    """Ranges in the digits that a recipe keeps, so that it repeats what was made with them."""
    return {
        name: TensorRange(
            _rounded(found.low),
            _rounded(found.high),
            max(_rounded(found.largest), _rounded(found.high), -_rounded(found.low)),
            tuple(_rounded(mean) for mean in found.means),
        )
        for name, found in ranges.items()
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
