"""A model that latency is measured on, with what every engine must answer before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fundus_benchmarks.contenders.agreement import require_same_answers
from fundus_benchmarks.contenders.models import BenchmarkModel, fp32_bundle, fp32_graphs
from fundus_benchmarks.contenders.peers import PyTorchPeer
from fundus_runtime.bundle import Bundle
from fundus_runtime.calibration import Calibration
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.screener import Screener

__all__ = ["TimedModel"]

Floats = NDArray[np.float32]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class TimedModel:
    """A model, its verified bundle, and drawn frames.

    Attributes:
        model: where its forms lie.
        frames: uint8 RGB; neighbours are a pair.
        threads: of every engine.
    """

    model: BenchmarkModel
    frames: Sequence[NDArray[np.uint8]]
    threads: int

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle, whose key this process trusts from here on."""
        self.model.trust()
        return Bundle.open(self.model.bundle)

    @cached_property
    def pairs(self) -> list[Floats]:
        """Every pair prepared, (2, 3, S, S) each."""
        native = NativePreprocessor(self.bundle.manifest.spec, threads=1)
        eyes = [native.prepare(frame, color="rgb").tensor for frame in self.frames]
        return [np.stack(eyes[k : k + 2]) for k in range(0, len(eyes) - 1, 2)]

    def graphs(self, dialect: str) -> tuple[bytes, bytes]:
        """Encoder and head of a dialect; FP32 is exported where the bundle has none."""
        if dialect in self.bundle.manifest.graphs:
            return self.bundle.graph_bytes(self.bundle.manifest.graphs[dialect])
        if dialect != "fp32":
            raise KeyError(f"the bundle of {self.model.name} has no {dialect}")
        return fp32_graphs(self.model)

    def bundle_of_exams(self, dialect: str | None) -> Bundle:
        """The bundle whose exams run in a form; of FP32 another one, of the same checkpoint.

        Args:
            dialect: on the CPU; None for what the bundle declares.

        Raises:
            ExportError: the other bundle cannot be made.
        """
        if dialect != "fp32" or "fp32" in self.bundle.manifest.graphs:
            return self.bundle
        other = fp32_bundle(self.model)
        other.trust()
        return Bundle.open(other.bundle)

    @cached_property
    def _reference(self) -> list[Floats]:
        """Logits of every pair by PyTorch in FP32, the model that was validated."""
        peer = PyTorchPeer(self.model.checkpoint, threads=self.threads)
        return [peer.logits_of(pair) for pair in self.pairs]

    def verify(self, name: str, logits_of: Callable[[Floats], Floats], tolerance: float) -> str:
        """Hold an engine to PyTorch in FP32, on every pair; what was found, in words.

        Raises:
            RuntimeError: it answers otherwise.
        """
        manifest = self.bundle.manifest
        plain = manifest.calibration_of(manifest.graphs_for("cpu"))
        answers = [_probabilities(plain, logits_of(pair)) for pair in self.pairs]
        return self._verified(name, answers, plain, tolerance)

    def verify_exams(self, screener: Screener, tolerance: float) -> str:
        """The same of a screener, from every pair's frames to its results."""
        results = (
            screener.screen(self.frames[2 * k], self.frames[2 * k + 1], color="rgb")
            for k in range(len(self.pairs))
        )
        answers = [np.array(list(result.probabilities.values())) for result in results]
        return self._verified("the screener", answers, screener.calibration, tolerance)

    def _verified(
        self, name: str, answers: list[Probabilities], plain: Calibration, tolerance: float
    ) -> str:
        expected = [_probabilities(plain, logits) for logits in self._reference]
        found = require_same_answers(name, answers, expected, tolerance=tolerance)
        return f"probabilities {found:.4f} from PyTorch FP32 in the mean of {len(answers)} pairs"


def _probabilities(plain: Calibration, logits: Floats) -> Probabilities:
    return np.asarray(plain.apply(logits[0]), np.float64)
