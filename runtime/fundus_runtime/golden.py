"""The bundle's golden pairs: does this machine answer as the validated model did?

A bundle may carry pictures with the answers of the PyTorch model. Running them proves decoder,
preprocessing, engine and calibration of this machine together. Processors round differently, so
probabilities are compared within the tolerance that the bundle states, and decisions wherever the
recorded probability is further from its threshold than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import BundleError
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import Screener

__all__ = ["GoldenReport", "check_golden"]


@dataclass(frozen=True)
class GoldenReport:
    """How a machine did.

    Attributes:
        pairs: how many were screened.
        largest_difference: of any probability of a patient or an eye.
        tolerance: what the bundle allows.
        wrong: file names of the left eyes of pairs that were answered otherwise.
    """

    pairs: int
    largest_difference: float
    tolerance: float
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every pair was answered as recorded."""
        return not self.wrong


def check_golden(
    bundle: Bundle, *, threads: int | None = None, screener: Screener | None = None
) -> GoldenReport | None:
    """Screen the bundle's golden pairs at its default operating point.

    Args:
        bundle: verified.
        threads: threads within one operator; None for the engine's own choice.
        screener: of this bundle, on the engine to check; it stays open. None for the default
            engine, with `threads`.

    Returns:
        What came out, or None where the bundle carries no golden pairs.

    Raises:
        BundleError: the manifest's `golden` is malformed.
        EngineError: the engine is missing or failed.
    """
    golden = bundle.manifest.reported.get("golden")
    if golden is None:
        return None
    if screener is not None:
        return _screened(bundle, golden, screener)
    with Screener.open(bundle, threads=threads) as opened:
        return _screened(bundle, golden, opened)


def _screened(bundle: Bundle, golden: Mapping[str, Any], screener: Screener) -> GoldenReport:
    largest, wrong = 0.0, []
    try:
        tolerance, pairs = float(golden["probability_tolerance"]), list(golden["pairs"])
        if not pairs:
            raise ValueError("there is none")
        for pair in pairs:
            left, right = bundle.file(pair["left"]), bundle.file(pair["right"])
            result = screener.screen_files(left, right)
            difference = max(_differences(pair, result))
            largest = max(largest, difference)
            if not difference <= tolerance or _decides_otherwise(pair, result, tolerance):
                wrong.append(str(pair["left"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{bundle.path}: the manifest's golden pairs are malformed ({error!r}); "
            "export the bundle again"
        ) from error
    return GoldenReport(len(pairs), largest, tolerance, tuple(wrong))


def _differences(pair: Mapping[str, Any], result: ExamResult) -> Iterator[float]:
    """Of every recorded probability; 1, the largest there is, where the exam did not answer."""
    for recorded, came in (
        (pair["probabilities"], {k: d.probability for k, d in result.decisions.items()}),
        (pair["left_probabilities"], result.left.probabilities),
        (pair["right_probabilities"], result.right.probabilities),
    ):
        for letter, probability in recorded.items():
            yield abs(came[letter] - probability) if letter in came else 1.0


def _decides_otherwise(pair: Mapping[str, Any], result: ExamResult, tolerance: float) -> bool:
    recorded = pair["probabilities"]
    return any(
        decision.present != (letter in pair["present"])
        for letter, decision in result.decisions.items()
        if abs(recorded[letter] - decision.threshold) > tolerance
    )
