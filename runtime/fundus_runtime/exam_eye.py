"""What an exam holds of one eye: its latest photograph, and its way through the encoder."""

from __future__ import annotations

from fundus_runtime.engine import Encoding
from fundus_runtime.errors import ExamEyeError, ExamIncompleteError
from fundus_runtime.grader import EncodedEye
from fundus_runtime.labels import Eye
from fundus_runtime.prepared import PreparedEye, refuse_same_photograph

__all__ = ["ExamEye"]


class ExamEye:
    """One eye in an exam; whoever uses it holds the exam's lock.

    Args:
        eye: `left` or `right`.

    Attributes:
        prepared: its latest photograph, or that it is absent; None before either.
        encoding: its way through the encoder; None where a gate refused it.
        repeats: it is the same photograph as the other eye's, and came later. It takes no part, but
            keeps its features: with the other eye retaken it may.
        busy: a thread is preparing a photograph of it.
    """

    def __init__(self, eye: Eye) -> None:
        self.eye = eye
        self.prepared: PreparedEye | None = None
        self.encoding: Encoding | None = None
        self.repeats = False
        self.busy = False

    @property
    def encoded(self) -> bool:
        """Whether it does not wait for the encoder."""
        return self.encoding is None or self.encoding.done or self.repeats

    def judged(self) -> PreparedEye:
        """The eye with all that is known against it.

        Raises:
            ExamIncompleteError: nothing is known of it yet.
        """
        if self.prepared is None:
            raise ExamIncompleteError(
                f"there is no photograph of the {self.eye} eye yet; add it, or declare it absent"
            )
        return refuse_same_photograph(self.prepared) if self.repeats else self.prepared

    def for_head(self) -> EncodedEye:
        """The eye as the head takes it.

        Raises:
            ExamIncompleteError: nothing is known of it yet.
            EngineError: the encoder failed on it.
        """
        prepared, encoding = self.judged(), self.encoding
        if encoding is None or not prepared.usable:
            return EncodedEye(prepared)
        if encoding.error is not None:
            # raised anew each time it is asked for: what it gathered on the way is not kept
            raise encoding.error.with_traceback(None)
        return EncodedEye(prepared, encoding.encoded, encoding.encode_ms)

    def require_free(self, *, again: bool) -> None:
        """Check that it may be given a photograph, `again` for a retake.

        Raises:
            ExamEyeError: it may not.
        """
        if self.busy:
            raise ExamEyeError(f"another thread is adding the {self.eye} eye; wait for it")
        if again and self.prepared is None:
            raise ExamEyeError(f"there is no photograph of the {self.eye} eye to replace; add it")
        if not again and self.prepared is not None:
            held = "was declared absent" if self.prepared.status == "absent" else "is there"
            raise ExamEyeError(f"the {self.eye} eye {held} already; replace it with a retake")
