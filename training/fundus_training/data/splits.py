"""Patient-level splits: every patient is in exactly one of train, val and test.

A split depends on the seed, the patients' ids and their labels alone, never on the order of rows,
so that the same data set gives the same split on every machine. It is made before any
augmentation. Label sets are spread evenly over the three parts, rare ones together with others
that share their rarest class.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeVar

from fundus_training.errors import ConfigError, DataError

__all__ = [
    "DEFAULT_FRACTIONS",
    "PARTS",
    "Labelled",
    "Split",
    "SplitFractions",
    "select_part",
    "split_patients",
    "stable_order",
]

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, Part, Part] = ("train", "val", "test")


class Labelled(Protocol):
    """What a split needs to know of a patient."""

    @property
    def id(self) -> str:
        """Unique id."""

    @property
    def labels(self) -> tuple[int, ...]:
        """0/1 a class."""


_Patient = TypeVar("_Patient", bound=Labelled)


@dataclass(frozen=True)
class SplitFractions:
    """Shares of the patients; they add up to 1 and train is not empty."""

    train: float = 0.72
    val: float = 0.18
    test: float = 0.10

    def __post_init__(self) -> None:
        shares = [self.train, self.val, self.test]
        if not all(math.isfinite(share) and 0.0 <= share <= 1.0 for share in shares):
            raise ConfigError(f"split fractions must lie between 0 and 1, got {shares}")
        if self.train == 0.0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ConfigError(
                f"split fractions must add up to 1 with train above 0, got {shares} "
                f"which add up to {sum(shares):g}"
            )


DEFAULT_FRACTIONS = SplitFractions()


@dataclass(frozen=True)
class Split:
    """Ids of the three parts, each sorted, with what they were made from.

    Attributes:
        train: ids to fit on.
        val: ids for model selection, calibration and operating points.
        test: ids that nothing is tuned on.
        seed: the seed they were drawn with.
        fractions: the shares that were asked for.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int = 0
    fractions: SplitFractions = DEFAULT_FRACTIONS

    def __post_init__(self) -> None:
        counts = Counter(self.train + self.val + self.test)
        repeated = sorted(patient for patient, count in counts.items() if count > 1)
        if repeated:
            raise DataError(
                f"{len(repeated)} patients are in a split more than once ({_few(repeated)}); "
                "every patient must be in exactly one of train, val and test"
            )

    def ids(self, part: Part | Literal["all"]) -> tuple[str, ...]:
        """Ids of one part, or of all three together."""
        if part == "all":
            return self.train + self.val + self.test
        if part not in PARTS:
            raise ConfigError(f"unknown part {part!r}; choose one of train, val, test, all")
        return {"train": self.train, "val": self.val, "test": self.test}[part]

    def to_dict(self) -> dict[str, Any]:
        """The split as plain JSON values."""
        parts: dict[str, Any] = {part: list(self.ids(part)) for part in PARTS}
        return {**parts, "seed": self.seed, "fractions": asdict(self.fractions)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Split:
        """Read a split back.

        Raises:
            DataError: keys are unknown or missing, or a patient is in two parts.
        """
        expected = {*PARTS, "seed", "fractions"}
        if set(values) != expected:
            raise DataError(
                f"a split needs exactly the keys {sorted(expected)}, got {sorted(values)}"
            )
        train, val, test = (tuple(str(patient) for patient in values[part]) for part in PARTS)
        try:
            fractions = SplitFractions(**values["fractions"])
        except TypeError as error:
            raise DataError(f"a split's fractions need the keys {list(PARTS)}: {error}") from error
        return cls(train, val, test, seed=int(values["seed"]), fractions=fractions)


def split_patients(
    records: Sequence[Labelled],
    fractions: SplitFractions = DEFAULT_FRACTIONS,
    *,
    seed: int = 0,
) -> Split:
    """Split patients so that every label set is spread over the parts by their shares.

    Patients are lined up by label set, label sets by their rarest class, and shuffled within by a
    hash of seed and id; each goes to the part that is furthest behind its share. Any stretch of
    that line therefore holds the shares to within about one patient a part.

    Args:
        records: patients with unique ids.
        fractions: shares of train, val and test.
        seed: another seed gives another split.

    Raises:
        DataError: an id occurs twice.
    """
    assigned: dict[str, list[str]] = {part: [] for part in PARTS}
    shares = {part: getattr(fractions, part) for part in PARTS}
    for count, record in enumerate(stable_order(records, seed=seed), start=1):
        part = max(PARTS, key=lambda name: shares[name] * count - len(assigned[name]))
        assigned[part].append(record.id)
    train, val, test = (tuple(sorted(assigned[part])) for part in PARTS)
    return Split(train=train, val=val, test=test, seed=seed, fractions=fractions)


def stable_order(records: Sequence[_Patient], *, seed: int) -> list[_Patient]:
    """Patients lined up by rarest class, label set, and a hash of seed and id."""
    counts = [sum(column) for column in zip(*(r.labels for r in records), strict=True)]

    def key(record: _Patient) -> tuple[int, tuple[int, ...], bytes, str]:
        present = [(counts[k], k) for k, label in enumerate(record.labels) if label]
        rarest = min(present)[1] if present else -1
        digest = hashlib.sha256(f"{seed}\n{record.id}".encode()).digest()
        return rarest, record.labels, digest, record.id

    return sorted(records, key=key)


def select_part(
    records: Sequence[_Patient], split: Split, part: Part | Literal["all"]
) -> list[_Patient]:
    """The records of one part, in the records' order.

    Raises:
        DataError: the split names patients that the records do not have.
    """
    wanted = set(split.ids(part))
    found = [record for record in records if record.id in wanted]
    if len(found) != len(wanted):
        missing = sorted(wanted - {record.id for record in found})
        raise DataError(
            f"the split's {part} part has {len(wanted)} patients but {len(missing)} of them are "
            f"not in this data set ({_few(missing)}); use the data set that the split was made from"
        )
    return found


def _few(ids: Sequence[str], limit: int = 5) -> str:
    return ", ".join(ids[:limit]) + (", ..." if len(ids) > limit else "")
