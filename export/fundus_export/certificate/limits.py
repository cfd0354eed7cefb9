"""The limits that a dialect must keep to be certified."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

from fundus_export.errors import ExportError

__all__ = ["CertificateLimits"]


@dataclass(frozen=True)
class CertificateLimits:
    """What a dialect may differ from the reference.

    They hold at the bundle's default operating point; every other point is counted, judged and
    shown by the same limits, but refuses the dialect only with `every_point`.

    Attributes:
        patients: patients to judge on, at least.
        class_decisions: upper 95 % bound of the share of changed class decisions, all classes
            pooled, at most.
        referrals: upper 95 % bound of the share of patients with another "refer or not", at most.
        challenge_score_drop: by how much the challenge's score may be lower.
        every_point: all operating points must keep them.
    """

    patients: int = 400
    class_decisions: float = 0.02
    referrals: float = 0.05
    challenge_score_drop: float = 0.005
    every_point: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ExportError(
                    f"the certificate's limit {field.name} must be finite and not negative, got "
                    f"{value!r}"
                )

    @classmethod
    def from_file(cls, path: Path) -> CertificateLimits:
        """Read limits by name from a JSON object; those that it leaves out keep their defaults.

        Raises:
            ExportError: the file is none, or names an unknown limit.
        """
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ExportError(f"the limits {path} cannot be read as JSON: {error}") from error
        kinds = {field.name: type(field.default) for field in fields(cls)}
        if not isinstance(values, dict) or set(values) - set(kinds):
            came = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ExportError(f"the limits {path} may have the keys {sorted(kinds)}, got {came}")
        for name, value in values.items():
            if type(value) is not kinds[name] and not (kinds[name] is float and type(value) is int):
                raise ExportError(
                    f"the limits {path}: {name} must be {kinds[name].__name__}, got {value!r}"
                )
        return cls(**values)
