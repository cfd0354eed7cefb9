"""How latency grows with the input's size, the batch, the threads and the trunk.

Engines are ONNX Runtime's on the CPU, with the forms that bundles declare for it. What they answer
is held to PyTorch in FP32 before it is timed. Each model is timed alone, as a robot runs one: work
of a larger one would keep the cores awake for the smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fundus_benchmarks.contenders.agreement import INT8_TOLERANCE
from fundus_benchmarks.contenders.models import model_named
from fundus_benchmarks.contenders.timed_model import TimedModel
from fundus_benchmarks.growth.curves import Curve, Effort, Point, points_in_turns
from fundus_benchmarks.growth.sized_models import DIALECT, sized_edge_model
from fundus_benchmarks.limits.work import count_work
from fundus_benchmarks.ratios.turns import Contender
from fundus_runtime.backends.open import OpenedEngine, open_engine
from fundus_runtime.backends.protocol import Backend
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.labels import EYES
from fundus_runtime.latency.exams import ready_pair
from fundus_runtime.latency.frames import camera_frames
from fundus_runtime.latency.machine import describe_machine
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.screener import Screener

__all__ = ["batch", "image_size", "thread_counts", "threads", "trunk"]

Floats = NDArray[np.float32]
Contenders = dict[tuple[str, float], Contender]

_SIZES = (224, 320, 448)
_BATCHES = (1, 2, 4, 8)
# Of features, relative to the largest: the rows of a batch are the same sums in another order.
_SAME_FEATURES = 0.02
_TRUNKS = {"edge": "MobileNetV2", "resnet50": "ResNet-50", "paper": "ResNet-152"}


def image_size(effort: Effort) -> list[Curve]:
    """Encoder and head, and one eye's preprocessing, against the pixels of the model's input."""
    frames = camera_frames(2)
    contenders: Contenders = {}
    with ExitStack() as stack:
        for size in _SIZES:
            sized = sized_edge_model(size)
            native = NativePreprocessor(sized.spec, threads=1)
            pair = np.stack([native.prepare(frame, color="rgb").tensor for frame in frames])
            backend = stack.enter_context(closing(sized.open(threads=effort.threads)))
            sized.verify(_logits(backend, pair), pair)
            contenders["edge", _kilopixels(size)] = _whole(partial(_logits, backend, pair))
            contenders["eye", _kilopixels(size)] = _whole(
                partial(native.prepare, frames[0], color="rgb")
            )
        labels = {_kilopixels(size): f"{size} px" for size in _SIZES}
        points = points_in_turns(contenders, effort.seconds, labels)
    if effort.full:
        points["paper"] = _paper_sizes(effort, labels)
    against = "against the size of the model's input"
    engines = [
        Curve(
            *("image_size", f"encoder at batch 2 and head, {against}", model),
            *("input", "kilopixels", points[model]),
            settings={"dialect": DIALECT, "threads": effort.threads},
        )
        for model in ("edge", "paper")
        if model in points
    ]
    eye = Curve(
        *("image_size_eye", f"preprocessing of one eye on one thread, {against}", None),
        *("input", "kilopixels", points["eye"]),
        settings={"dialect": None, "threads": 1},
    )
    return [*engines, eye]


def batch(effort: Effort) -> list[Curve]:
    """The encoder at batch 1 to 8."""
    curves = []
    for name in effort.models:
        with ExitStack() as stack:
            engine, pair = _verified_engine(stack, _timed_model(name, effort.threads))
            eyes = np.concatenate([pair] * (max(_BATCHES) // 2))
            _require_same_rows(name, engine.backend, eyes)
            contenders: Contenders = {
                (name, count): _whole(partial(_encode, engine.backend, eyes[:count]))
                for count in _BATCHES
            }
            points = points_in_turns(contenders, effort.seconds_a_model)[name]
        settings = {"dialect": engine.graphs.dialect, "threads": effort.threads}
        title = "encoder against the batch"
        curves.append(Curve("batch", title, name, "batch", "eyes", points, settings=settings))
    return curves


def threads(effort: Effort) -> list[Curve]:
    """A pair at once on 1, 2, 4 and so on threads, to as many as this process may use."""
    curves = []
    for name in effort.models:
        model = _timed_model(name, effort.threads)
        contenders: Contenders = {}
        with ExitStack() as stack:
            for count in thread_counts():
                screener = stack.enter_context(Screener.open(model.bundle, threads=count))
                model.verify_exams(screener, INT8_TOLERANCE)
                contenders[name, count] = partial(_pair_ms, screener, model)
            points = points_in_turns(contenders, effort.seconds_a_model)[name]
            settings = {"dialect": screener.engine.dialect}
        title = "pair at once against threads"
        curves.append(Curve("threads", title, name, "threads", "", points, settings=settings))
    return curves


def trunk(effort: Effort) -> list[Curve]:
    """Encoder and head against what the trunk makes them compute."""
    points = []
    dialects = []
    for name in effort.models:
        with ExitStack() as stack:
            model = _timed_model(name, effort.threads)
            engine, pair = _verified_engine(stack, model)
            encoder, head = model.bundle.graph_bytes(engine.graphs)
            operations = (
                count_work(encoder, batch=2).operations + count_work(head, batch=1).operations
            )
            place = round(operations / 1e9, 3)
            contenders: Contenders = {(name, place): _whole(partial(_logits, engine.backend, pair))}
            labels = {place: _TRUNKS[name]}
            points += points_in_turns(contenders, effort.seconds_a_model, labels)[name]
            dialects.append(engine.graphs.dialect)
    title = "encoder at batch 2 and head, against the operations of the trunk"
    settings = {"dialect": ", ".join(dict.fromkeys(dialects)), "threads": effort.threads}
    x = ("operations of a pair", "GOP", sorted(points, key=lambda point: point.x))
    return [Curve("trunk", title, None, *x, settings=settings)]


def _paper_sizes(effort: Effort, labels: Mapping[float, str]) -> list[Point]:
    """ResNet-152 at the two sizes that there are presets for."""
    contenders: Contenders = {}
    with ExitStack() as stack:
        for name in ("paper", "paper-448"):
            engine, pair = _verified_engine(stack, _timed_model(name, effort.threads))
            place = _kilopixels(pair.shape[-1])
            contenders["paper", place] = _whole(partial(_logits, engine.backend, pair))
        return points_in_turns(contenders, effort.seconds, labels)["paper"]


def thread_counts(most: int | None = None) -> list[int]:
    """Powers of two up to `most`, and `most`; by default the CPUs that this process may use."""
    most = int(describe_machine()["usable_processors"] or 1) if most is None else most
    powers = [1 << k for k in range(most.bit_length()) if 1 << k < most]
    return [*powers, most]


def _kilopixels(size: int) -> float:
    return size**2 / 1e3


def _timed_model(name: str, threads: int) -> TimedModel:
    return TimedModel(model_named(name), camera_frames(2), threads)


def _verified_engine(stack: ExitStack, model: TimedModel) -> tuple[OpenedEngine, Floats]:
    """An engine that answers as PyTorch does, and a prepared pair; closed with the stack."""
    engine = open_engine(model.bundle, settings=EngineSettings(threads=model.threads))
    stack.enter_context(closing(engine.backend))
    model.verify(model.model.name, partial(_logits, engine.backend), INT8_TOLERANCE)
    return engine, model.pairs[0]


def _require_same_rows(name: str, backend: Backend, eyes: Floats) -> None:
    """An eye's features do not depend on how many go through the encoder with it.

    Raises:
        RuntimeError: they do.
    """
    alone = [_encode(backend, eyes[k : k + 1])[0] for k in range(2)]
    for count in _BATCHES:
        for place, features in enumerate(_encode(backend, eyes[:count])):
            off = np.abs(features - alone[place % 2]).max() / np.abs(alone[place % 2]).max()
            if not off <= _SAME_FEATURES:
                raise RuntimeError(
                    f"{name} answers otherwise at batch {count}: features are {off:.3f} of the "
                    f"largest apart, at most {_SAME_FEATURES} was expected"
                )


def _logits(backend: Backend, pair: Floats) -> Floats:
    """Both eyes, (2, 3, S, S), through encoder and head."""
    features, present = _encode(backend, pair), np.ones(1, np.float32)
    return backend.fuse(features[:1], features[1:], present, present)


def _encode(backend: Backend, eyes: Floats) -> Floats:
    """Features of left and right eyes in turn."""
    return backend.encode(eyes, [EYES[k % 2] for k in range(len(eyes))]).features


def _pair_ms(screener: Screener, model: TimedModel, turn: int) -> float:
    return ready_pair(screener, model.frames, turn)[1]


def _whole(call: Callable[[], object]) -> Contender:
    """A contender all of whose call counts."""

    def once(_: int) -> None:
        call()

    return once
