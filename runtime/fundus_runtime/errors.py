"""Typed errors of the runtime.

Every error that a user can meet derives from `FundusError`, and its message says what came, what
was expected and what to do. Programs catch the class; people read the message.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "BundleTamperedError",
    "BundleUntrustedError",
    "EngineError",
    "EngineMissingError",
    "ExamClosedError",
    "ExamError",
    "ExamEyeError",
    "ExamIncompleteError",
    "ExamLimitError",
    "ExamTimeoutError",
    "FundusError",
    "ImageError",
    "PlanError",
    "ReferenceMissingError",
    "ResultError",
    "SpecError",
    "TrustedKeysError",
    "UngradableError",
    "UsageError",
]


class FundusError(Exception):
    """Base of every error that fundus-edge raises on purpose."""


class UsageError(FundusError):
    """A command or a call was given arguments that do not make sense together."""


class ImageError(FundusError):
    """A photograph, or an array that stands for one, cannot be used."""


class UngradableError(FundusError):
    """A readable picture that cannot be graded; an outcome of its own, never "normal".

    Args:
        reason: what is wrong, a stable name in snake_case for programs.
        hint: what the operator should do, one sentence for people.
    """

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(f"{reason}: {hint}")
        self.reason = reason
        self.hint = hint

    def __reduce__(self) -> tuple[type[UngradableError], tuple[str, str]]:
        """Pickle with both arguments, so that the error survives a worker process."""
        return type(self), (self.reason, self.hint)


class SpecError(FundusError):
    """A preprocessing spec, or an array handed to the preprocessing, breaks the contract."""


class BundleError(FundusError):
    """A model bundle is missing, incomplete, malformed or of an unknown version."""


class BundleTamperedError(BundleError):
    """A bundle's files are not the ones that its manifest lists."""


class BundleUntrustedError(BundleError):
    """Nobody whom this machine trusts vouches for a bundle: unsigned, a stranger's, or altered."""


class TrustedKeysError(BundleError):
    """The keys that this machine trusts are not there, or cannot be relied upon."""


class EngineError(FundusError):
    """The inference engine failed, or answered something that cannot be a result."""


class EngineMissingError(EngineError):
    """The inference engine that was asked for is not installed."""


class ReferenceMissingError(FundusError, ImportError):
    """The reference preprocessing was asked for, but OpenCV is not installed."""


class PlanError(EngineError):
    """A TensorRT plan is missing, altered, or was built for another device or bundle."""


class ResultError(FundusError):
    """A result cannot be written, or holds what a result must not hold."""


class ExamError(FundusError):
    """An exam was asked for something that does not fit what has happened in it so far."""


class ExamEyeError(ExamError):
    """An eye was given twice, or replaced or declared absent when it cannot be."""


class ExamIncompleteError(ExamError):
    """A result was asked for while an eye is neither photographed nor declared absent."""


class ExamClosedError(ExamError):
    """The exam has its result, was cancelled, or its screener was closed."""


class ExamLimitError(ExamError):
    """More exams were begun than a screener holds open at a time."""


class ExamTimeoutError(ExamError, TimeoutError):
    """The result did not come within the time given; the exam goes on and may be asked again."""
