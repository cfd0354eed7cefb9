"""Eyes and class lists: the words that every other part uses as keys.

Eyes are the words "left" and "right". Classes are named by short letters, which are the keys in
JSON and CSV; ODIR's eight are the default, any other list is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fundus_runtime.errors import BundleError

__all__ = ["EYES", "ODIR_CLASSES", "ClassList", "Eye"]

Eye = Literal["left", "right"]
EYES: tuple[Eye, Eye] = ("left", "right")

_KEYS = frozenset({"letters", "names", "normal"})


@dataclass(frozen=True)
class ClassList:
    """The classes of a model, in the order of its logits.

    Attributes:
        letters: unique keys, as used in JSON and CSV.
        names: what the classes mean, one for each letter.
        normal: the letter that means "nothing found", or None where the list has no such class;
            without one no exam can end as normal.
    """

    letters: tuple[str, ...]
    names: tuple[str, ...]
    normal: str | None = None

    def __post_init__(self) -> None:
        if not self.letters:
            raise BundleError("the class list is empty; at least one class is needed")
        if len(self.letters) != len(self.names):
            raise BundleError(
                f"the class list has {len(self.letters)} letters but {len(self.names)} names; "
                "give one name for each letter"
            )
        if not all((*self.letters, *self.names)):
            raise BundleError("class letters and names must not be empty")
        if len(set(self.letters)) != len(self.letters):
            raise BundleError(f"class letters must differ, but are {list(self.letters)}")
        if self.normal is not None and self.normal not in self.letters:
            raise BundleError(
                f"the normal class {self.normal!r} is not among the letters {list(self.letters)}"
            )

    def __len__(self) -> int:
        return len(self.letters)

    def name_of(self, letter: str) -> str:
        """What a letter means."""
        return self.names[self.letters.index(letter)]

    def to_dict(self) -> dict[str, Any]:
        """The list as plain JSON values."""
        return {"letters": list(self.letters), "names": list(self.names), "normal": self.normal}

    @classmethod
    def from_dict(cls, values: Any) -> ClassList:
        """Read a list back; unknown and missing keys are errors.

        Raises:
            BundleError: the values are not a class list.
        """
        if not isinstance(values, Mapping) or set(values) != _KEYS:
            came = sorted(values) if isinstance(values, Mapping) else type(values).__name__
            raise BundleError(f"a class list needs exactly the keys {sorted(_KEYS)}, got {came}")
        normal = values["normal"]
        if not (normal is None or isinstance(normal, str)):
            raise BundleError(f"the normal class must be a letter or null, got {normal!r}")
        return cls(_texts(values["letters"]), _texts(values["names"]), normal)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise BundleError(f"class letters and names must be lists of texts, got {values!r}")
    return tuple(values)


ODIR_CLASSES = ClassList(
    letters=("N", "D", "G", "C", "A", "H", "M", "O"),
    names=(
        "normal",
        "diabetic retinopathy",
        "glaucoma",
        "cataract",
        "age-related macular degeneration",
        "hypertensive retinopathy",
        "pathological myopia",
        "other abnormality",
    ),
    normal="N",
)
