"""Rows of faithfulness: recorded certificates without data, real ones with it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import faithfulness
from fundus_benchmarks.contenders.engines_at_hand import cpu_engines, gpu_engines
from fundus_benchmarks.faithfulness.certification import NO_DATA, certify_bundle
from fundus_benchmarks.faithfulness.rows import recorded_rows, reliability
from fundus_benchmarks.results.run_file import ROOT, read_part
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineMissingError
from fundus_training.metrics import expected_calibration_error

EDGE = ROOT / "bundles" / "edge"
PATIENTS = 6
KEYS = {
    *("model", "dialect", "precision", "backend", "provider", "patients", "passed", "limits"),
    *("flips", "decisions", "flip_share", "flip_upper", "refer_flips", "refer_share"),
    *("refer_upper", "score", "score_reference", "score_difference", "auc", "auc_reference"),
    *("calibration_error", "calibration_error_reference", "source"),
}


@pytest.fixture(scope="module")
def edge() -> Bundle:
    return Bundle.open(EDGE)


def test_without_data_the_recorded_certificates_are_given_and_marked(edge: Bundle) -> None:
    rows, missing = certify_bundle(edge, None)
    recorded = json.loads((EDGE / "manifest.json").read_text())["certificates"]
    assert [row["dialect"] for row in rows] == list(recorded)
    assert {row["source"] for row in rows} == {"bundle"}
    for row in rows:
        one = recorded[row["dialect"]]
        counted = one["points"][one["default_point"]]
        assert set(row) >= KEYS
        assert row["flips"] == counted["class_decisions"]["count"]
        assert row["decisions"] == counted["class_decisions"]["of"] == 8 * row["patients"]
        assert row["flip_lower"] <= row["flip_share"] <= row["flip_upper"]
        assert row["refer_upper"] == counted["referrals"]["high"]
        assert row["score"] == one["figures"]["dialect"]["challenge_score"]
        assert set(row["auc"]) == set("NDGCAHMO")
        assert row["passed"] is one["within_limits"]
    assert missing[0] == {"what": "edge on validation patients", "why": NO_DATA}


def test_without_data_every_engine_on_a_gpu_is_missing_with_its_reason(
    edge: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    def opened(bundle: Bundle, backend: str, *, provider: str) -> SimpleNamespace:
        if provider == "cuda":
            raise EngineMissingError("no GPU can be used")
        name = f"{backend} {provider}"
        return SimpleNamespace(
            backend=SimpleNamespace(close=lambda: closed.append(name)), precision="int8"
        )

    monkeypatch.setattr("fundus_benchmarks.contenders.engines_at_hand.open_engine", opened)
    _, missing = certify_bundle(edge, None)
    whys = {one["what"]: one["why"] for one in missing}
    unasked = f"it opens here in int8, but was not asked: {NO_DATA}"
    assert whys == {
        "edge on validation patients": NO_DATA,
        "edge on onnxruntime, cuda": "no GPU can be used",
        "edge on onnxruntime, tensorrt": unasked,
        "edge on tensorrt, tensorrt": unasked,
    }
    assert closed == ["onnxruntime tensorrt", "tensorrt cpu"]


def test_forms_that_were_measured_need_no_recorded_certificate(edge: Bundle) -> None:
    names = [row["dialect"] for row in recorded_rows(edge, but=["fp16"])]
    assert names
    assert "fp16" not in names


def test_every_form_opens_on_the_cpu(edge: Bundle) -> None:
    opened = [(one.graphs.name, one.provider, one.precision) for one in cpu_engines(edge)]
    forms = edge.manifest.graphs.items()
    assert opened == [(name, "cpu", form.precision) for name, form in forms]


def test_an_engine_that_does_not_open_is_missing_with_its_reason(edge: Bundle) -> None:
    missing: list[dict[str, str]] = []
    opened = {(one.name, one.provider) for one in gpu_engines(edge, missing)}
    wanted = {("onnxruntime", "cuda"), ("onnxruntime", "tensorrt"), ("tensorrt", "tensorrt")}
    named = {one["what"].split(" on ")[1] for one in missing}
    for backend, provider in wanted - opened:
        assert f"{backend}, {provider}" in {", ".join(one.split(", ")[:2]) for one in named}
    assert all(one["why"] for one in missing)


def test_bins_give_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(size=(50, 8))
    labels = (rng.uniform(size=said.shape) < said**2).astype(np.int64)
    bins = reliability(labels, said)
    assert sum(one["count"] for one in bins) == said.size
    error = sum(one["count"] * abs(one["share"] - one["probability"]) for one in bins) / said.size
    assert error == pytest.approx(expected_calibration_error(labels, said))


def test_bins_that_are_empty_are_left_out() -> None:
    bins = reliability(np.array([[1, 0]]), np.array([[1.0, 0.99]]))
    assert bins == [{"probability": pytest.approx(0.995), "share": 0.5, "count": 2}]


def test_data_that_do_not_fit_are_missing_with_the_reason(edge: Bundle, tmp_path: Path) -> None:
    rows, missing = certify_bundle(edge, tmp_path)
    assert {row["source"] for row in rows} == {"bundle"}
    assert missing[0]["what"] == "edge on validation patients"
    assert str(tmp_path) in missing[0]["why"]


def test_the_command_writes_the_part_without_data(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("FUNDUS_DATA", raising=False)
    assert faithfulness.main(["--out", str(tmp_path)]) == 0
    part = read_part(tmp_path / "faithfulness.json")
    assert [row["source"] for row in part["rows"]] == ["bundle"] * 3
    assert part["missing"]
    said = capsys.readouterr().out
    assert said.count("recorded in the bundle") == 3
    assert "missing: edge on validation patients" in said


@pytest.mark.parametrize(
    "words", [["--patients", "0"], ["--patients", "many"], ["--data", "no/such/folder"]]
)
def test_options_that_make_no_sense_are_refused(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        faithfulness.main(words)
    assert ended.value.code == 2
    assert words[1] in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_ends_with_its_reason(tmp_path: Path, capsys) -> None:
    assert faithfulness.main(["--bundle", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_form_is_certified_on_few_real_patients(
    edge: Bundle, fundus_data: Path, tmp_path: Path
) -> None:
    rows, missing = certify_bundle(
        edge, fundus_data / "odir", patients=PATIENTS, cache_dir=tmp_path
    )
    on_cpu = [row for row in rows if row["provider"] == "cpu"]
    assert [row["dialect"] for row in on_cpu] == [
        one.dialect for one in edge.manifest.graphs.values()
    ]
    for row in on_cpu:
        assert row["source"] == "measured"
        assert row["patients"] == PATIENTS
        assert row["decisions"] == 8 * PATIENTS
        assert sum(one["count"] for one in row["reliability"]) == 8 * PATIENTS
        # so few are no evidence, and the row says so
        assert not row["passed"]
        assert any("too few patients" in miss for miss in row["misses"])
        assert row["flip_share"] <= 0.1
    assert json.loads(json.dumps(rows)) == rows
    assert not any(one["what"] == "edge on validation patients" for one in missing)
