"""What a machine's peaks and a graph's work make of each other: the least time of each stage.

No run can be faster than its operations at the peak of products, nor than its bytes at the peak of
copying, as long as they come from memory; the larger of both is the limit. Tensors that stay in a
cache can be faster than the second. FP16 is counted at the rate that the provider has for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fundus_benchmarks.limits.gpu_peaks import GpuPeaks
from fundus_benchmarks.limits.peaks import Peaks
from fundus_benchmarks.limits.work import Work, count_work
from fundus_runtime.latency.frames import camera_frames
from fundus_runtime.preprocess import PreprocessSpec
from fundus_runtime.preprocess.native import NativePreprocessor

__all__ = ["Rates", "cpu_rates", "crop_bytes", "gpu_rates", "preprocessing_row", "stage_rows"]

Row = dict[str, Any]

# Which of a form's two graphs, and the batch: an eye as it arrives, a pair at once, a patient.
_STAGES = {"encoder_1": (0, 1), "encoder_2": (0, 2), "head": (1, 1)}


@dataclass(frozen=True)
class Rates:
    """What a provider reaches at best, in 10^9 a second.

    Attributes:
        provider: `cpu` or `cuda`.
        int8: operations on 8-bit numbers.
        floats: operations on the floats that a dialect computes in.
        copied: bytes read and written.
    """

    provider: str
    int8: float
    floats: float
    copied: float

    def least_ms(self, work: Work) -> tuple[float, float]:
        """The least time of the operations, and of the bytes."""
        operations = work.operations_int8 / self.int8 + work.operations_float / self.floats
        moved = (work.weight_bytes + work.activation_bytes) / self.copied
        return operations / 1e6, moved / 1e6


def cpu_rates(peaks: Peaks) -> Rates:
    """With all threads."""
    known = peaks.to_dict()
    return Rates("cpu", known["int8_gops_all"], known["fp32_gflops_all"], known["copy_gb_s_all"])


def gpu_rates(peaks: GpuPeaks) -> Rates | None:
    """Of the dialects for TensorRT, whose floats are FP16; None where a figure is missing."""
    figures = [peaks.figures.get(name) for name in ("int8_gops", "fp16_gflops", "copy_gb_s")]
    known = [figure for figure in figures if figure is not None]
    return Rates("cuda", *known) if len(known) == len(figures) else None


def stage_rows(
    model: str, dialect: str, graphs: tuple[bytes, bytes], rates: Rates
) -> Iterator[Row]:
    """A row for each stage of one form of a model.

    Args:
        model: its name.
        dialect: of its graphs.
        graphs: encoder and head, serialised.
        rates: of the provider that runs it.
    """
    for stage, (graph, batch) in _STAGES.items():
        work = count_work(graphs[graph], batch=batch)
        yield _row(model, dialect, stage, work, rates)


def _row(model: str, dialect: str, stage: str, work: Work, rates: Rates) -> Row:
    operations_ms, bytes_ms = rates.least_ms(work)
    return {
        "model": model,
        "dialect": dialect,
        "stage": stage,
        "provider": rates.provider,
        "operations": work.operations,
        "operations_int8": work.operations_int8,
        "operations_float": work.operations_float,
        "weight_bytes": work.weight_bytes,
        "activation_bytes": work.activation_bytes,
        "least_ms_operations": round(operations_ms, 4),
        "least_ms_bytes": round(bytes_ms, 4),
        "limit_ms": round(max(operations_ms, bytes_ms), 4),
    }


def preprocessing_row(peaks: Peaks, crop: int) -> Row:
    """The row of preparing one eye, on one thread.

    Args:
        peaks: of this machine.
        crop: bytes of the crop, of which the runtime reads each once.
    """
    # Its operations are not counted: they are additions of integers in several widths, which no
    # matrix product measures.
    least_ms = round(crop / peaks.to_dict()["copy_gb_s_1"] / 1e6, 4)
    return {
        "model": None,
        "dialect": None,
        "stage": "preprocessing",
        "provider": "cpu",
        "operations": None,
        "operations_int8": None,
        "operations_float": None,
        "weight_bytes": 0,
        "activation_bytes": crop,
        "least_ms_operations": None,
        "least_ms_bytes": least_ms,
        "limit_ms": least_ms,
    }


def crop_bytes() -> int:
    """Bytes of the crop of a 2592 x 1944 frame, three a pixel."""
    (frame,) = camera_frames(1)
    box = NativePreprocessor(PreprocessSpec(), threads=1).crop(frame, color="rgb").box
    return frame[box.top_px : box.bottom_px, box.left_px : box.right_px].nbytes
