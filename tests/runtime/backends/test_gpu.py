"""ONNX Runtime on a real GPU: `FUNDUS_REQUIRE_GPU=1`, with onnxruntime-gpu and CUDA's libraries."""

from __future__ import annotations

import numpy as np
import pytest

from fundus_runtime.backends.open import open_engine
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.bundle import Bundle
from fundus_runtime.labels import EYES
from fundus_runtime.shipped import default_bundle

pytestmark = [pytest.mark.needs_gpu, pytest.mark.timeout(1200)]

# Of a logit, against the CPU. FP32 differs by the order of sums alone; FP16 keeps 10 bits of each
# factor, and the shipped bundle's logits are of the size of 5.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2}


def answers(bundle: Bundle, provider: str, precision: str) -> tuple[np.ndarray, np.ndarray]:
    settings = EngineSettings(precision=precision)  # type: ignore[arg-type]
    opened = open_engine(bundle, provider=provider, settings=settings)  # type: ignore[arg-type]
    size = bundle.manifest.spec.size
    images = np.random.default_rng(0).normal(0, 1, (2, 3, size, size)).astype(np.float32)
    flag = np.ones(1, np.float32)
    try:
        encoded = opened.backend.encode(images, EYES)
        return encoded.logits, opened.backend.fuse(
            encoded.features[:1], encoded.features[1:], flag, flag
        )
    finally:
        opened.backend.close()


def test_fp32_on_cuda_answers_as_on_the_cpu(shared_bundle) -> None:
    bundle = Bundle.open(shared_bundle)
    for came, expected in zip(
        answers(bundle, "cuda", "fp32"), answers(bundle, "cpu", "fp32"), strict=True
    ):
        np.testing.assert_allclose(came, expected, atol=TOLERANCE["fp32"])


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_the_shipped_bundle_in_fp16_answers_as_on_the_cpu(provider: str) -> None:
    """Every operator of the real graphs has a kernel there, or the session would not open."""
    bundle = Bundle.open(default_bundle())
    for came, expected in zip(
        answers(bundle, provider, "fp16"), answers(bundle, "cpu", "fp16"), strict=True
    ):
        np.testing.assert_allclose(came, expected, atol=TOLERANCE["fp16"])


def test_the_session_says_where_it_runs() -> None:
    opened = open_engine(Bundle.open(default_bundle()), provider="cuda")
    assert opened.backend.provider == "CUDAExecutionProvider"
    assert opened.graphs.dialect == "fp16"
    opened.backend.close()
