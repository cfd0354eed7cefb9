"""Finds, verifies and loads the TensorRT plans of a bundle on this machine's GPU."""

from __future__ import annotations

from fundus_runtime.backends.cuda_device import CudaDevice, open_cuda_device
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.backends.tensorrt import TensorRTBackend
from fundus_runtime.backends.tensorrt_install import import_tensorrt, require_gpu
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import PlanError
from fundus_runtime.graph_choice import TENSORRT
from fundus_runtime.plan_key import Device
from fundus_runtime.plans import Plans, built_precisions, read_plans

__all__ = ["open_plans"]

# What docs/engines.md tells to begin with.
_FIRST_PRECISION = "int8"


def open_plans(bundle: Bundle, settings: EngineSettings) -> tuple[Plans, TensorRTBackend]:
    """Load the bundle's plans for the GPU of `settings`.

    The precision is the one of the settings, else of the form that the bundle declares for
    `tensorrt`, else the only one that plans were built in.

    Raises:
        EngineMissingError: TensorRT, a library, the driver or a GPU is missing.
        PlanError: there are no such plans, or of several precisions and none was named.
        EngineError: a plan cannot be loaded.
    """
    trt = import_tensorrt()
    require_gpu()
    gpu = open_cuda_device(settings.device, sleeps=settings.spinning == "never")
    try:
        device = _device(trt.__version__, gpu)
        plans = read_plans(bundle, device, precision=_precision(bundle, device, settings))
    except BaseException:
        gpu.close()
        raise
    manifest = bundle.manifest
    backend = TensorRTBackend(  # which closes the GPU, also where it fails
        plans.encoder,
        plans.head,
        size=manifest.spec.size,
        class_count=len(manifest.classes),
        max_batch=plans.key.max_batch,
        device=gpu,
        settings=settings,
    )
    return plans, backend


def _device(version: object, gpu: CudaDevice) -> Device:
    return Device(gpu.name, gpu.compute_capability, str(version), gpu.driver_version)


def _precision(bundle: Bundle, device: Device, settings: EngineSettings) -> str:
    if settings.precision is not None:
        return settings.precision
    if TENSORRT in bundle.manifest.default_graphs:
        return bundle.manifest.graphs_for(TENSORRT).precision
    built = built_precisions(bundle, device)
    if len(built) > 1:
        raise PlanError(
            f"there are plans of {bundle.path} for this device in {' and '.join(built)}, and the "
            "bundle declares none as its own; name one: EngineSettings(precision=...)"
        )
    return built[0] if built else _FIRST_PRECISION
