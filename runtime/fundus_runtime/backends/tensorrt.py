"""TensorRT on an NVIDIA GPU: two plans, run through the tensor-name API alone.

That API is the same from TensorRT 8.5 to 11. Plans come as bytes that `read_plans` has verified, or
straight from the builder; nothing else may be handed in, since plans are executable. Inputs and
outputs are float32 whatever the plan computes in. Everything runs on one stream of its own; how one
run goes is in `tensorrt_plan`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fundus_runtime.backends.cuda_device import CudaDevice, open_cuda_device
from fundus_runtime.backends.protocol import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    HEAD_INPUTS,
    HEAD_OUTPUTS,
    EncodedEyes,
    Float32Array,
    encoded_eyes,
    encoder_feeds,
    require_images,
    require_logits,
)
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.backends.tensorrt_install import import_tensorrt, make_log, refusal
from fundus_runtime.backends.tensorrt_plan import Names, Plan
from fundus_runtime.errors import EngineError
from fundus_runtime.labels import Eye

__all__ = ["TensorRTBackend"]

_LOG = logging.getLogger(__name__)

# For each graph its inputs, its outputs, and the batches of an exam, which are prepared at once.
_FORMS: Mapping[str, tuple[Sequence[Names], Sequence[Names], tuple[int, ...]]] = {
    "encoder": (ENCODER_INPUTS, ENCODER_OUTPUTS, (1, 2)),
    "head": ((HEAD_INPUTS,), (HEAD_OUTPUTS,), (1,)),
}


class TensorRTBackend:
    """Runs encoder and head plans on one GPU.

    Args:
        encoder: the encoder's plan, verified.
        head: the head's plan, verified.
        size: side S of the input in pixels.
        class_count: K.
        max_batch: the largest batch of the plans; larger ones are run in parts.
        device: the GPU; None to open the one of `settings`. It is closed with the backend.
        settings: of the engine; None for the defaults.

    Raises:
        EngineMissingError: TensorRT, a library, the driver or a GPU is missing.
        EngineError: a plan cannot be loaded here, or has other inputs and outputs than the
            protocol's.
    """

    name = "tensorrt"

    def __init__(
        self,
        encoder: bytes,
        head: bytes,
        *,
        size: int,
        class_count: int,
        max_batch: int,
        device: CudaDevice | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        settings = EngineSettings() if settings is None else settings
        trt = import_tensorrt()
        self._size = size
        self._class_count = class_count
        self._max_batch = max_batch
        self._lock = threading.Lock()
        sleeps = settings.spinning == "never"
        self._device: CudaDevice | None = (
            open_cuda_device(settings.device, sleeps=sleeps) if device is None else device
        )
        self._plans: dict[str, Plan] = {}
        self._runtime: Any = None
        try:
            major, minor = self._device.compute_capability
            self._provider = (
                f"TensorRT {trt.__version__} on {self._device.name} (sm_{major}{minor})"
            )
            self._log = make_log(trt)  # the runtime holds no reference of its own
            self._runtime = _made("TensorRT's runtime", trt.Runtime, self._log)
            for graph, plan in (("encoder", encoder), ("head", head)):
                inputs, outputs, batches = _FORMS[graph]
                self._plans[graph] = Plan(
                    trt,
                    graph,
                    partial(self._deserialise, graph, plan),
                    self._device,
                    inputs=inputs,
                    outputs=outputs,
                    cuda_graphs=settings.cuda_graphs,
                )
                for batch in batches:
                    self._plans[graph].prepare(min(batch, max_batch))
        except BaseException:
            self.close()
            raise

    @property
    def provider(self) -> str:
        """TensorRT's version and the GPU that it runs on."""
        return self._provider

    @property
    def degraded_reason(self) -> str | None:
        """Why it is slower than it could be; None where it is not."""
        with self._lock:
            reasons = [why for plan in self._plans.values() for why in plan.degraded_reasons]
        return "; ".join(reasons) or None

    @property
    def threads(self) -> int:
        """One: the work is the GPU's."""
        return 1

    def encode(self, images: Float32Array, eyes: Sequence[Eye]) -> EncodedEyes:
        """Encode preprocessed eyes (N, 3, S, S); see `Backend.encode`."""
        require_images(images, self._size)
        came = self._run("encoder", encoder_feeds(images, eyes), len(images))
        return encoded_eyes(came, len(images), self._class_count)

    def fuse(
        self,
        features_left: Float32Array,
        features_right: Float32Array,
        left_present: Float32Array,
        right_present: Float32Array,
    ) -> Float32Array:
        """Fuse both eyes of N patients into logits (N, K); see `Backend.fuse`."""
        values = (features_left, features_right, left_present, right_present)
        count = len(features_left)
        logits = self._run("head", dict(zip(HEAD_INPUTS, values, strict=True)), count)["logits"]
        require_logits("head", logits, count, self._class_count)
        return logits

    def close(self) -> None:
        """Free the plans' memory and the GPU; closing twice is allowed."""
        with self._lock:
            for plan in self._plans.values():
                plan.close()
            self._plans.clear()
            self._runtime = None
            if self._device is not None:
                try:
                    self._device.close()
                except EngineError as error:  # a driver that died says no to this too
                    _LOG.warning("%s", error)
                self._device = None

    def _deserialise(self, graph: str, plan: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise refusal(f"loading the {graph}'s plan", self._log.messages)
        return engine

    def _run(
        self, graph: str, values: Mapping[str, Float32Array], count: int
    ) -> dict[str, Float32Array]:
        if count < 1:
            raise EngineError(f"the {graph} got an empty batch; give it at least one eye")
        with self._lock:  # an execution context serves one caller at a time
            if graph not in self._plans:
                raise EngineError("the engine is closed; open the screener again")
            rows = [slice(i, i + self._max_batch) for i in range(0, count, self._max_batch)]
            parts = [
                self._plans[graph].run({name: value[some] for name, value in values.items()})
                for some in rows
            ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _made(what: str, make: Any, log: Any) -> Any:
    """What `make` returns; TensorRT's bindings answer a failure with None or a TypeError."""
    try:
        made = make(log)
    except (TypeError, RuntimeError) as error:
        raise refusal(what, (*log.messages, str(error))) from error
    if made is None:
        raise refusal(what, log.messages)
    return made
