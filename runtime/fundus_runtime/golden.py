"""The bundle's golden pairs: does this machine answer as the validated model did?

A bundle carries pictures, and in `golden/answers.json` the logits that each of its forms gives
them. Running them proves decoder, preprocessing, engine and calibration of this machine together.
Processors round differently, so probabilities are compared within the tolerance that the bundle
states for the form, and decisions wherever the recorded probability is further from its threshold
than that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fundus_runtime.bundle import Bundle
from fundus_runtime.calibration import Calibration
from fundus_runtime.errors import BundleError
from fundus_runtime.preparer import EyePreparer
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
        graphs: the form of the model that ran.
    """

    pairs: int
    largest_difference: float
    tolerance: float
    wrong: tuple[str, ...]
    graphs: str = ""

    @property
    def passed(self) -> bool:
        """Whether every pair was answered as recorded."""
        return not self.wrong


@dataclass(frozen=True)
class _GoldenPair:
    """One pair's files, and the calibrated probabilities that must come out, by letter."""

    left: str
    right: str
    probabilities: Mapping[str, float]
    left_probabilities: Mapping[str, float]
    right_probabilities: Mapping[str, float]


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
        BundleError: the golden answers are malformed, or hold none of the form that runs.
        EngineError: the engine is missing or failed.
    """
    if bundle.manifest.reported.get("golden") is None:
        return None
    if screener is not None:
        return _check(bundle, screener)
    with Screener.open(bundle, threads=threads) as opened:
        return _check(bundle, opened)


def _check(bundle: Bundle, screener: Screener) -> GoldenReport:
    name = screener.engine.graphs
    tolerance, pairs = _recorded(bundle, screener)
    largest, wrong = 0.0, []
    # what is compared is the model: some golden pictures are worse than a gate lets through
    preparer = EyePreparer(bundle.manifest.spec, thresholds=None)
    for pair in pairs:
        result = screener.screen_prepared(
            preparer.file("left", bundle.file(pair.left)),
            preparer.file("right", bundle.file(pair.right)),
        )
        difference = max(_differences(pair, result))
        largest = max(largest, difference)
        if not difference <= tolerance or _decides_otherwise(pair, result, tolerance):
            wrong.append(pair.left)
    return GoldenReport(len(pairs), largest, tolerance, tuple(wrong), name)


def _recorded(bundle: Bundle, screener: Screener) -> tuple[float, list[_GoldenPair]]:
    """The tolerance and the expected answers of the form that the screener runs."""
    name = screener.engine.graphs
    try:
        file = bundle.file(bundle.manifest.reported["golden"]["answers"])
        values = json.loads(file.read_bytes())
        if name not in values["answers"]:
            raise BundleError(
                f"{bundle.path}: the golden answers are those of {sorted(values['answers'])}, none "
                f"of {name!r}; export the bundle again"
            )
        answers = values["answers"][name]
        pairs = list(_pairs(values["pairs"], answers, screener))
        if not pairs:
            raise ValueError("there is none")
        return float(answers["probability_tolerance"]), pairs
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{bundle.path}: the bundle's golden answers are malformed ({error!r}); "
            "export the bundle again"
        ) from error


def _pairs(
    files: Sequence[Mapping[str, str]], answers: Mapping[str, Any], screener: Screener
) -> Iterator[_GoldenPair]:
    eye = screener.eye_calibration
    rows = zip(
        files, answers["logits"], answers["left_logits"], answers["right_logits"], strict=True
    )
    for pair, patient, left, right in rows:
        yield _GoldenPair(
            str(pair["left"]),
            str(pair["right"]),
            _probabilities(screener.calibration, patient),
            {} if eye is None else _probabilities(eye, left),
            {} if eye is None else _probabilities(eye, right),
        )


def _probabilities(calibration: Calibration, logits: Sequence[float]) -> dict[str, float]:
    row = np.asarray(logits, np.float32)
    if row.shape != (len(calibration.letters),) or not np.isfinite(row).all():
        raise ValueError(f"{logits!r} are no logits of {len(calibration.letters)} classes")
    values = calibration.apply(row).tolist()
    return dict(zip(calibration.letters, values, strict=True))


def _differences(pair: _GoldenPair, result: ExamResult) -> Iterator[float]:
    """Of every recorded probability; 1, the largest there is, where the exam did not answer."""
    for recorded, came in (
        (pair.probabilities, result.probabilities),
        (pair.left_probabilities, result.left.probabilities),
        (pair.right_probabilities, result.right.probabilities),
    ):
        for letter, probability in recorded.items():
            yield abs(came[letter] - probability) if letter in came else 1.0


def _decides_otherwise(pair: _GoldenPair, result: ExamResult, tolerance: float) -> bool:
    return any(
        decision.present != (pair.probabilities[letter] >= decision.threshold)
        for letter, decision in result.decisions.items()
        if abs(pair.probabilities[letter] - decision.threshold) > tolerance
    )
