"""From photographs to a bundle of every form, by the command: whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fundus_export import bundle_writer
from fundus_export.certificate import open_on_cpu
from fundus_export.commands import export, form_inputs
from fundus_export.golden import ANSWERS_NAME, PROBABILITY_TOLERANCES, golden_pairs
from fundus_export.graphs import GraphBytes
from fundus_export.quantise.dialects import product_names
from fundus_export.quantise.recipe import PARTS, RECIPE_NAME, Recipe
from fundus_export.rendered import degrade, render_fundus
from fundus_runtime import _native
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_of_file
from fundus_runtime.errors import EngineError
from fundus_runtime.golden import check_golden
from fundus_runtime.labels import EYES
from fundus_runtime.screener import Screener

PAIRS = 16
FORMS = ["fp16", "int8-cpu", "int8-trt"]
DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "asimddp"}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few drawn pairs as the method takes; no test may change them."""
    folder = tmp_path_factory.mktemp("calibration")
    for pair in range(PAIRS):
        for eye in EYES:
            seed = 1000 + 2 * pair + (eye == "right")
            frame = render_fundus(eye, side=128, seed=seed)
            frame = degrade(frame, strength=0.9 * (pair % 2), seed=seed)
            assert cv2.imwrite(str(folder / f"{pair}_{eye}.png"), frame[:, :, ::-1])
    return folder


@pytest.fixture(scope="session")
def plain_graphs(bundle_folder: Path) -> GraphBytes:
    """The tiny checkpoint's FP32 graphs, as the command exported them once."""
    bundle = Bundle.open(bundle_folder)
    return GraphBytes(*bundle.graph_bytes(bundle.manifest.graphs["fp32"]), opset=18)


@pytest.fixture
def known(plain_graphs: GraphBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that need not be exported again, and few golden pairs, where these do not matter."""
    for module in (bundle_writer, form_inputs):
        monkeypatch.setattr(module, "export_graphs", lambda _: plain_graphs)
    monkeypatch.setattr(bundle_writer, "golden_pairs", lambda: golden_pairs(2))


@pytest.fixture(scope="session")
def int8(
    trained: Any,
    photographs: Path,
    signing_key: Path,
    plain_graphs: GraphBytes,
    run_export: Callable[..., int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny checkpoint in INT8, from photographs alone; no test may change it."""
    folder = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        for module in (bundle_writer, form_inputs):
            patch.setattr(module, "export_graphs", lambda _: plain_graphs)
        code = run_export(
            *("--checkpoint", trained.checkpoint, "--out", folder / "tiny", "--precision", "int8"),
            *("--calibration", photographs, "--cache-dir", folder / "cache"),
            *("--sign-with", signing_key),
        )
    assert code == 0
    return folder / "tiny"


@pytest.fixture
def options(trained: Any, photographs: Path, tmp_path: Path) -> list[object]:
    return [
        *("--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny"),
        *("--calibration", photographs, "--cache-dir", tmp_path / "cache"),
    ]


def test_int8_comes_with_what_every_target_needs(int8: Path) -> None:
    manifest = Bundle.open(int8).manifest
    assert sorted(manifest.graphs) == FORMS
    assert manifest.default_graphs == {"cpu": "int8-cpu", "cpu_without_dot_product": "fp16"}
    assert {name: graphs.precision for name, graphs in manifest.graphs.items()} == {
        "int8-cpu": "int8",
        "int8-trt": "int8",
        "fp16": "fp16",
    }
    assert set(manifest.graphs["int8-cpu"].cpu_features) == DOT_PRODUCT
    assert manifest.graphs["int8-trt"].cpu_features == manifest.graphs["fp16"].cpu_features == ()
    assert "certificates" not in manifest.reported


def test_the_recipe_names_graphs_and_photographs(
    int8: Path, photographs: Path, plain_graphs: GraphBytes
) -> None:
    recipe = Recipe.from_bytes((int8 / RECIPE_NAME).read_bytes(), where=RECIPE_NAME)
    recipe.require_for(plain_graphs)
    hashes = {sha256_of_file(path) for path in photographs.iterdir()}
    assert {file["sha256"] for file in recipe.images["files"]} == hashes
    assert (recipe.images["eyes"], recipe.images["pairs"]) == (2 * PAIRS, PAIRS)
    assert recipe.raised == {}
    assert str(photographs).encode() not in (int8 / RECIPE_NAME).read_bytes()


@pytest.mark.skipif(
    not any(_native.cpu_features().get(name) for name in DOT_PRODUCT),
    reason="this processor has no dot product",
)
def test_the_runtime_takes_int8_on_this_cpu(int8: Path, trained: Any) -> None:
    images = trained.data / "images"
    with Screener.open(int8) as screener:
        assert (screener.engine.graphs, screener.engine.degraded) == ("int8-cpu", False)
        result = screener.screen_files(images / "3_left.jpg", images / "3_right.jpg")
    assert list(result.probabilities) == list("NDGCAHMO")


def test_int8_says_what_fp32_says(int8: Path, bundle_folder: Path, trained: Any) -> None:
    images = trained.data / "images"
    found = {}
    for folder, name in ((int8, "int8-cpu"), (bundle_folder, "fp32")):
        with _opened(Bundle.open(folder), name) as screener:
            for patient in range(8):
                files = (images / f"{patient}_{eye}.jpg" for eye in EYES)
                result = screener.screen_files(*files)
                found[name, patient] = np.array(list(result.probabilities.values()))
    differences = [np.abs(found["int8-cpu", p] - found["fp32", p]).max() for p in range(8)]
    assert 0 < max(differences) < 0.15


def _opened(bundle: Bundle, name: str) -> Screener:
    graphs = bundle.manifest.graphs[name]
    backend, _ = open_on_cpu(
        *bundle.graph_bytes(graphs), size=bundle.manifest.spec.size, class_count=8
    )
    return Screener(bundle, backend, graphs, bundle.manifest.operating_points.get())


@pytest.mark.parametrize("name", FORMS)
def test_every_form_answers_its_own_golden_pairs(int8: Path, name: str) -> None:
    bundle = Bundle.open(int8)
    with _opened(bundle, name) as screener:
        report = check_golden(bundle, screener=screener)
    assert report is not None
    assert report.passed
    assert (report.pairs, report.graphs) == (32, name)
    assert report.tolerance == PROBABILITY_TOLERANCES[bundle.manifest.graphs[name].precision]
    assert report.largest_difference < 1e-4


def test_golden_answers_are_those_of_each_form(int8: Path) -> None:
    answers = json.loads((int8 / ANSWERS_NAME).read_bytes())["answers"]
    assert sorted(answers) == FORMS
    logits = {name: np.array(recorded["logits"]) for name, recorded in answers.items()}
    assert all(values.shape == (32, 8) for values in logits.values())
    assert np.abs(logits["int8-cpu"] - logits["fp16"]).max() > 1e-3


def test_every_form_keeps_the_rules_of_its_dialect(
    int8: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["check", str(int8)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in FORMS)


@pytest.mark.usefixtures("known")
def test_a_recipe_repeats_the_same_graphs_without_photographs(
    int8: Path, trained: Any, run_export: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    code = run_export(
        *("--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny", "--precision", "int8"),
        *("--recipe", int8 / RECIPE_NAME),
    )
    assert code == 0
    for path in (int8 / "graphs").iterdir():
        assert (tmp_path / "tiny" / "graphs" / path.name).read_bytes() == path.read_bytes()
    said = capsys.readouterr().out
    assert said.count("not certified: its decisions were not counted") == len(FORMS)
    assert "fundus-export certify " in said


def _raising(int8: Path, source: GraphBytes, parts: tuple[str, ...]) -> bytes:
    """The bundle's recipe, with every product of these parts raised in int8-cpu."""
    recipe = Recipe.from_bytes((int8 / RECIPE_NAME).read_bytes())
    names = product_names(source, "int8-cpu")
    return recipe.with_raised("int8-cpu", {part: names[part] for part in parts}).to_bytes()


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("part", PARTS)
def test_a_recipe_may_raise_a_whole_part(
    int8: Path,
    plain_graphs: GraphBytes,
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: Any,
    part: str,
) -> None:
    out, recipe = tmp_path / "tiny", tmp_path / "recipe.json"
    recipe.write_bytes(_raising(int8, plain_graphs, (part,)))
    options = ("--checkpoint", trained.checkpoint, "--out", out, "--dialect", "int8-cpu")
    assert run_export(*options, "--recipe", recipe) == 0
    assert export.main(["check", str(out)]) == 0
    # who sees the graph alone cannot know why it is not quantised
    graph = str(out / "graphs" / f"{part}_int8-cpu.onnx")
    assert export.main(["check", graph, "--dialect", "int8-cpu"]) == 1
    assert "qdq-missing" in capsys.readouterr().out


@pytest.mark.usefixtures("known")
def test_a_recipe_that_leaves_nothing_in_int8_is_refused(
    int8: Path,
    plain_graphs: GraphBytes,
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: Any,
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_bytes(_raising(int8, plain_graphs, PARTS))
    options = ("--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny")
    assert run_export(*options, "--dialect", "int8-cpu", "--recipe", recipe) == 1
    _refused(capsys, tmp_path, "qdq-missing")


@pytest.mark.usefixtures("known")
def test_too_few_validation_patients_are_said_and_the_bundle_is_written_but_not_signed(
    trained: Any,
    run_export: Callable[..., int],
    options: list[object],
    signing_key: Path,
    tmp_path: Path,
    capsys: Any,
) -> None:
    data = ("--data", trained.data, "--dialect", "int8-cpu", "--cache-dir", trained.cache)
    assert run_export(*options, *data, "--sign-with", signing_key) == 1
    bundle = Bundle.open(tmp_path / "tiny", require_trust=False)
    certificate = bundle.manifest.reported["certificates"]["int8-cpu"]
    assert certificate["within_limits"] is False
    assert any("4" in miss and "400" in miss for miss in certificate["misses"])
    recipe = Recipe.from_bytes((tmp_path / "tiny" / RECIPE_NAME).read_bytes(), where=RECIPE_NAME)
    assert recipe.raised == {}
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"NOT WITHIN LIMITS: int8-cpu: {certificate['misses'][0]}")
    assert f"left unsigned; if it is to be used all the same: fundus-export sign {tmp_path}" in last
    assert not (tmp_path / "tiny" / "signature.json").exists()


@pytest.mark.usefixtures("known")
def test_within_limits_the_bundle_is_signed_and_ends_with_0(
    trained: Any,
    run_export: Callable[..., int],
    signing_key: Path,
    tmp_path: Path,
) -> None:
    limits = tmp_path / "limits.json"
    # four patients bound nothing
    wide = {"patients": 4, "class_decisions": 1, "referrals": 1, "challenge_score_drop": 1}
    limits.write_text(json.dumps(wide), encoding="utf-8")
    code = run_export(
        *("--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny", "--precision", "fp16"),
        *("--data", trained.data, "--cache-dir", trained.cache, "--limits", limits),
        *("--sign-with", signing_key),
    )
    assert code == 0
    bundle = Bundle.open(tmp_path / "tiny")
    assert bundle.manifest.reported["certificates"]["fp16"]["within_limits"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--calibration eyes", "--calibration has no effect on fp32; leave it out, or ask for"),
        ("--recipe recipe.json", "--recipe has no effect on fp32"),
        ("--precision fp16 --method minmax", "--method has no effect on fp16"),
        ("--precision fp16 --calibration-limit 64", "--calibration-limit has no effect on fp16"),
        (
            "--precision int8 --recipe recipe.json --calibration eyes",
            "--calibration has no effect beside --recipe",
        ),
        (
            "--precision int8 --recipe recipe.json --method percentile",
            "--method has no effect beside --recipe",
        ),
        (
            "--precision int8 --calibration eyes --percentile 99.9",
            "--percentile has no effect without --method percentile",
        ),
        (
            "--precision int8 --calibration eyes --limits limits.json",
            "--limits has no effect without --data DIR",
        ),
        ("--pairs 8", "--pairs has no effect without --data DIR"),
        ("--data odir --limits limits.json", "--limits has no effect where fp32 is the only"),
        ("--passphrase-env WORD", "--passphrase-env has no effect without --sign-with FILE"),
    ],
)
def test_an_option_that_would_do_nothing_is_wrong_usage(
    run_export: Callable[..., int], tmp_path: Path, capsys: Any, arguments: str, words: str
) -> None:
    options = ("--checkpoint", tmp_path / "none", "--out", tmp_path / "tiny")
    assert run_export(*options, *arguments.split()) == 2
    _refused(capsys, tmp_path, words)


@pytest.mark.usefixtures("known")
def test_fp16_of_a_recipe_is_the_one_beside_int8(
    int8: Path, trained: Any, run_export: Callable[..., int], tmp_path: Path
) -> None:
    out = tmp_path / "tiny"
    options = ("--checkpoint", trained.checkpoint, "--out", out, "--precision", "fp16")
    assert run_export(*options, "--recipe", int8 / RECIPE_NAME) == 0
    for part in PARTS:
        name = f"graphs/{part}_fp16.onnx"
        assert (out / name).read_bytes() == (int8 / name).read_bytes()


@pytest.mark.usefixtures("known")
def test_photographs_of_validation_patients_are_no_calibration(
    trained: Any, run_export: Callable[..., int], options: list[object], tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "photographs"
    shutil.copytree(trained.data / "images", folder)
    more = ("--calibration", folder, "--data", trained.data, "--dialect", "int8-cpu")
    assert run_export(*options, *more, "--cache-dir", trained.cache) == 1
    assert "calibrat" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


@pytest.mark.usefixtures("known")
def test_fp16_needs_no_photographs(
    trained: Any, run_export: Callable[..., int], tmp_path: Path
) -> None:
    out = tmp_path / "tiny"
    assert run_export("--checkpoint", trained.checkpoint, "--out", out, "--precision", "fp16") == 0
    manifest = Bundle.open(out, require_trust=False).manifest
    assert list(manifest.graphs) == ["fp16"]
    assert manifest.default_graphs == {"cpu": "fp16"}
    assert RECIPE_NAME not in manifest.files


@pytest.mark.usefixtures("known")
def test_int8_cpu_alone_does_not_run_where_it_would_be_wrong(
    int8: Path,
    trained: Any,
    run_export: Callable[..., int],
    signing_key: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "tiny"
    code = run_export(
        *("--checkpoint", trained.checkpoint, "--out", out, "--dialect", "int8-cpu"),
        *("--recipe", int8 / RECIPE_NAME, "--sign-with", signing_key),
    )
    assert code == 0
    monkeypatch.setattr(_native, "cpu_features", lambda: {"avx2": True})
    with pytest.raises(EngineError, match="dot-product"):
        Screener.open(out)


def _refused(capsys: Any, tmp_path: Path, words: str) -> None:
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    left = [path.name for path in tmp_path.iterdir() if "tiny" in path.name]
    assert left == []


@pytest.mark.usefixtures("known")
def test_int8_without_photographs_is_refused(
    trained: Any, run_export: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    options = ("--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny")
    assert run_export(*options, "--precision", "int8") == 1
    _refused(capsys, tmp_path, "give a folder of them with --calibration")


def _nothing(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _unreadable(folder: Path) -> None:
    (folder / "3_left.png").write_bytes(b"no picture")


def _one_missing(folder: Path) -> None:
    (folder / "3_left.png").unlink()


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nothing, "holds no JPEG or PNG photograph"),
        (_unreadable, "3_left.png"),
        (_one_missing, "needs at least 32 eyes, 16 pairs among them"),
        (shutil.rmtree, "is no folder that can be read"),
    ],
)
def test_photographs_that_cannot_be_calibrated_on_are_refused(
    photographs: Path,
    run_export: Callable[..., int],
    options: list[object],
    tmp_path: Path,
    capsys: Any,
    change: Callable[[Path], None],
    words: str,
) -> None:
    folder = Path(shutil.copytree(photographs, tmp_path / "photographs"))
    change(folder)
    assert run_export(*options, "--precision", "int8", "--calibration", folder) == 1
    _refused(capsys, tmp_path, words)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_checkpoint_whose_weights_are_no_numbers_is_refused(
    trained: Any,
    run_export: Callable[..., int],
    options: list[object],
    tmp_path: Path,
    capsys: Any,
    value: float,
) -> None:
    with safe_open(trained.checkpoint, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = file.metadata()
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    state[name] = torch.full_like(state[name], value)
    broken = tmp_path / "broken.safetensors"
    save_file(state, broken, header)
    assert run_export(*options, "--checkpoint", broken, "--precision", "int8") == 1
    _refused(capsys, tmp_path, "NaN or infinity")


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"patients": 4, "surprise": 1}', "may have the keys"),
        ('{"patients": "many"}', "patients must be int"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_limits_that_are_none_are_refused(
    run_export: Callable[..., int],
    options: list[object],
    trained: Any,
    tmp_path: Path,
    capsys: Any,
    text: str,
    words: str,
) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text(text, encoding="utf-8")
    data = ("--data", trained.data)
    assert run_export(*options, *data, "--precision", "int8", "--limits", limits) == 1
    _refused(capsys, tmp_path, words)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda values: values["graphs"].update(head="0" * 64),
            "the recipe was made for the FP32 head 000000000000",
        ),
        (
            lambda values: values.update(preprocess_sha256="0" * 64),
            "was measured through preprocessing 000000000000",
        ),
        (lambda values: values.pop("ranges"), "is no recipe"),
    ],
    ids=["graphs", "preprocessing", "keys"],
)
def test_a_recipe_of_another_model_is_refused(
    int8: Path,
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: Any,
    change: Callable[[dict[str, Any]], Any],
    words: str,
) -> None:
    values = json.loads((int8 / RECIPE_NAME).read_bytes())
    change(values)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(values), encoding="utf-8")
    options = ("--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny")
    assert run_export(*options, "--precision", "int8", "--recipe", recipe) == 1
    _refused(capsys, tmp_path, words)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("files", [0, 2, 9])
def test_a_disk_that_fills_leaves_the_old_bundle_and_nothing_else(
    int8: Path,
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    files: int,
) -> None:
    folder = tmp_path / "robots"
    folder.mkdir()
    old = Path(shutil.copytree(int8, folder / "tiny"))
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    real, left = Path.write_bytes, [files]

    def until_full(path: Path, data: bytes) -> int:
        if left[0] == 0:
            real(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        left[0] -= 1
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    code = run_export(
        *("--checkpoint", trained.checkpoint, "--out", old, "--dialect", "int8-cpu"),
        *("--recipe", int8 / RECIPE_NAME, "--force"),
    )
    assert code == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["tiny"]
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
