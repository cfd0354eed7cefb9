"""The engine alone: encoder at batch 1 and 2, and head, by backend and dialect."""

from __future__ import annotations

import numpy as np
import pytest

from fundus_benchmarks.contenders.agreement import BF16_TOLERANCE, FP32_TOLERANCE, INT8_TOLERANCE
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.backends.open import open_engine
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.errors import BundleError, EngineError
from fundus_runtime.labels import EYES

PRESENT = np.ones(1, np.float32)
# FP16 keeps three more bits than BF16.
TOLERANCES = {"fp32": FP32_TOLERANCE, "fp16": BF16_TOLERANCE, "int8": INT8_TOLERANCE}
ENGINES = ("cpu int8-cpu", "cpu fp32", "cuda", "tensorrt plans")


@pytest.fixture(scope="session", params=ENGINES)
def engine(request, timed_model, threads, missing):
    """An engine that really opens here with this model; its row; what it answers, in words."""
    opened, row, precision = _open(request.param, timed_model, threads, missing)
    verified = timed_model.verify(
        request.param, lambda eyes: _logits_of(opened, eyes), TOLERANCES[precision]
    )
    yield opened, {**row, "model": timed_model.model.name, "verified": verified}
    opened.close()


@pytest.mark.parametrize("batch", [1, 2])
def test_encoder(timed, timed_model, engine, batch):
    backend, row = engine
    images = [pair[:batch] for pair in timed_model.pairs]
    timed(lambda: _cycle(backend, images, batch), stage=f"encoder_{batch}", **row)


def _cycle(backend, images, batch):
    images.append(images.pop(0))
    return backend.encode(images[0], EYES[:batch])


def test_head(timed, timed_model, engine):
    """After an encoder, which leaves the caches full of its own weights."""
    backend, row = engine
    features = backend.encode(timed_model.pairs[0], EYES).features

    def begin():
        backend.encode(timed_model.pairs[1][:1], EYES[:1])
        return ()

    timed(
        lambda: backend.fuse(features[:1], features[1:], PRESENT, PRESENT),
        begin,
        stage="head",
        **row,
    )


def test_tensorrt_engine_alone(missing, timed_model):
    """What a plan takes without the runtime around it, by TensorRT's own program."""
    missing(
        f"the TensorRT engine of {timed_model.model.name} alone, as trtexec times it",
        "this suite does not run trtexec; time a plan of the device cache with trtexec "
        "--loadEngine=PLAN --useCudaGraph --noDataTransfers beside the encoder's and head's rows",
    )


def _open(name, timed_model, threads, missing):
    settings = EngineSettings(threads=threads)
    bundle = timed_model.bundle
    if name.startswith("cpu"):
        dialect = name.split()[1]
        backend = OnnxRuntimeBackend(
            *timed_model.graphs(dialect),
            size=bundle.manifest.spec.size,
            class_count=len(bundle.manifest.classes),
            settings=settings,
        )
        row = {"backend": "onnxruntime", "provider": "cpu", "dialect": dialect}
        return backend, row, dialect.removesuffix("-cpu")
    kind = {"backend": "tensorrt"} if name == "tensorrt plans" else {"provider": name}
    try:
        opened = open_engine(bundle, settings=EngineSettings(), **kind)
    except (EngineError, BundleError) as error:
        missing(f"{timed_model.model.name} on {name}", error)
    row = {
        "backend": opened.backend.name,
        "provider": kind.get("provider", "tensorrt"),
        "dialect": opened.graphs.dialect,
        "threads": opened.backend.threads,
    }
    return opened.backend, row, opened.precision


def _logits_of(backend, eyes):
    features = backend.encode(eyes, EYES).features
    return backend.fuse(features[:1], features[1:], PRESENT, PRESENT)
