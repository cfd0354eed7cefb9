"""What the runtime runs on: the engines that benchmarks ask for, whether they are here or not."""

from __future__ import annotations

from dataclasses import dataclass

from fundus_runtime.backends.settings import Provider

__all__ = ["ENGINES", "ON_CPU", "ON_GPU", "EngineKind"]


@dataclass(frozen=True)
class EngineKind:
    """A backend of the runtime on a device.

    Attributes:
        backend: as `open_engine` takes it.
        provider: likewise; the backend `tensorrt` takes none, and says `cpu`.
        dialect: the form that runs on the CPU; None on a GPU, where the bundle and what is built
            for the device decide.
    """

    backend: str
    provider: Provider
    dialect: str | None = None

    @property
    def shown(self) -> str:
        """The provider as rows name it: `cpu`, `cuda` or `tensorrt`."""
        return "tensorrt" if self.backend == "tensorrt" else self.provider

    def __str__(self) -> str:
        """For what is missing: `onnxruntime, cuda`."""
        return ", ".join(filter(None, (self.backend, self.shown, self.dialect)))


ON_CPU = (
    EngineKind("onnxruntime", "cpu", "int8-cpu"),
    EngineKind("onnxruntime", "cpu", "fp32"),
)
ON_GPU = (
    EngineKind("onnxruntime", "cuda"),
    EngineKind("onnxruntime", "tensorrt"),
    EngineKind("tensorrt", "cpu"),
)
ENGINES = (*ON_CPU, *ON_GPU)
