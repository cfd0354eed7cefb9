"""The parts of a run: what takes turns with what, and the figures that follow.

Figures have the names of `bars.toml`; ratios are of medians within one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_benchmarks.contenders.agreement import require_agreement
from fundus_benchmarks.contenders.models import BenchmarkModel, edge_bundle, preset_bundle
from fundus_benchmarks.contenders.peers import OpenVINOPeer, PyTorchPeer
from fundus_benchmarks.ratios.install_size import cpu_install_mb
from fundus_benchmarks.ratios.turns import Contender, take_turns
from fundus_runtime.backends.open import open_engine
from fundus_runtime.backends.protocol import Backend
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.bundle import Bundle
from fundus_runtime.gates import GateVerdict, judge, judge_pair
from fundus_runtime.labels import Eye
from fundus_runtime.latency.exams import (
    ready_pair,
    retake,
    second_eye,
    seconds_to_encode,
    two_frames,
)
from fundus_runtime.latency.first_result import measure_first_result
from fundus_runtime.latency.frames import camera_frames
from fundus_runtime.latency.subject import Subject
from fundus_runtime.latency.timing import Timing, took_ms
from fundus_runtime.preprocess import CropBox, EyeTensor, PreprocessSpec
from fundus_runtime.preprocess.native import NativePreprocessor
from fundus_runtime.screener import Screener

__all__ = ["THREADS", "Part", "edge", "paper", "preprocessing"]

Frame = NDArray[np.uint8]

THREADS = 2
_STARTS = 10
# What a second eye needs at least.
_EYE_ALONE = ("preprocessing alone", "encoder alone, batch 1", "head alone")


@dataclass(frozen=True)
class Part:
    """What a part measured.

    Attributes:
        timings: by contender.
        figures: by name of `bars.toml`.
    """

    timings: dict[str, Timing] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def preprocessing(seconds: float) -> Part:
    """One eye, from the frame to the network's input, on one thread."""
    spec = PreprocessSpec()
    frames = camera_frames()
    native = NativePreprocessor(spec, threads=1)
    eyes = [native.prepare(frame, color="rgb") for frame in frames]
    crops = [native.crop(frame, color="rgb") for frame in frames]
    first = _verdict_on(frames[0], eyes[0], _eye_of(0))
    copy = np.empty_like(frames[0])
    cv2_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        rounds = take_turns(
            {
                "preprocessing": _each(frames, lambda k: native.prepare(frames[k], color="rgb")),
                "gates": _each(
                    frames,
                    lambda k: judge_pair(
                        {"left": first, "right": _verdict_on(frames[k], eyes[k], _eye_of(k))}
                    ),
                ),
                "copy of the frame": _each(frames, lambda k: np.copyto(copy, frames[k])),
                "cv2.resize of the crop": _each(
                    frames,
                    lambda k: cv2.resize(
                        _inside(frames[k], crops[k].box),
                        (spec.size, spec.size),
                        interpolation=cv2.INTER_AREA,
                    ),
                ),
            },
            seconds=seconds,
        )
    finally:
        cv2.setNumThreads(cv2_threads)
    return Part(
        rounds.timings,
        {
            "preprocessing_in_frame_copies": rounds.ratio("preprocessing", "copy of the frame"),
            "opencv_resize_over_preprocessing": rounds.ratio(
                "cv2.resize of the crop", "preprocessing"
            ),
            "gates_ms": rounds.timings["gates"].p50_ms,
        },
    )


def paper(seconds: float) -> Part:
    """ResNet-152 at 224 px in INT8: pair, second eye and retake, beside PyTorch and OpenVINO."""
    model = preset_bundle("paper")
    model.trust()
    bundle = Bundle.open(model.bundle)
    frames = camera_frames()
    pytorch = PyTorchPeer(model.checkpoint, threads=THREADS)
    graphs = bundle.graph_bytes(bundle.manifest.graphs_for("cpu"))
    openvino = OpenVINOPeer(graphs, bundle.manifest.spec, threads=THREADS)
    settings = EngineSettings(threads=THREADS)
    engine = open_engine(bundle, settings=settings)
    point = bundle.manifest.operating_points.get(None)
    with Screener(bundle, engine.backend, engine.graphs, point, settings=settings) as screener:
        move_s = seconds_to_encode(screener, frames)
        require_agreement(screener, {"PyTorch": pytorch, "OpenVINO": openvino}, frames)
        rounds = take_turns(
            {
                **_exams(screener, frames, move_s),
                **_parts_alone(bundle, engine.backend, frames, move_s),
                "PyTorch FP32 pair": lambda turn: _ignore(
                    pytorch.logits(*two_frames(frames, turn))
                ),
                "OpenVINO pair": lambda turn: _ignore(openvino.logits(*two_frames(frames, turn))),
            },
            seconds=seconds,
        )
    return Part(
        rounds.timings,
        {
            "pytorch_pair_over_pair": rounds.ratio("PyTorch FP32 pair", "pair"),
            "openvino_pair_over_pair": rounds.ratio("OpenVINO pair", "pair"),
            "second_eye_over_pair": rounds.ratio("second eye", "pair"),
            "pytorch_pair_over_second_eye": rounds.ratio("PyTorch FP32 pair", "second eye"),
            "second_eye_beyond_its_parts_ms": rounds.beyond_ms("second eye", _EYE_ALONE),
            "retake_beyond_its_parts_ms": rounds.beyond_ms("retake", _EYE_ALONE),
        },
    )


def edge(seconds: float) -> Part:
    """The bundle that ships: pair, second eye, first result of a fresh process, memory, install."""
    model = edge_bundle()
    frames = camera_frames()
    starts = [_start(model, frames) for _ in range(_STARTS)]
    with Screener.open(model.bundle, threads=THREADS) as screener:
        rounds = take_turns(
            _exams(screener, frames, seconds_to_encode(screener, frames)), seconds=seconds / 3
        )
    # the first start fills the file cache
    first = [ms for ms, _ in starts[1:]]
    return Part(
        {**rounds.timings, "first result of a fresh process": Timing.of(first)},
        {
            "edge_first_result_s": statistics.median(first) / 1e3,
            "edge_peak_mb": max(mb for _, mb in starts),
            "cpu_install_mb": cpu_install_mb(),
        },
    )


def _start(model: BenchmarkModel, frames: Sequence[Frame]) -> tuple[float, float]:
    found = measure_first_result(Subject(str(model.bundle), threads=THREADS), frames[0], frames[1])
    return found.first_result_ms, found.peak_mb


def _parts_alone(
    bundle: Bundle, engine: Backend, frames: Sequence[Frame], move_s: float
) -> dict[str, Contender]:
    """One eye's preprocessing, the encoder at batch 1 and 2, and the head, each by itself.

    They find the machine as an exam's second eye does: the same engine, cores that rested while the
    robot moved, and for the head, what an encoder left in the caches.
    """
    native = NativePreprocessor(bundle.manifest.spec, threads=1)
    tensors = np.stack([native.prepare(frame, color="rgb").tensor for frame in frames[:2]])
    features = engine.encode(tensors, ["left", "right"]).features
    present = np.ones(1, np.float32)

    def rested(call: Callable[[int], object]) -> Contender:
        def once(turn: int) -> float:
            call(turn)  # as the first eye did
            time.sleep(move_s)
            return took_ms(lambda: call(turn))[1]

        return once

    def head(_: int) -> float:
        engine.encode(tensors[:1], ["left"])
        return took_ms(lambda: engine.fuse(features[:1], features[1:], present, present))[1]

    return {
        "preprocessing alone": rested(
            lambda turn: native.prepare(frames[turn % len(frames)], color="rgb")
        ),
        "encoder alone, batch 1": rested(lambda _: engine.encode(tensors[:1], ["left"])),
        "encoder alone, batch 2": rested(lambda _: engine.encode(tensors, ["left", "right"])),
        "head alone": head,
    }


def _exams(screener: Screener, frames: Sequence[Frame], move_s: float) -> dict[str, Contender]:
    """The pair at once, the wait after the second eye, the wait after a retake."""
    return {
        "pair": lambda turn: ready_pair(screener, frames, turn)[1],
        "second eye": lambda turn: second_eye(screener, frames, turn, move_s=move_s)[1],
        "retake": lambda turn: retake(screener, frames, turn, move_s=move_s)[1],
    }


def _each(frames: Sequence[Frame], call: Callable[[int], object]) -> Contender:
    """A contender that takes another frame each round."""
    return lambda turn: _ignore(call(turn % len(frames)))


def _inside(frame: Frame, box: CropBox) -> Frame:
    return frame[box.top_px : box.bottom_px, box.left_px : box.right_px]


def _verdict_on(frame: Frame, eye: EyeTensor, declared_eye: Eye) -> GateVerdict:
    return judge(frame, eye.field_of_view, declared_eye=declared_eye, color="rgb")


def _eye_of(index: int) -> Eye:
    return "right" if index % 2 else "left"


def _ignore(value: object) -> None:
    """Take a value, so that a contender's whole call counts."""
