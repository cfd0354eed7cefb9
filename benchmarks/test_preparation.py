"""What happens to a photograph before the engine: decoding, preprocessing, gates."""

from __future__ import annotations

from itertools import cycle

import cv2
import numpy as np
import pytest
import simplejpeg
import torch

from fundus_benchmarks.contenders.agreement import require_same_picture
from fundus_benchmarks.contenders.peers import preprocess_with_opencv
from fundus_runtime.errors import EngineError
from fundus_runtime.gates import judge
from fundus_runtime.photograph import decode_photograph
from fundus_runtime.preprocess import PreprocessSpec, preprocess
from fundus_runtime.preprocess.cuda import CudaPreprocessor
from fundus_runtime.preprocess.native import NativePreprocessor

SPEC = PreprocessSpec()
# What a camera of 5 megapixels writes.
_JPEG_QUALITY = 92
# In levels: of the mean over a photograph of little noise, at that quality.
_JPEG_TOLERANCE = 2.0
# What the native core is held to.
_MEAN_LEVELS = 0.02


@pytest.fixture(scope="module")
def jpegs(frames):
    return [simplejpeg.encode_jpeg(frame, _JPEG_QUALITY, "RGB", "420") for frame in frames[:4]]


@pytest.fixture(scope="module")
def pngs(frames):
    return [cv2.imencode(".png", frame[:, :, ::-1])[1].tobytes() for frame in frames[:4]]


def _each(values):
    """One after the other, each as the arguments of a call."""
    turns = cycle(values)
    return lambda: (next(turns),)


def test_decode_jpeg(timed, frames, jpegs):
    def decode(data):
        return decode_photograph(data, name="eye.jpg")

    timed(decode, _each(jpegs), stage="decode_jpeg", verified=_close(decode(jpegs[0]), frames[0]))


def test_decode_jpeg_at_half_size(timed, frames, jpegs):
    """What a decoder that scales would save; the runtime reads photographs whole."""
    height, width = frames[0].shape[:2]

    def decode(data):
        return simplejpeg.decode_jpeg(
            data, "RGB", min_height=height // 2, min_width=width // 2, min_factor=2
        )

    half = cv2.resize(frames[0], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    timed(
        decode,
        _each(jpegs),
        stage="decode_jpeg_scaled",
        contender="simplejpeg",
        verified=_close(decode(jpegs[0]), half),
    )


def test_decode_png(timed, frames, pngs):
    def decode(data):
        return decode_photograph(data, name="eye.png")

    assert np.array_equal(decode(pngs[0]), frames[0])
    timed(decode, _each(pngs), stage="decode_png", verified="equal to the frame")


def test_preprocessing_native(timed, frames):
    native = NativePreprocessor(SPEC, threads=1)
    levels = _levels_between(_tensor_of(native)(frames[0]), _by_reference(frames[0]))
    assert levels < _MEAN_LEVELS
    timed(
        _tensor_of(native),
        _each(frames),
        stage="preprocessing",
        threads=1,
        verified=f"within {levels:.4f} levels of the reference in the mean",
    )


def test_preprocessing_reference(timed, frames):
    timed(
        _by_reference,
        _each(frames),
        stage="preprocessing",
        contender="reference",
        threads=1,
        verified="is the reference",
    )


def test_preprocessing_with_opencv(timed, frames, threads):
    require_same_picture(
        preprocess(frames[0], SPEC), preprocess_with_opencv(frames[0], SPEC), SPEC, "frame 0"
    )
    cv2.setNumThreads(threads)
    timed(
        lambda frame: preprocess_with_opencv(frame, SPEC),
        _each(frames),
        stage="preprocessing",
        contender="OpenCV",
        verified="the same picture but for its rim",
    )


def test_preprocessing_cuda(timed, frames, missing):
    """From a frame in the GPU's memory to a tensor there."""
    try:
        cuda = CudaPreprocessor(SPEC)
    except EngineError as error:
        missing("preprocessing by CUDA", error)
    stream = torch.cuda.Stream()
    eyes = [torch.from_numpy(frame).cuda() for frame in frames]
    tensor = torch.empty((3, SPEC.size, SPEC.size), device="cuda")

    def prepare(eye):
        cuda.prepare(eye, color="rgb", out=tensor, stream=stream.cuda_stream)
        stream.synchronize()
        return tensor

    levels = _levels_between(prepare(eyes[0]).cpu().numpy(), _by_reference(frames[0]))
    assert levels < _MEAN_LEVELS
    timed(
        prepare,
        _each(eyes),
        stage="preprocessing",
        provider="cuda",
        verified=f"within {levels:.4f} levels of the reference in the mean",
    )


def test_gates(timed, frames):
    native = NativePreprocessor(SPEC, threads=1)
    discs = [native.prepare(frame, color="rgb").field_of_view for frame in frames]

    def gates(frame, disc, eye):
        return judge(frame, disc, declared_eye=eye, color="rgb").fingerprint.structure

    verdicts = [
        judge(frame, disc, declared_eye=eye, color="rgb")
        for frame, disc, eye in zip(frames, discs, cycle(("left", "right")), strict=False)
    ]
    assert all(verdict.usable for verdict in verdicts)
    turns = cycle(zip(frames, discs, cycle(("left", "right")), strict=False))
    timed(gates, lambda: next(turns), stage="gates", threads=1, verified="all frames pass")


def _tensor_of(native):
    return lambda frame: native.prepare(frame, color="rgb").tensor


def _by_reference(frame):
    return preprocess(frame, SPEC).tensor


def _levels_between(tensor, other):
    return float((np.abs(tensor - other) * 255 * np.array(SPEC.std)[:, None, None]).mean())


def _close(decoded, frame):
    found = float(np.abs(decoded.astype(np.int16) - frame).mean())
    assert found < _JPEG_TOLERANCE
    return f"within {found:.2f} levels of the frame in the mean"
