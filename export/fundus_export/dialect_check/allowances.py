"""What the recipe of a bundle allows its graphs beyond the rules of their dialect.

Only this is read of the recipe, as the JSON that it is: its own reader belongs to the quantiser,
which needs the training framework that a robot lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fundus_export.bundle_files import RECIPE_NAME
from fundus_export.errors import ExportError
from fundus_export.quantise.scheme import RAISED_AS
from fundus_runtime.bundle import Bundle
from fundus_runtime.plans import GRAPHS

__all__ = ["Allowance", "allowances_of"]

_LARGEST = 2  # of what a recipe keeps of a tensor: low, high, largest, means


@dataclass(frozen=True)
class Allowance:
    """Of one graph.

    Attributes:
        largest: the largest magnitude that a calibration saw, by tensor; around those beyond FP16's
            safe range the graph may compute in FP32.
        raised: names of products that stay in higher precision; where that is all of them, and the
            form's other graph is quantised, this one need not be.
    """

    largest: Mapping[str, float] = field(default_factory=dict)
    raised: tuple[str, ...] = ()


def allowances_of(bundle: Bundle, dialect: str) -> dict[str, Allowance]:
    """What is allowed to encoder and head of a dialect; nothing without a recipe.

    Raises:
        ExportError: the recipe is none.
    """
    if RECIPE_NAME not in bundle.manifest.files:
        return {part: Allowance() for part in GRAPHS}
    try:
        values = json.loads(bundle.file(RECIPE_NAME).read_bytes())
        return {part: _allowance(values, dialect, part) for part in GRAPHS}
    except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        raise ExportError(
            f"{bundle.path / RECIPE_NAME} is no recipe: {type(error).__name__}, {error}; export "
            "the bundle again"
        ) from error


def _allowance(values: Mapping[str, Any], dialect: str, part: str) -> Allowance:
    ranges, raised = values["ranges"][part], values["raised"]
    chosen = dialect if dialect in raised else RAISED_AS.get(dialect, dialect)
    return Allowance(
        {name: float(measured[_LARGEST]) for name, measured in ranges.items()},
        tuple(map(str, raised.get(chosen, {}).get(part, ()))),
    )
