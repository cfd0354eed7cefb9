"""The outcome of an exam: the one place where probabilities become a decision.

Only `normal` means "do not refer", and it needs both eyes, the normal class at its operating
point and no other class at its own. A class is present when its probability is at or above its
threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fundus_runtime.errors import ResultError
from fundus_runtime.labels import ClassList

__all__ = ["OUTCOMES", "Decision", "Outcome", "decide"]

Outcome = Literal["ungradable", "findings", "normal", "uncertain"]
OUTCOMES: tuple[Outcome, ...] = ("ungradable", "findings", "normal", "uncertain")


@dataclass(frozen=True)
class Decision:
    """What an exam says.

    Attributes:
        outcome: `ungradable`, `findings`, `normal` or `uncertain`.
        refer: whether the patient is referred; False for `normal` alone.
        findings: letters of the classes, the normal one left out, at their operating points. An
            ungradable exam lists those of the eye that could be screened.
    """

    outcome: Outcome
    refer: bool
    findings: tuple[str, ...]


def decide(
    probabilities: Mapping[str, float],
    thresholds: Mapping[str, float],
    classes: ClassList,
    *,
    complete: bool,
) -> Decision:
    """Decide on an exam.

    Args:
        probabilities: calibrated probability of every class, by letter; may be empty where no eye
            could be screened.
        thresholds: the operating point, by letter.
        classes: the class list; its normal class, if it has one, is no finding.
        complete: both eyes were there and gradable.

    Raises:
        ResultError: a class is missing or unknown, or a probability is no number within 0 and 1.
    """
    present = _classes_at_their_points(probabilities, thresholds, classes, complete=complete)
    findings = tuple(letter for letter in present if letter != classes.normal)
    if not complete:
        return Decision("ungradable", refer=True, findings=findings)
    if findings:
        return Decision("findings", refer=True, findings=findings)
    if classes.normal is not None and classes.normal in present:
        return Decision("normal", refer=False, findings=())
    return Decision("uncertain", refer=True, findings=())


def _classes_at_their_points(
    probabilities: Mapping[str, float],
    thresholds: Mapping[str, float],
    classes: ClassList,
    *,
    complete: bool,
) -> tuple[str, ...]:
    if not probabilities and not complete:
        return ()
    letters = classes.letters
    for what, values in (("probabilities", probabilities), ("thresholds", thresholds)):
        if set(values) != set(letters):
            raise ResultError(
                f"{what} are for {sorted(values)}, but the classes are {list(letters)}"
            )
        for letter, value in values.items():
            # a NaN compares false with everything and would read as "nothing found"
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ResultError(f"{what} of {letter} must be within 0 and 1, got {value!r}")
    return tuple(letter for letter in letters if probabilities[letter] >= thresholds[letter])
