"""One TensorRT plan on a GPU: for each batch size its own context, memory and CUDA graph.

A run copies the inputs into page-locked memory, replays one graph (copy in, compute, copy out) and
copies the answers out of page-locked memory. A graph holds addresses, shapes and the state of the
context that it was captured from, so that no two batch sizes share any of these. Before a graph is
used its answers are held to those of the same run without it; where it cannot be captured or
answers otherwise, runs go without it and `degraded_reason` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fundus_runtime.backends.cuda_device import CudaDevice
from fundus_runtime.backends.protocol import Float32Array, named_as
from fundus_runtime.errors import EngineError

__all__ = ["Names", "Plan"]

_LOG = logging.getLogger(__name__)

Names = tuple[str, ...]

# The same kernels on the same values; some of them add in an order that varies.
_RELATIVE_TOLERANCE = 1e-3


class Plan:
    """One plan, run at any batch size up to its largest.

    Args:
        trt: TensorRT's module.
        graph: `encoder` or `head`.
        load: deserialises the plan; every call makes an engine of its own.
        device: the GPU; it stays the caller's.
        inputs: the names that the plan's inputs may have.
        outputs: the names that its outputs may have.
        cuda_graphs: whether runs are captured.

    Raises:
        EngineError: the plan cannot be loaded, or has other inputs and outputs.
    """

    def __init__(
        self,
        trt: Any,
        graph: str,
        load: Callable[[], Any],
        device: CudaDevice,
        *,
        inputs: Sequence[Names],
        outputs: Sequence[Names],
        cuda_graphs: bool = True,
    ) -> None:
        self._graph = graph
        self._device = device
        self._cuda_graphs = cuda_graphs
        self._engine: Any = load()
        # On 8 a plan's only profile serves one context alone, so that each batch size loads it
        # anew; strong typing and shared profiles came together.
        shares_profile = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        self._load = None if shares_profile else load
        self._inputs, self._outputs = _require_tensors(trt, graph, self._engine, inputs, outputs)
        self._lanes: dict[int, _Lane] = {}

    @property
    def degraded_reasons(self) -> Iterator[str]:
        """Why batch sizes that were prepared run without a CUDA graph."""
        for batch, lane in self._lanes.items():
            if lane.no_graph_because is not None:
                yield (
                    f"the {self._graph} runs without a CUDA graph at batch {batch}, launch by "
                    f"launch, and takes longer: {lane.no_graph_because}"
                )

    def prepare(self, batch: int) -> None:
        """Take what a batch size needs, so that its first run is as fast as the later ones.

        Raises:
            EngineError: memory or a context is refused.
        """
        if batch in self._lanes:
            return
        engine = self._engine
        if self._lanes and self._load is not None:
            engine = self._load()
        lane = _Lane(self._graph, engine, self._device, self._inputs, self._outputs, batch)
        try:
            lane.allocate()
            if self._cuda_graphs:
                lane.capture()
        except BaseException:
            lane.close()
            raise
        self._lanes[batch] = lane

    def run(self, values: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
        """The answers to a batch, as new arrays.

        Args:
            values: what the plan asks for and perhaps more, all with the same first axis.
        """
        batch = len(values[self._inputs[0]])
        self._require_rows(values)
        self.prepare(batch)
        answers = self._lanes[batch].run(values)
        for name, value in answers.items():
            if not np.isfinite(value).all():
                raise EngineError(
                    f"the {self._graph} answered NaN or infinity in {name!r}; no result can be "
                    "given: build the plans again, and see whether a wider precision answers"
                )
        return answers

    def close(self) -> None:
        """Give everything back; closing twice is allowed."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()
        self._engine = None

    def _require_rows(self, values: Mapping[str, Float32Array]) -> None:
        for name in self._inputs:
            row = tuple(self._engine.get_tensor_shape(name))[1:]
            if values[name].shape[1:] != row:
                raise EngineError(
                    f"the {self._graph} takes {name!r} with rows of {row}, but got "
                    f"{values[name].shape}"
                )


class _Lane:
    """What one batch size has for itself."""

    def __init__(
        self,
        graph: str,
        engine: Any,
        device: CudaDevice,
        inputs: Names,
        outputs: Names,
        batch: int,
    ) -> None:
        self.no_graph_because: str | None = None
        self._graph = graph
        self._engine = engine
        self._device = device
        self._inputs, self._outputs = inputs, outputs
        self._batch = batch
        self._memory: dict[str, int] = {}
        self._host: dict[str, Float32Array] = {}
        self._captured: Any = None
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"TensorRT made no execution context for the {graph}; "
                f"{device.free_bytes() / 1e6:.0f} MB of the GPU's memory are free: end other "
                "programs that use it"
            )

    def allocate(self) -> None:
        """Take memory on both sides, and tell the context where it is."""
        for name in self._inputs:
            shape = (self._batch, *tuple(self._engine.get_tensor_shape(name))[1:])
            if not self._context.set_input_shape(name, shape):
                raise EngineError(
                    f"the {self._graph} takes {name!r} in batches within its profile, but got "
                    f"{shape}; build the plans again with a larger --max-batch"
                )
        for name in (*self._inputs, *self._outputs):
            shape = tuple(self._context.get_tensor_shape(name))
            self._memory[name] = self._device.allocate(4 * int(np.prod(shape)))
            self._host[name] = self._device.pinned(shape)
            if not self._context.set_tensor_address(name, self._memory[name]):
                raise EngineError(f"TensorRT refused the memory of the {self._graph}'s {name!r}")

    def capture(self) -> None:
        """Capture a run, and use it from then on if it answers as a run without it does."""
        # a first run, for what a context puts off until then may not be captured
        self._answers_to(_example(self._host, self._inputs, seed=0))
        try:
            self._captured = self._device.capture(self._enqueue)
        except EngineError as error:
            self.no_graph_because = str(error)
            return
        example, captured = _example(self._host, self._inputs, seed=1), self._captured
        self._captured = None
        expected = self._answers_to(example)
        for name in self._outputs:
            self._host[name][...] = 0
        self._captured = captured
        differing = _differing(expected, self._answers_to(example))
        if differing:
            self._captured = None
            self._device.free_graph(captured)
            self.no_graph_because = f"replayed, it answers otherwise in {', '.join(differing)}"

    def run(self, values: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
        """The answers to one batch of this lane's size."""
        return self._answers_to({name: values[name] for name in self._inputs})

    def close(self) -> None:
        """Give everything back; what replays the context goes before it."""
        if self._captured is not None:
            _give_back(self._device.free_graph, self._captured)
        self._captured = self._context = self._engine = None
        for address in self._memory.values():
            _give_back(self._device.free, address)
        for array in self._host.values():
            _give_back(self._device.free_pinned, array)
        self._memory.clear()
        self._host.clear()

    def _answers_to(self, values: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
        for name, value in values.items():
            self._host[name][...] = value
        if self._captured is None:
            self._enqueue()
        else:
            self._device.launch(self._captured)
        self._device.synchronise()
        return {name: self._host[name].copy() for name in self._outputs}

    def _enqueue(self) -> None:
        for name in self._inputs:
            self._device.to_device(self._memory[name], self._host[name])
        if not self._context.execute_async_v3(self._device.stream):
            raise EngineError(f"TensorRT failed in the {self._graph}")
        for name in self._outputs:
            self._device.to_host(self._host[name], self._memory[name])


def _give_back(free: Callable[[Any], None], what: Any) -> None:
    """Free one thing; a driver that died says no to that too, and the rest must still go."""
    try:
        free(what)
    except EngineError as error:
        _LOG.warning("%s", error)


def _example(
    host: Mapping[str, Float32Array], inputs: Names, *, seed: int
) -> dict[str, Float32Array]:
    """Values such as images, features and flags have: not all the same, none of them large."""
    random = np.random.default_rng(seed)
    return {name: random.random(host[name].shape, np.float32) for name in inputs}


def _differing(expected: Mapping[str, Float32Array], came: Mapping[str, Float32Array]) -> list[str]:
    found = []
    for name, value in expected.items():
        largest = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
        bounds = {"rtol": _RELATIVE_TOLERANCE, "atol": _RELATIVE_TOLERANCE * largest}
        if not np.allclose(came[name], value, equal_nan=True, **bounds):
            found.append(name)
    return found


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
