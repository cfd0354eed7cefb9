"""Which form runs on a device: the one whose answers are exact there, and nothing in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fundus_runtime import _native
from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import BundleError, EngineError
from fundus_runtime.graph_choice import CUDA, TENSORRT, graphs_for_cpu, graphs_for_gpu
from fundus_runtime.manifest import Manifest
from fundus_runtime.screener import Screener

FEATURES = ["avx512_vnni", "avx_vnni", "asimddp"]
OLD = {"avx2": True, "avx512_vnni": False, "avx_vnni": False, "asimddp": False}
Change = Callable[[dict[str, Any]], None]


def _declare(manifest: dict[str, Any], fallback: str | None = "fp16") -> None:
    """The tiny graphs under the names of an INT8 bundle."""
    plain = manifest["graphs"].pop("fp32")
    manifest["graphs"] = {
        "int8-cpu": {**plain, "dialect": "int8-cpu", "precision": "int8", "cpu_features": FEATURES},
        "fp16": {**plain, "dialect": "fp16", "precision": "fp16"},
    }
    manifest["default_graphs"] = {"cpu": "int8-cpu"}
    if fallback is not None:
        manifest["default_graphs"]["cpu_without_dot_product"] = fallback


@pytest.fixture
def make_declared(tmp_path: Path, make_bundle) -> Callable[..., Bundle]:
    """A tiny bundle that declares an INT8 form; `change` edits the manifest further."""

    def make(fallback: str | None = "fp16", change: Change = lambda _: None) -> Bundle:
        def declare(manifest: dict[str, Any]) -> None:
            _declare(manifest, fallback)
            change(manifest)

        shutil.rmtree(tmp_path / "bundle", ignore_errors=True)
        return Bundle.open(make_bundle(tmp_path / "bundle", change=declare))

    return make


@pytest.fixture
def on_an_old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "cpu_features", lambda: OLD)


@pytest.mark.parametrize("feature", FEATURES)
def test_any_dot_product_instruction_runs_int8(make_declared, feature: str) -> None:
    choice = graphs_for_cpu(make_declared().manifest, {**OLD, feature: True})
    assert choice.graphs.name == "int8-cpu"
    assert choice.degraded_reason is None


def test_without_one_the_declared_form_runs_and_says_why(make_declared) -> None:
    choice = graphs_for_cpu(make_declared().manifest, OLD)
    assert choice.graphs.name == "fp16"
    assert choice.degraded_reason is not None
    assert all(feature in choice.degraded_reason for feature in FEATURES)
    assert "the graphs int8-cpu need; fp16 runs instead" in choice.degraded_reason


def test_without_one_and_nothing_declared_nothing_runs(make_declared) -> None:
    words = "need dot-product instructions.*export the bundle with --precision fp32"
    with pytest.raises(EngineError, match=words):
        graphs_for_cpu(make_declared(fallback=None).manifest, OLD)


def test_a_declared_form_that_needs_the_same_does_not_run_either(make_declared) -> None:
    with pytest.raises(EngineError, match="would answer wrongly here"):
        graphs_for_cpu(make_declared(fallback="int8-cpu").manifest, OLD)


def test_graphs_without_a_demand_run_on_any_cpu(shared_bundle: Path) -> None:
    choice = graphs_for_cpu(Bundle.open(shared_bundle).manifest, {})
    assert (choice.graphs.name, choice.degraded_reason) == ("fp32", None)


def test_without_being_told_it_asks_this_processor(make_declared, monkeypatch) -> None:
    manifest = make_declared().manifest
    for has in (True, False):
        monkeypatch.setattr(_native, "cpu_features", lambda has=has: {**OLD, "avx_vnni": has})
        assert graphs_for_cpu(manifest).graphs.name == ("int8-cpu" if has else "fp16")


@pytest.mark.usefixtures("on_an_old_cpu")
def test_the_result_says_that_another_form_ran_and_why(make_declared, pair) -> None:
    with Screener.open(make_declared()) as screener:
        result = screener.screen_files(*pair).to_dict()
    assert result["engine"]["graphs"] == "fp16"
    assert result["engine"]["degraded"] is True
    assert "int8-cpu" in result["engine"]["degraded_reason"]


@pytest.mark.usefixtures("on_an_old_cpu")
def test_a_screener_is_not_opened_where_nothing_may_run(make_declared) -> None:
    with pytest.raises(EngineError, match="dot-product"):
        Screener.open(make_declared(fallback=None))


def _shifted(bias: float) -> dict[str, Any]:
    return {letter: {"temperature": 1.0, "bias": bias} for letter in "NDGCAHMO"}


def _own_calibration(manifest: dict[str, Any]) -> None:
    own = {"patient": _shifted(-1.0), "eye": _shifted(-2.0)}
    manifest["graphs"]["int8-cpu"]["calibration"] = own


def test_the_manifest_keeps_what_graphs_need_and_their_own_calibration(make_declared) -> None:
    manifest: Manifest = make_declared(change=_own_calibration).manifest
    own, plain = manifest.graphs["int8-cpu"], manifest.graphs["fp16"]
    assert own.cpu_features == tuple(FEATURES)
    assert plain.cpu_features == ()
    assert [c.bias for c in manifest.calibration_of(own).classes] == [-1.0] * 8
    eye = manifest.eye_calibration_of(own)
    assert eye is not None
    assert [c.bias for c in eye.classes] == [-2.0] * 8
    assert manifest.calibration_of(plain) == manifest.calibration
    assert manifest.eye_calibration_of(plain) == manifest.eye_calibration


def test_graphs_with_one_calibration_for_patients_alone_keep_the_bundles_for_eyes(
    make_declared,
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["graphs"]["fp16"]["calibration"] = {"patient": _shifted(-1.0), "eye": None}

    manifest = make_declared(change=change).manifest
    graphs = manifest.graphs["fp16"]
    assert manifest.calibration_of(graphs) != manifest.calibration
    assert manifest.eye_calibration_of(graphs) == manifest.eye_calibration


def _screened(bundle: Bundle, name: str, pair: tuple[Path, Path]) -> Any:
    graphs = bundle.manifest.graphs[name]
    backend = OnnxRuntimeBackend(*bundle.graph_bytes(graphs), size=64, class_count=8)
    point = bundle.manifest.operating_points.get()
    with Screener(bundle, backend, graphs, point) as screener:
        return screener.screen_files(*pair)


def test_logits_are_read_with_the_calibration_of_the_graphs_that_ran(make_declared, pair) -> None:
    bundle = make_declared(change=_own_calibration)
    # both names are the same graphs here, so that only the calibration can differ
    own, plain = (_screened(bundle, name, pair) for name in ("int8-cpu", "fp16"))
    for letter, probability in plain.probabilities.items():
        assert own.probabilities[letter] < probability
    for eye in ("left", "right"):
        for letter, probability in getattr(plain, eye).probabilities.items():
            assert getattr(own, eye).probabilities[letter] < probability


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("cpu_features", "avx_vnni", "cpu_features must be a list of names"),
        ("cpu_features", [1], "cpu_features must be a list of names"),
        ("cpu_features", None, "cpu_features must be a list of names"),
        ("calibration", [], "calibration"),
        ("calibration", {"patient": {}}, "calibration"),
        ("calibration", {"patient": _shifted(0.0)}, "calibration lacks 'eye'"),
        ("calibration", {"patient": {}, "eye": None}, "calibration is for the classes"),
        ("surprise", 1, "may have.*got.*surprise"),
    ],
)
def test_malformed_entries_are_refused(make_declared, key: str, value: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        make_declared(change=lambda manifest: manifest["graphs"]["fp16"].update({key: value}))


def _gpu_forms(*dialects: str) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        plain = manifest["graphs"]["fp16"]
        manifest["graphs"] |= {
            name: {**plain, "dialect": name, "precision": name.split("-")[0]} for name in dialects
        }

    return change


@pytest.mark.parametrize(
    ("kind", "dialects", "chosen"),
    [
        (CUDA, ("int8-trt", "fp32"), "fp16"),
        (TENSORRT, ("int8-trt", "fp32"), "int8-trt"),
        (TENSORRT, ("fp32",), "fp16"),
    ],
)
def test_a_gpu_takes_the_fastest_form_that_it_runs_as_written(
    make_declared, kind: str, dialects: tuple[str, ...], chosen: str
) -> None:
    choice = graphs_for_gpu(make_declared(change=_gpu_forms(*dialects)).manifest, kind)
    assert (choice.graphs.name, choice.degraded_reason) == (chosen, None)


@pytest.mark.parametrize("kind", [CUDA, TENSORRT])
def test_what_the_bundle_declares_for_a_gpu_comes_first(make_declared, kind: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        _gpu_forms("int8-trt", "fp32")(manifest)
        manifest["default_graphs"][kind] = "fp32"

    assert graphs_for_gpu(make_declared(change=change).manifest, kind).graphs.name == "fp32"


@pytest.mark.parametrize(
    ("kind", "precision", "dialect"),
    [
        (CUDA, "fp16", "fp16"),
        (CUDA, "fp32", "fp32"),
        (CUDA, "tf32", "fp32"),
        (TENSORRT, "int8", "int8-trt"),
        (TENSORRT, "tf32", "fp32"),
    ],
)
def test_a_named_precision_on_a_gpu_is_its_own_dialect(
    make_declared, kind: str, precision: Any, dialect: str
) -> None:
    manifest = make_declared(change=_gpu_forms("int8-trt", "fp32")).manifest
    assert graphs_for_gpu(manifest, kind, precision=precision).graphs.dialect == dialect


@pytest.mark.parametrize(
    ("kind", "precision", "words"),
    [
        (CUDA, "int8", "int8 does not run on cuda: .* no kernels for quantised graphs"),
        (TENSORRT, "fp32", "fp32 does not run on tensorrt: .* always allows TF32"),
    ],
)
def test_what_a_provider_would_run_otherwise_than_written_is_refused(
    make_declared, kind: str, precision: Any, words: str
) -> None:
    manifest = make_declared(change=_gpu_forms("int8-trt", "fp32")).manifest
    with pytest.raises(EngineError, match=words):
        graphs_for_gpu(manifest, kind, precision=precision)


def test_a_bundle_without_a_form_for_a_gpu_says_what_it_has(make_declared) -> None:
    def change(manifest: dict[str, Any]) -> None:
        del manifest["graphs"]["fp16"]

    manifest = make_declared(fallback=None, change=change).manifest
    with pytest.raises(
        BundleError, match=r"has \['int8-cpu'\], of which the provider cuda runs none"
    ):
        graphs_for_gpu(manifest, CUDA)
    with pytest.raises(BundleError, match="fp16 on tensorrt runs the dialect fp16"):
        graphs_for_gpu(manifest, TENSORRT, precision="fp16")
