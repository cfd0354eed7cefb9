"""What leaves an exam as JSON: every result keeps the schema, and no contradiction does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.certificate import CertificateSummary
from fundus_runtime.commands.screen import main
from fundus_runtime.gates import GateThresholds
from fundus_runtime.labels import EYES
from fundus_runtime.outcome import OUTCOMES
from fundus_runtime.result import (
    RESULT_SCHEMA_VERSION,
    BundleIdentity,
    ClassDecision,
    EngineIdentity,
    ExamResult,
)
from fundus_runtime.result_schema import result_schema
from fundus_runtime.screener import Screener
from fundus_runtime.stages import STAGES

DOCS = Path(__file__).parents[2] / "docs"
BLACK = np.zeros((200, 200, 3), np.uint8)

Values = dict[str, Any]


def problems(values: Values) -> list[str]:
    """What the schema says against a result, after a trip through JSON."""
    validator = jsonschema.Draft202012Validator(result_schema())
    text = json.dumps(values, allow_nan=False)
    return [
        f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(text))
    ]


@pytest.fixture(scope="module")
def screener(shared_bundle: Path) -> Iterator[Screener]:
    with Screener.open(shared_bundle, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def valid(screener: Screener, draw: Callable[..., np.ndarray]) -> Values:
    """The JSON form of a normal exam."""
    return screener.screen(draw("N", seed=1), draw("N", seed=2), color="rgb").to_dict()


def exam_with_a_retake(screener: Screener, draw: Callable[..., np.ndarray]) -> ExamResult:
    with screener.begin() as exam:
        exam.add("left", BLACK, color="rgb")
        exam.add("right", draw("D", seed=2), color="bgr")
        exam.replace("left", draw("D", seed=1), color="rgb")
        return exam.result(60.0)


RESULTS: dict[str, Callable[[Screener, Any], ExamResult]] = {
    "normal": lambda s, draw: s.screen(draw("N", seed=1), draw("N", seed=2), color="rgb"),
    "findings": lambda s, draw: s.screen(draw("D", seed=1), draw("N", seed=2), color="rgb"),
    "uncertain": lambda s, draw: s.screen(
        *[draw("uncertain", seed=i) for i in (1, 2)], color="rgb"
    ),
    "absent": lambda s, draw: s.screen(None, draw("D"), color="rgb"),
    "refused": lambda s, draw: s.screen(draw("N"), BLACK, color="rgb"),
    "nothing": lambda s, _: s.screen(None, BLACK, color="rgb"),
    "same photograph": lambda s, draw: s.screen(draw("N"), draw("N"), color="rgb"),
    "cut off": lambda s, draw: s.screen(draw("D")[100:], draw("D", seed=2), color="rgb"),
    "retake": exam_with_a_retake,
}


@pytest.mark.parametrize("kind", RESULTS)
def test_every_result_keeps_the_schema(screener, draw, kind) -> None:
    assert problems(RESULTS[kind](screener, draw).to_dict()) == []


def test_results_of_files_and_of_the_commands_keep_the_schema(
    screener, pair, shared_bundle, tmp_path, capsys
) -> None:
    assert problems(screener.screen_files(*pair).to_dict()) == []
    words = ["--bundle", str(shared_bundle)]
    assert main([*map(str, pair), *words, "--json"]) == 0
    assert problems(json.loads(capsys.readouterr().out)) == []
    assert main(["demo", "--out", str(tmp_path / "demo"), *words]) == 0
    assert problems(json.loads((tmp_path / "demo/result.json").read_text("utf-8"))) == []


def test_eye_that_a_gate_refuses_states_figure_and_threshold(shared_bundle, draw) -> None:
    strict = GateThresholds(min_visible_percent=99.0)
    with Screener.open(shared_bundle, threads=1, gates=strict) as opened:
        result = opened.screen(draw("D")[60:], None, color="rgb")
    values = result.to_dict()
    assert problems(values) == []
    eye = values["eyes"]["left"]
    assert (eye["status"], values["outcome"]) == ("ungradable", "ungradable")
    refusing = next(figure for figure in eye["quality"]["figures"] if not figure["passed"])
    assert refusing["value"] < refusing["threshold"] == 99.0
    assert eye["reason"] == eye["quality"]["reason"]
    assert eye["hint"]
    assert result.left.picture is None


def test_thresholds_of_this_machine_come_from_the_file_that_it_names(
    shared_bundle, draw, tmp_path, monkeypatch, pair, capsys
) -> None:
    file = tmp_path / "camera.json"
    file.write_text(json.dumps(GateThresholds(min_visible_percent=99.5).to_dict()))
    for options in ({"gates": file}, {"gates": str(file)}, {}):
        with monkeypatch.context() as patch:
            if not options:
                patch.setenv("FUNDUS_GATES", str(file))
            with Screener.open(shared_bundle, threads=1, **options) as opened:
                quality = opened.prepare("left", draw("D"), color="rgb").verdict().gates
        assert quality.figures[0].threshold == 99.5
    words = [*map(str, pair), "--bundle", str(shared_bundle), "--json", "--gates", str(file)]
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out)["eyes"]["left"]["quality"]["figures"]
    assert figures[0]["threshold"] == 99.5
    assert main([*words[:-1], str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read" in capsys.readouterr().err


def test_plans_and_fallbacks_are_attested(shared_bundle, draw) -> None:
    bundle = Bundle.open(shared_bundle)
    graphs = bundle.manifest.graphs_for("cpu")
    backend = OnnxRuntimeBackend(*bundle.graph_bytes(graphs), size=64, class_count=8, threads=1)
    plans = {"encoder": "a" * 64, "head": "b" * 64}
    with Screener(
        bundle,
        backend,
        graphs,
        bundle.manifest.operating_points.get(),
        precision="tf32",
        plan_sha256=plans,
        degraded_reason="no CUDA graph could be captured",
    ) as opened:
        values = opened.screen(draw("D"), None, color="rgb").to_dict()
    assert problems(values) == []
    engine = values["engine"]
    assert (engine["plan_sha256"], engine["precision"]) == (plans, "tf32")
    assert values["degraded"] is engine["degraded"] is True
    assert engine["degraded_reason"] == "no CUDA graph could be captured"


def set_in(*path: str, to: Any) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = to

    return change


CONTRADICTIONS: dict[str, Callable[[Values], None]] = {
    "normal but refer": set_in("refer", to=True),
    "normal with a finding": set_in("findings", to=["D"]),
    "normal of one eye": set_in("eyes", "left", "status", to="absent"),
    "normal of nothing": set_in("probabilities", to={}),
    "findings without one": set_in("outcome", to="findings"),
    "uncertain but not referred": set_in("outcome", to="uncertain"),
    "ungradable with both eyes": lambda values: values.update(outcome="ungradable", refer=True),
    "used eye with a reason": set_in("eyes", "left", "reason", to="blurred"),
    "used eye that a gate refused": set_in("eyes", "left", "quality", "usable", to=False),
    "used eye without a disc": set_in("eyes", "left", "field_of_view", to=None),
    "degraded without a reason": lambda values: values.update(degraded=True),
    "reason without degraded": set_in("engine", "degraded_reason", to="because"),
    "probability over one": set_in("probabilities", "D", to=1.5),
    "probability in words": set_in("probabilities", "D", to="high"),
    "no hash": set_in("bundle", "sha256", to="abc"),
    "plan of one graph": set_in("engine", "plan_sha256", to={"encoder": "a" * 64}),
    "unknown key": set_in("patient", to="Smith"),
    "unknown stage": set_in("time_ms", "coffee", to=1.0),
    "time before it began": set_in("time_ms", "head", to=-1.0),
    "older version": set_in("schema_version", to=1),
    "medical device": set_in("not_a_medical_device", to=False),
    "key missing": lambda values: values.pop("warnings"),
    "eye missing": lambda values: values["eyes"].pop("right"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_results_that_contradict_themselves_do_not_keep_the_schema(valid, kind) -> None:
    assert problems(valid) == []
    values = deepcopy(valid)
    CONTRADICTIONS[kind](values)
    assert problems(values)


def test_schema_has_what_the_code_has() -> None:
    schema = result_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    parts = {
        "engine": EngineIdentity,
        "bundle": BundleIdentity,
        "certificate": CertificateSummary,
        "decision": ClassDecision,
    }
    for name, part in parts.items():
        assert list(schema["$defs"][name]["properties"]) == [one.name for one in fields(part)]
    assert list(schema["$defs"]["time_ms"]["properties"]) == list(STAGES)
    assert schema["properties"]["outcome"]["enum"] == list(OUTCOMES)
    assert list(schema["properties"]["eyes"]["properties"]) == list(EYES)
    assert schema["properties"]["schema_version"]["const"] == RESULT_SCHEMA_VERSION


def test_every_object_of_the_schema_names_all_its_keys(valid) -> None:
    schema = result_schema()
    assert schema["required"] == list(schema["properties"]) == list(valid)
    for name, part in schema["$defs"].items():
        if "properties" in part:
            assert part["additionalProperties"] is False, name
            assert part["required"] == list(part["properties"]), name


def test_page_and_package_carry_one_schema() -> None:
    assert json.loads((DOCS / "result.schema.json").read_text("utf-8")) == result_schema()
    assert f"## Version {RESULT_SCHEMA_VERSION}" in (DOCS / "result.md").read_text("utf-8")


def test_page_explains_every_key() -> None:
    page = (DOCS / "result.md").read_text("utf-8")
    schema = result_schema()
    parts = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
    keys = {key for part in parts for key in part["properties"]}
    assert sorted(key for key in keys if f"`{key}`" not in page) == []
