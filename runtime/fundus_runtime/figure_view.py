"""`FigureView`: a gate's figure as a page shows it; what the words say comes from the gates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fundus_runtime.gates import GateFigure

__all__ = ["FigureView", "meanings_of"]

_DIGITS = 3


@dataclass(frozen=True)
class FigureView:
    """One figure in words.

    Attributes:
        label: its name for readers.
        value: with its unit.
        bound: `at_least` or `at_most`.
        threshold: without the unit.
        passed: whether the figure keeps it.
        meaning: what the figure is.
    """

    label: str
    value: str
    bound: str
    threshold: str
    passed: bool
    meaning: str

    @classmethod
    def of(cls, figure: GateFigure) -> FigureView:
        """The view of one figure."""
        return cls(
            # the unit says percent
            label=figure.name.removesuffix("_percent").replace("_", " "),
            value=f"{_number(figure.rounded(_DIGITS))} {figure.unit}".strip(),
            bound=figure.bound,
            threshold=_number(figure.threshold),
            passed=figure.passed,
            meaning=figure.meaning,
        )


def meanings_of(views: Iterable[FigureView]) -> dict[str, str]:
    """What the figures are, by label, each once."""
    return {view.label: view.meaning for view in views}


def _number(value: float) -> str:
    # every digit, so that no rounding moves it to its threshold, but no ".0"
    return repr(float(value)).removesuffix(".0")
