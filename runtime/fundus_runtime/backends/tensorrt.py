"""TensorRT on an NVIDIA GPU: two plans, run through the tensor-name API alone.

That API is the same from TensorRT 8.5 to 11. Plans come as bytes that `read_plans` has verified, or
straight from the builder; nothing else may be handed in, since plans are executable. Inputs and
outputs are float32 whatever the plan computes in. This is the plain synchronous form: copy in, run,
copy out, on one stream.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
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
    named_as,
    require_images,
    require_logits,
)
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.backends.tensorrt_install import import_tensorrt, make_log, refusal
from fundus_runtime.errors import EngineError
from fundus_runtime.labels import Eye

__all__ = ["TensorRTBackend"]

Shape = tuple[int, ...]
Names = tuple[str, ...]


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
        self._lock = threading.Lock()
        self._device: CudaDevice | None = (
            open_cuda_device(settings.device) if device is None else device
        )
        major, minor = self._device.compute_capability
        self._provider = f"TensorRT {trt.__version__} on {self._device.name} (sm_{major}{minor})"
        self._log = make_log(trt)  # the runtime holds no reference of its own
        self._runtime: Any = None
        self._plans: dict[str, _Plan] = {}
        forms = {
            "encoder": (ENCODER_INPUTS, ENCODER_OUTPUTS),
            "head": ((HEAD_INPUTS,), (HEAD_OUTPUTS,)),
        }
        try:
            self._runtime = _made("TensorRT's runtime", trt.Runtime, self._log)
            for graph, plan in (("encoder", encoder), ("head", head)):
                engine = self._runtime.deserialize_cuda_engine(plan)
                if engine is None:
                    raise refusal(f"loading the {graph}'s plan", self._log.messages)
                self._plans[graph] = _Plan(trt, graph, engine, self._device, *forms[graph])
                self._plans[graph].allocate(max_batch)
        except BaseException:
            self.close()
            raise
        self._max_batch = max_batch

    @property
    def provider(self) -> str:
        """TensorRT's version and the GPU that it runs on."""
        return self._provider

    @property
    def degraded_reason(self) -> str | None:
        """Why it is slower than it could be; None where it is not."""
        return None

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
                self._device.close()
                self._device = None

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


class _Plan:
    """One loaded plan with its execution context and its device memory."""

    def __init__(
        self,
        trt: Any,
        graph: str,
        engine: Any,
        device: CudaDevice,
        inputs: Sequence[Names],
        outputs: Sequence[Names],
    ) -> None:
        self._graph = graph
        self._engine: Any = engine
        self._device = device
        self._memory: dict[str, int] = {}
        self._inputs, self._outputs = _require_tensors(trt, graph, engine, inputs, outputs)
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"TensorRT made no execution context for the {graph}; "
                f"{device.free_bytes() / 1e6:.0f} MB of the GPU's memory are free: end other "
                "programs that use it"
            )

    def allocate(self, max_batch: int) -> None:
        """Take device memory for the largest batch, and tell the context where it is."""
        for name in self._inputs:
            self._set_shape(name, (max_batch, *self._row(name)))
        for name in (*self._inputs, *self._outputs):
            shape = tuple(self._context.get_tensor_shape(name))
            self._memory[name] = self._device.allocate(4 * int(np.prod(shape)))
            if not self._context.set_tensor_address(name, self._memory[name]):
                raise EngineError(f"TensorRT refused the memory of the {self._graph}'s {name!r}")

    def run(self, values: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
        """Copy in what the plan asks for, run, copy out."""
        # held until all is done
        held = {name: np.ascontiguousarray(values[name], np.float32) for name in self._inputs}
        for name, value in held.items():
            self._set_shape(name, value.shape)
            self._device.to_device(self._memory[name], value)
        if not self._context.execute_async_v3(self._device.stream):
            raise EngineError(f"TensorRT failed in the {self._graph}")
        answers = {
            name: np.empty(tuple(self._context.get_tensor_shape(name)), np.float32)
            for name in self._outputs
        }
        for name, answer in answers.items():
            self._device.to_host(answer, self._memory[name])
        self._device.synchronise()
        _require_finite(self._graph, answers)
        return answers

    def close(self) -> None:
        """Give the memory back."""
        self._context = self._engine = None
        for address in self._memory.values():
            self._device.free(address)
        self._memory.clear()

    def _row(self, name: str) -> Shape:
        return tuple(self._engine.get_tensor_shape(name))[1:]

    def _set_shape(self, name: str, shape: Shape) -> None:
        if shape[1:] != self._row(name) or not self._context.set_input_shape(name, shape):
            raise EngineError(
                f"the {self._graph} takes {name!r} with rows of {self._row(name)} and batches "
                f"within its profile, but got {shape}"
            )


def _made(what: str, make: Any, log: Any) -> Any:
    """What `make` returns; TensorRT's bindings answer a failure with None or a TypeError."""
    try:
        made = make(log)
    except (TypeError, RuntimeError) as error:
        raise refusal(what, (*log.messages, str(error))) from error
    if made is None:
        raise refusal(what, log.messages)
    return made


def _require_tensors(
    trt: Any, graph: str, engine: Any, inputs: Sequence[Names], outputs: Sequence[Names]
) -> tuple[Names, Names]:
    """Which of these inputs and outputs a plan has."""
    came = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for name in came:
        # compared with the member itself: trt.nptype fails on 8.5 with NumPy 1.24 to 1.26
        if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
            raise EngineError(
                f"the {graph}'s plan has {name!r} as {engine.get_tensor_dtype(name)}, expected "
                "float32; build the plans again"
            )
    modes = {name: engine.get_tensor_mode(name) for name in came}
    found = [name for name in came if modes[name] == trt.TensorIOMode.INPUT]
    made = [name for name in came if modes[name] == trt.TensorIOMode.OUTPUT]
    return (
        _require_names(graph, "inputs", found, inputs),
        _require_names(graph, "outputs", made, outputs),
    )


def _require_names(graph: str, kind: str, came: list[str], forms: Sequence[Names]) -> Names:
    form = named_as(came, forms)
    if form is None:
        raise EngineError(
            f"the {graph}'s plan has the {kind} {came}, expected "
            f"{' or '.join(str(list(form)) for form in forms)}; build the plans again"
        )
    return form


def _require_finite(graph: str, answers: Mapping[str, Float32Array]) -> None:
    for name, value in answers.items():
        if not np.isfinite(value).all():
            raise EngineError(
                f"the {graph} answered NaN or infinity in {name!r}; no result can be given: "
                "build the plans again, and see whether a wider precision answers"
            )
