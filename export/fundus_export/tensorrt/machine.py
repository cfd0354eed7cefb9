"""The machine that builds: TensorRT's module, the GPU, and both together as a plan's device."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_export.errors import ExportError
from fundus_export.tensorrt.features import Features, probe
from fundus_runtime.backends.cuda_device import CudaDevice, open_cuda_device
from fundus_runtime.backends.tensorrt_install import import_tensorrt, require_gpu
from fundus_runtime.plan_key import Device
from fundus_runtime.plans import PLANS_VARIABLE

__all__ = ["Machine", "alone_on", "open_machine"]


@dataclass(frozen=True)
class Machine:
    """What a build needs.

    Attributes:
        trt: TensorRT's module.
        features: what it can do.
        gpu: the GPU; whoever opened the machine closes it.
        device: for the plans' key.
    """

    trt: Any
    features: Features
    gpu: CudaDevice
    device: Device


def open_machine() -> Machine:
    """TensorRT and the first GPU.

    Raises:
        EngineMissingError: TensorRT, its libraries, the driver or a GPU is missing; says which and
            how to get it.
    """
    trt = import_tensorrt()
    require_gpu()
    gpu = open_cuda_device()
    features = probe(trt)
    device = Device(gpu.name, gpu.compute_capability, features.version, gpu.driver_version)
    return Machine(trt, features, gpu, device)


@contextmanager
def alone_on(folder: Path) -> Iterator[None]:
    """Keep other builds of a bundle away: two at once spoil each other's measurements.

    Args:
        folder: that holds the bundle's plans; it is made, and removed again if it stays empty.

    Raises:
        ExportError: another build is at work, or the folder cannot be written.
    """
    held = _locked(folder)
    try:
        yield
    finally:
        os.close(held)
        with suppress(OSError):
            folder.rmdir()


def _locked(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ExportError(
            f"{folder} cannot be made ({error}), where plans would go; make rights, or set "
            f"${PLANS_VARIABLE} to a folder that can be written"
        ) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise ExportError(
            f"another build for {folder} is at work ({error}); wait until it has ended"
        ) from error
    return held
