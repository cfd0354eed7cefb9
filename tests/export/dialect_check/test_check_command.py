"""`fundus-export check`: exit statuses, what it prints, and files that are no graphs of ours."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from breakages import dequantised, island, spoilt
from dialect_graphs import DIALECTS, dialect_net
from onnx import TensorProto, helper

from fundus_export.commands import export
from fundus_export.dialect_check.bundles import check_bytes
from fundus_export.errors import ExportError
from fundus_export.quantise.ranges import RangeMethod, TensorRange
from fundus_export.quantise.recipe import RECIPE_NAME, Recipe
from fundus_runtime.errors import BundleError
from fundus_runtime.shipped import BUNDLE_VARIABLE, default_bundle

Captured = pytest.CaptureFixture[str]


def check(*arguments: object) -> int:
    return export.main(["check", *map(str, arguments)])


def saved(model: onnx.ModelProto, folder: Path, name: str = "encoder.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped bundle that may be changed; nobody vouches for it any more."""
    monkeypatch.delenv(BUNDLE_VARIABLE, raising=False)
    try:
        folder = Path(shutil.copytree(default_bundle(), tmp_path / "mine"))
    except BundleError:
        pytest.skip("needs the shipped bundle, which is not there")
    (folder / "signature.json").unlink(missing_ok=True)
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text("utf-8")))


def exchange(folder: Path, name: str, data: bytes) -> None:
    """Put another file into a bundle, as whoever writes bundles would."""
    (folder / name).write_bytes(data)
    values = manifest(folder)
    record = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    values["files"][name] = record
    (folder / "manifest.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_good_file_ends_with_0_and_says_so(
    dialect: str, tmp_path: Path, capsys: Captured
) -> None:
    assert check(saved(dialect_net(dialect), tmp_path), "--dialect", dialect) == 0
    assert capsys.readouterr().out == f"encoder.onnx: {dialect}: keeps its dialect\n"


def test_a_finding_ends_with_1_and_is_printed(tmp_path: Path, capsys: Captured) -> None:
    model = dialect_net("int8-trt")
    spoilt("relu1_out_zero_point", 3)(model)
    assert check(saved(model, tmp_path), "--dialect", "int8-trt") == 1
    first, _, last = capsys.readouterr().out.splitlines()
    assert first.startswith("encoder.onnx: relu1_out_Q: qdq-zero-point: its zero point is 3")
    assert last == "encoder.onnx: int8-trt: 2 findings"


def test_layers_that_are_not_quantised_are_information(tmp_path: Path, capsys: Captured) -> None:
    model = dialect_net("int8-trt8")
    dequantised(model, "conv2")
    assert check(saved(model, tmp_path), "--dialect", "int8-trt8") == 0
    assert "encoder.onnx: 1 layers not quantised: conv2\n" in capsys.readouterr().out


def test_json_holds_findings_and_layers(tmp_path: Path, capsys: Captured) -> None:
    model = dialect_net("int8-trt8")
    dequantised(model, "conv2")
    model.ir_version = 11
    assert check(saved(model, tmp_path), "--dialect", "int8-trt8", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["clean"] is False
    (graph,) = answer["graphs"]
    assert (graph["graph"], graph["dialect"]) == ("encoder.onnx", "int8-trt8")
    assert graph["not_quantised"] == ["conv2"]
    (finding,) = graph["findings"]
    assert set(finding) == {"graph", "node", "rule", "mend"}
    assert finding["rule"] == "graph-ir"


def test_all_dialects_of_the_shipped_bundle_are_kept(shipped: Path, capsys: Captured) -> None:
    assert check(shipped) == 0
    forms = manifest(shipped)["graphs"].values()
    lines = [line for line in capsys.readouterr().out.splitlines() if "keeps" in line]
    assert lines == [
        f"{Path(form[part]).name}: {form['dialect']}: keeps its dialect"
        for form in forms
        for part in ("encoder", "head")
    ]


def test_one_dialect_of_a_bundle_can_be_named(shipped: Path, capsys: Captured) -> None:
    assert check(shipped, "--dialect", "fp16") == 0
    out = capsys.readouterr().out
    assert out == (
        "encoder_fp16.onnx: fp16: keeps its dialect\nhead_fp16.onnx: fp16: keeps its dialect\n"
    )


def test_a_dialect_that_the_bundle_lacks_is_a_failure_that_says_what_is_there(
    shipped: Path, capsys: Captured
) -> None:
    missing = next(
        d for d in DIALECTS if d not in {f["dialect"] for f in manifest(shipped)["graphs"].values()}
    )
    assert check(shipped, "--dialect", missing) == 1
    assert f"no graphs of the dialect '{missing}'; it has " in capsys.readouterr().err


def test_a_bundles_broken_graph_is_found(shipped: Path, capsys: Captured) -> None:
    name = "graphs/head_fp16.onnx"
    model = onnx.load(shipped / name)
    weight = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16)
    values = np.array(onnx.numpy_helper.to_array(weight))
    values.flat[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    exchange(shipped, name, model.SerializeToString())
    assert check(shipped, "--dialect", "fp16") == 1
    assert "head_fp16.onnx: " in (out := capsys.readouterr().out)
    found = f": weights-finite: 1 of the {values.size} float16 numbers in {weight.name} are NaN"
    assert found in out


def test_a_bundles_graph_that_is_none_is_a_failure(shipped: Path, capsys: Captured) -> None:
    exchange(shipped, "graphs/head_fp16.onnx", b"no graph")
    assert check(shipped, "--dialect", "fp16") == 1
    said = capsys.readouterr().err
    assert "head_fp16.onnx has 8 bytes that are no ONNX model" in said
    assert "export it again" in said


def with_fp16_islands(folder: Path) -> None:
    """Adds a form whose graphs both keep conv2 in FP32, which the recipe allows of the encoder."""
    model = dialect_net("fp16")
    island(model, "conv2")
    for part in ("encoder", "head"):
        exchange(folder, f"graphs/{part}_fp16.onnx", model.SerializeToString())
    seen = TensorRange(0.0, 50000.0, 50000.0)
    recipe = Recipe({}, "", {}, RangeMethod(), {"encoder": {"conv2_out": seen}, "head": {}})
    exchange(folder, RECIPE_NAME, recipe.to_bytes())
    values = manifest(folder)
    form = {"dialect": "fp16", "precision": "fp16", "opset": 18}
    files = {part: f"graphs/{part}_fp16.onnx" for part in ("encoder", "head")}
    values["graphs"]["fp16"] = {**form, **files}
    (folder / "manifest.json").write_text(json.dumps(values), encoding="utf-8")


def test_the_recipe_says_which_products_may_stay_high(shipped: Path, capsys: Captured) -> None:
    with_fp16_islands(shipped)
    assert check(shipped, "--dialect", "fp16") == 1
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "encoder_fp16.onnx: fp16: keeps its dialect"
    assert second.startswith("head_fp16.onnx: conv2: type-high: ")
    assert third == "head_fp16.onnx: fp16: 1 finding"


def test_a_recipe_that_is_none_is_a_failure(shipped: Path, capsys: Captured) -> None:
    with_fp16_islands(shipped)
    exchange(shipped, RECIPE_NAME, b'{"ranges": 5}')
    assert check(shipped, "--dialect", "fp16") == 1
    assert "graphs/recipe.json is no recipe: TypeError" in capsys.readouterr().err


def test_a_bundle_whose_files_were_exchanged_is_not_checked(
    shipped: Path, capsys: Captured
) -> None:
    file = shipped / "graphs" / "head_fp16.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    assert check(shipped) == 1
    assert "is not the file that manifest.json lists" in capsys.readouterr().err


def test_beyond_fp16s_range_as_calibration_saw_it_a_product_may_stay_high() -> None:
    model = dialect_net("fp16")
    island(model, "conv2")
    data = model.SerializeToString()
    (finding,) = check_bytes(data, "encoder", "fp16", largest={"conv2_out": 5000.0}).findings
    assert finding.rule == "type-high"
    assert check_bytes(data, "encoder", "fp16", largest={"conv2_out": 50000.0}).findings == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder.onnx"], "does not say which dialect it is to keep; add --dialect D"),
        (["encoder.txt", "--dialect", "fp32"], "neither a bundle's folder nor an .onnx file"),
        (["nowhere", "--dialect", "fp32"], "neither a bundle's folder nor an .onnx file"),
    ],
)
def test_wrong_usage_ends_with_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(*arguments) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_dialect_is_wrong_usage(tmp_path: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        check(tmp_path, "--dialect", "int4")
    assert ended.value.code == 2
    assert "invalid choice: 'int4'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model",
        dialect_net("fp32").SerializeToString()[:-100],
        helper.make_model(helper.make_graph([], "empty", [], [])).SerializeToString(),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
    ids=["nothing", "text", "truncated", "no nodes", "picture"],
)
def test_a_file_that_holds_no_graph_is_a_failure(
    data: bytes, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(data)
    assert check(path, "--dialect", "fp32") == 1
    err = capsys.readouterr().err
    assert f"encoder.onnx has {len(data)} bytes that" in err
    assert "export" in err


def test_a_file_that_is_not_there_is_a_failure(tmp_path: Path, capsys: Captured) -> None:
    assert check(tmp_path / "encoder.onnx", "--dialect", "fp32") == 1
    assert "cannot be read" in capsys.readouterr().err


def test_a_model_that_is_not_ours_is_told_so(tmp_path: Path, capsys: Captured) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert check(saved(model, tmp_path), "--dialect", "fp32") == 1
    out = capsys.readouterr().out
    assert (
        "graph-interface: it maps x -> y, expected image -> features, eye_logits, eye_maps or"
        in (out)
    )
    assert "give a graph that fundus-export wrote" in out


@pytest.mark.parametrize("dialect", DIALECTS)
def test_damaged_bytes_end_in_findings_or_in_a_plain_failure(dialect: str) -> None:
    whole = dialect_net(dialect).SerializeToString()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in random.integers(0, len(data), size=4):
            data[place] = random.integers(0, 256)
        try:
            refused += bool(check_bytes(bytes(data), "damaged", dialect).findings)
        except ExportError:
            refused += 1
    assert refused > 100  # the rest is in the weights' numbers
