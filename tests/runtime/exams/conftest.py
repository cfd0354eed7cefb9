"""Screeners for the tests of exams; makes `exam_tools`, which lies beside them, importable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.photograph import read_photograph
from fundus_runtime.screener import Screener
from fundus_runtime.shipped import default_bundle

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def screener(shared_bundle: Path) -> Iterator[Screener]:
    with Screener.open(shared_bundle, threads=1) as opened:
        yield opened


@pytest.fixture
def hindered(shared_bundle: Path) -> Iterator[tuple[Screener, Any]]:
    from exam_tools import Hindered

    bundle = Bundle.open(shared_bundle)
    graphs = bundle.manifest.graphs_for("cpu")
    real = OnnxRuntimeBackend(*bundle.graph_bytes(graphs), size=64, class_count=8, threads=1)
    backend = Hindered(real)
    with Screener(bundle, backend, graphs, bundle.manifest.operating_points.get()) as opened:
        yield opened, backend
        if backend.held is not None:
            backend.held.set()


@pytest.fixture
def shipped_pair(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Two golden pictures of the shipped bundle, and that bundle for the default one."""
    monkeypatch.delenv("FUNDUS_BUNDLE", raising=False)
    golden = default_bundle() / "golden"
    return read_photograph(golden / "00_left.png"), read_photograph(golden / "00_right.png")
