from typing import Any

import numpy as np
from numpy.typing import NDArray

def cpu_features() -> dict[str, bool]:
    """Vector instruction sets of this machine and whether this process may use them.

    The names are those of `/proc/cpuinfo`: on x86 `sse4_1`, `avx2`, `fma`, `f16c`, `avx512f`,
    `avx512bw`, `avx512_vnni`, `avx_vnni`, `avx512_bf16`, `amx_int8`; on 64-bit ARM `asimd`,
    `asimddp`, `asimdhp`, `i8mm`, `bf16`; elsewhere none. A feature counts as usable when the
    processor has it and the operating system saves its registers.
    """

def measure_gates(
    frame: NDArray[np.uint8],
    disc: tuple[int, int, int, int],
    color: str,
    levels: NDArray[np.uint16],
    inside: NDArray[np.uint8],
) -> tuple[int, int, int, int, int, int, int, int, int]:
    """Measure a photograph for the gates; `fundus_runtime.gates.native` is its interface.

    Fills levels (96 x 96 x 3) and inside (96 x 96); returns the figures in the order of
    `GateReadings`. The disc is centre x and y, radius x and y.
    """

def fine_structure(
    green: NDArray[np.uint16],
    inside: NDArray[np.uint8],
    cells: NDArray[np.uint8],
    values: NDArray[np.float64],
) -> None:
    """Fill values with the fine structure of the cells that are not 0; all but values 96 x 96."""

def side_score(
    levels: NDArray[np.uint16], inside: NDArray[np.uint8], weights: NDArray[np.float64]
) -> float:
    """Log odds of a left eye, of levels (96 x 96 x 3), inside (96 x 96) and 256 weights."""

def version() -> str:
    """Version the core was built as; equals `fundus_runtime.__version__`."""

class Preprocessor:
    """`fundus::Preprocessor`; `fundus_runtime.preprocess.native` is its interface for programs.

    Arrays that do not fit are a `TypeError` or a `ValueError`.
    """

    def __init__(
        self,
        *,
        size: int,
        crop_permille: int,
        illumination: str,
        illumination_window_px: int,
        illumination_gain: float,
        illumination_constant: float,
        mask_permille: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        threads: int,
        kernels: str,
    ) -> None: ...
    def crop(
        self,
        frame: NDArray[np.uint8],
        color: str,
        image: NDArray[np.uint8],
        mask: NDArray[np.uint8],
    ) -> tuple[str, str, tuple[int, ...], tuple[int, ...]]:
        """Fill image and mask.

        Returns:
            Reason and detail of a refusal, field of view, box; no reason where it is usable.
        """

    def prepare(
        self,
        frame: NDArray[np.uint8],
        color: str,
        image: NDArray[np.uint8],
        mask: NDArray[np.uint8],
        tensor: NDArray[Any],
    ) -> tuple[str, str, tuple[int, ...], tuple[int, ...]]:
        """The same, and the tensor."""

    def normalise(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8], tensor: NDArray[Any]
    ) -> None:
        """Fill the tensor from an 8-bit image and its mask."""

def kernel_sets() -> list[str]:
    """Names of the builds of the inner loops that this processor can run."""

# Only in a core that was built with FUNDUS_CUDA; `fundus_runtime.preprocess.cuda` looks first.

class CudaError(RuntimeError):
    """CUDA refused a call."""

class FrameMemoryError(ValueError):
    """The frame lies where the GPU cannot read it."""

class TensorMemoryError(ValueError):
    """The tensor lies where the GPU cannot write it."""

class CudaPreprocessor:
    """`fundus::cuda::Preprocessor`; `fundus_runtime.preprocess.cuda` is its interface."""

    def __init__(
        self,
        *,
        size: int,
        crop_permille: int,
        illumination: str,
        illumination_window_px: int,
        illumination_gain: float,
        illumination_constant: float,
        mask_permille: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: int,
    ) -> None: ...
    def prepare(
        self,
        *,
        frame: int,
        height: int,
        width: int,
        strides: tuple[int, int, int],
        color: str,
        tensor: int,
        half: bool,
        stream: int,
        producer: int | None = None,
        image: NDArray[np.uint8] | None = None,
        mask: NDArray[np.uint8] | None = None,
    ) -> tuple[str, str, tuple[int, ...], tuple[int, ...]]:
        """Prepare an eye; reason, detail, field of view and box, the reason empty if usable."""
