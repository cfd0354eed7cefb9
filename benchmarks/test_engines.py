"""The engine alone: encoder at batch 1 and 2, and head, by backend and dialect."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from fundus_benchmarks.contenders.agreement import TOLERANCES
from fundus_benchmarks.contenders.engine_kinds import ENGINES
from fundus_benchmarks.contenders.trtexec import (
    TrtexecError,
    find_trtexec,
    input_shapes,
    time_plan,
)
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.backends.open import open_engine
from fundus_runtime.backends.open_plans import open_plans
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.errors import BundleError, EngineError
from fundus_runtime.labels import EYES
from fundus_runtime.plans import GRAPHS

PRESENT = np.ones(1, np.float32)
# ONNX Runtime's TensorRT provider builds its engines in its first runs.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="session", params=ENGINES, ids=str)
def engine(request, timed_model, threads, missing):
    """An engine that really opens here with this model; its row; what it answers, in words."""
    opened, row, precision = _open(request.param, timed_model, threads, missing)
    verified = timed_model.verify(
        str(request.param), lambda eyes: _logits_of(opened, eyes), TOLERANCES[precision]
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


@pytest.fixture(scope="session")
def plans(timed_model, missing):
    """Plans of this device that answered as they should, trtexec, and their rows."""
    what = f"the TensorRT engine of {timed_model.model.name} alone, as trtexec times it"
    try:
        found, backend = open_plans(timed_model.bundle, EngineSettings())
        with closing(backend):
            verified = timed_model.verify(
                "tensorrt plans",
                lambda eyes: _logits_of(backend, eyes),
                TOLERANCES[found.key.precision],
            )
        program = find_trtexec()
    except (EngineError, BundleError, TrtexecError) as error:
        missing(what, error)
    verified = f"by the runtime, from the same plans: {verified}"
    return what, program, found, row_of_trtexec(timed_model.model.name, found.key.dialect, verified)


def row_of_trtexec(model, dialect, verified):
    """No peer, whose times would tell of the host: the plan is the product's own."""
    return {
        "model": model,
        "contender": f"trtexec {dialect}",
        "backend": "trtexec",
        "provider": "tensorrt",
        "dialect": dialect,
        "threads": 1,
        "verified": verified,
    }


@pytest.mark.parametrize(("graph", "batch"), [("encoder", 1), ("encoder", 2), ("head", 1)])
def test_tensorrt_engine_alone(timed_elsewhere, request, timed_model, missing, plans, graph, batch):
    """What a plan takes without the runtime around it, by TensorRT's own program."""
    what, program, found, row = plans
    pair = timed_model.bundle.manifest.graphs[found.key.dialect]
    graphs = dict(zip(GRAPHS, timed_model.bundle.graph_bytes(pair), strict=True))
    try:
        times_ms = time_plan(
            program,
            getattr(found, graph),
            input_shapes(graphs[graph], batch),
            seconds=request.config.getoption("seconds"),
        )
    except TrtexecError as error:
        missing(what, error)
    stage = "head" if graph == "head" else f"{graph}_{batch}"
    timed_elsewhere(times_ms, stage=stage, **row)


def _open(kind, timed_model, threads, missing):
    bundle = timed_model.bundle
    row = {"backend": kind.backend, "provider": kind.shown}
    if kind.dialect is not None:
        backend = OnnxRuntimeBackend(
            *timed_model.graphs(kind.dialect),
            size=bundle.manifest.spec.size,
            class_count=len(bundle.manifest.classes),
            settings=EngineSettings(threads=threads),
        )
        return backend, {**row, "dialect": kind.dialect}, kind.dialect.removesuffix("-cpu")
    try:
        opened = open_engine(bundle, kind.backend, provider=kind.provider)
    except (EngineError, BundleError) as error:
        missing(f"{timed_model.model.name} on {kind}", error)
    row |= {"dialect": opened.graphs.dialect, "threads": opened.backend.threads}
    return opened.backend, row, opened.precision


def _logits_of(backend, eyes):
    features = backend.encode(eyes, EYES).features
    return backend.fuse(features[:1], features[1:], PRESENT, PRESENT)
