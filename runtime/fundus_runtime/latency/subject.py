"""What is measured: a bundle, on an engine, with so many threads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from fundus_runtime.backends.settings import Provider
from fundus_runtime.screener import Screener

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """How a screener is opened, here and in a fresh process; the words are `Screener.open`'s.

    Attributes:
        bundle: the bundle's folder; None for the default one.
        backend: name of the backend.
        provider: what ONNX Runtime runs on.
        threads: of the engine; None for its own choice.
    """

    bundle: str | None = None
    backend: str = "onnxruntime"
    provider: Provider = "cpu"
    threads: int | None = None

    def open(self) -> Screener:
        """Open it.

        Raises:
            FundusError: the bundle or the engine cannot be used.
        """
        return Screener.open(
            self.bundle, backend=self.backend, provider=self.provider, threads=self.threads
        )

    def to_json(self) -> str:
        """For a fresh process's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Subject:
        """What `to_json` wrote."""
        return cls(**json.loads(text))
