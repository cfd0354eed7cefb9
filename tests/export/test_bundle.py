"""From the commands of training to a bundle that the runtime screens with, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_export import bundle_writer
from fundus_export.bundle_writer import BundlePlan, PreparedPairs, write_bundle
from fundus_export.commands import export
from fundus_export.errors import ExportError
from fundus_export.golden import ANSWERS_NAME
from fundus_export.graphs import GraphBytes
from fundus_export.model_card import model_card
from fundus_export.parity import PROBABILITY_LIMIT, Answers, compare
from fundus_export.signing import load_signing_key
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_of_file
from fundus_runtime.commands import screen
from fundus_runtime.errors import BundleUntrustedError
from fundus_runtime.golden import check_golden
from fundus_training.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(trained: Any) -> Checkpoint:
    return load_checkpoint(trained.checkpoint)


@pytest.fixture
def plan(trained: Any, checkpoint: Checkpoint) -> BundlePlan:
    return BundlePlan("tiny", "0.1.0", checkpoint, trained.checkpoint.read_bytes())


@pytest.fixture
def known_graphs(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> GraphBytes:
    """The graphs of the bundle that was exported already, instead of exporting them again."""
    bundle = Bundle.open(bundle_folder)
    graphs = GraphBytes(*bundle.graph_bytes(bundle.manifest.graphs_for("cpu")), opset=18)
    monkeypatch.setattr(bundle_writer, "export_graphs", lambda _: graphs)
    return graphs


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_bundle_is_whole_and_says_what_it_is(
    bundle_folder: Path, trained: Any, checkpoint: Checkpoint
) -> None:
    bundle = Bundle.open(bundle_folder)
    manifest, reported = bundle.manifest, bundle.manifest.reported
    assert (manifest.name, manifest.version) == ("tiny", "0.1.0")
    assert manifest.spec == checkpoint.spec
    assert manifest.classes == checkpoint.classes
    assert reported["model"] == checkpoint.model_config.to_dict()
    assert reported["parity"]["source"] == "validation patients of odir"
    assert reported["parity"]["pairs"] == len(checkpoint.split.val)
    assert reported["parity"]["largest_probability_difference"] <= PROBABILITY_LIMIT
    assert reported["training_data"]["patients"] == {"train": 8, "val": 4, "test": 4}
    notes = ["Started from random numbers.", "Drawn fundi alone."]
    assert reported["training_data"]["notes"] == notes
    card = bundle.file("MODEL_CARD.md").read_text("utf-8")
    assert all(note in card for note in notes)
    assert [r["data"]["split"] for r in reported["metrics"]["evaluations"]] == ["val", "test"]
    assert bundle.file("checkpoint.safetensors").read_bytes() == trained.checkpoint.read_bytes()
    assert checkpoint.calibration is not None
    assert manifest.calibration == checkpoint.calibration.patient
    assert manifest.operating_points == checkpoint.calibration.points


def test_the_bundle_names_no_folder_of_the_machine(bundle_folder: Path, trained: Any) -> None:
    for name, data in _contents(bundle_folder).items():
        for folder in (trained.data.parent, Path.home(), Path(sys.prefix)):
            assert str(folder).encode() not in data, name


def test_the_runtime_answers_the_golden_pairs_as_recorded(bundle_folder: Path) -> None:
    report = check_golden(Bundle.open(bundle_folder))
    assert report is not None
    assert report.passed
    assert (report.pairs, report.graphs) == (32, "fp32")
    # FP32 in another order on the same machine: far inside the tolerance between CPUs
    assert report.largest_difference < 1e-5


def test_golden_answers_differ_from_pair_to_pair(bundle_folder: Path) -> None:
    recorded = json.loads((bundle_folder / ANSWERS_NAME).read_bytes())["answers"]["fp32"]
    calibration = Bundle.open(bundle_folder).manifest.calibration
    answers = calibration.apply(np.array(recorded["logits"], np.float32))
    assert np.ptp(answers, axis=0).max() > 10 * recorded["probability_tolerance"]


def _another_logit(golden: dict[str, Any]) -> None:
    golden["answers"]["fp32"]["logits"][3][0] += 0.5


def _another_logit_of_the_right_eye(golden: dict[str, Any]) -> None:
    golden["answers"]["fp32"]["right_logits"][3][3] += 0.5


def _another_picture(golden: dict[str, Any]) -> None:
    golden["pairs"][3]["left"] = golden["pairs"][4]["left"]


@pytest.mark.parametrize(
    "change", [_another_logit, _another_logit_of_the_right_eye, _another_picture]
)
def test_a_bundle_that_answers_its_golden_pairs_otherwise_is_not_written(
    plan: BundlePlan,
    known_graphs: GraphBytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], None],
) -> None:
    real = bundle_writer.golden_files

    def altered(*arguments: Any) -> dict[str, bytes]:
        files = real(*arguments)
        golden = json.loads(files[ANSWERS_NAME])
        change(golden)
        return {**files, ANSWERS_NAME: json.dumps(golden).encode()}

    monkeypatch.setattr(bundle_writer, "golden_files", altered)
    with pytest.raises(ExportError, match="golden pairs as recorded"):
        write_bundle(plan, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_pair_is_screened_with_the_bundle_from_the_command_line(
    bundle_folder: Path, trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    images = trained.data / "images"
    arguments = [images / "2_left.jpg", images / "2_right.jpg", "--bundle", bundle_folder, "--json"]
    assert screen.main([str(argument) for argument in arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bundle"]["sha256"] == Bundle.open(bundle_folder).sha256
    assert result["outcome"] in {"findings", "normal", "uncertain"}
    assert list(result["probabilities"]) == list("NDGCAHMO")


def test_a_bundle_is_signed_while_it_is_written(bundle_folder: Path, signing_key: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    assert bundle.trust == "signed"
    assert bundle.signer == load_signing_key(signing_key, lambda: b"").key_id


def test_what_is_not_signed_comes_with_the_command_that_does(
    trained: Any,
    run_export: Callable[..., int],
    known_graphs: GraphBytes,
    signing_key: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a bundle"
    assert run_export("--checkpoint", trained.checkpoint, "--out", out) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(BundleUntrustedError):
        Bundle.open(out)
    program, *words = shlex.split(last[last.index("fundus-export sign") :])
    assert program == "fundus-export"
    assert export.main([str(signing_key) if word == "FILE" else word for word in words]) == 0
    assert Bundle.open(out).trust == "signed"


def test_a_key_that_cannot_sign_is_refused_before_any_work(
    trained: Any, run_export: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny"]
    assert run_export(*options, "--sign-with", tmp_path / "none") == 1
    assert "none cannot be read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_real_pairs_the_golden_ones_are_compared(
    plan: BundlePlan, known_graphs: GraphBytes, tmp_path: Path
) -> None:
    bundle = write_bundle(plan, tmp_path / "tiny")
    assert bundle.manifest.reported["parity"]["source"] == "golden pairs"
    assert bundle.manifest.reported["parity"]["pairs"] == 32
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def _answers(**changes: np.ndarray) -> Answers:
    zeros = np.zeros((2, 8), np.float32)
    fields = ("left", "right", "both", "left_only", "right_only")
    return Answers(**{name: changes.get(name, zeros) for name in fields})


@pytest.mark.parametrize("field", ["left", "right", "both", "left_only", "right_only"])
def test_parity_looks_at_every_answer(field: str, checkpoint: Checkpoint) -> None:
    fitted = checkpoint.calibration
    assert fitted is not None
    altered = np.zeros((2, 8), np.float32)
    altered[1, 3] = 0.01
    with pytest.raises(ExportError, match=r"differ from the PyTorch model by .* over 2 pairs"):
        compare(
            _answers(), _answers(**{field: altered}), fitted.patient, fitted.eye, source="a test"
        )
    altered[1, 3] = np.nan
    with pytest.raises(ExportError, match="differ from the PyTorch model"):
        compare(
            _answers(), _answers(**{field: altered}), fitted.patient, fitted.eye, source="a test"
        )


def test_parity_of_equal_answers_is_exact(checkpoint: Checkpoint) -> None:
    fitted = checkpoint.calibration
    assert fitted is not None
    found = compare(_answers(), _answers(), fitted.patient, fitted.eye, source="a test")
    assert found.to_dict()["largest_probability_difference"] == 0.0


def test_graphs_of_another_model_are_refused_and_nothing_is_left(
    plan: BundlePlan, known_graphs: GraphBytes, tmp_path: Path
) -> None:
    state = dict(plan.checkpoint.state)
    state["head.linear.bias"] = state["head.linear.bias"] + 0.01
    other = dataclasses.replace(plan, checkpoint=dataclasses.replace(plan.checkpoint, state=state))
    with pytest.raises(ExportError, match="graphs differ from the PyTorch model"):
        write_bundle(other, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


class _FullDisk:
    """`Path.write_bytes` until the disk is full."""

    def __init__(self, files: int) -> None:
        self.left = files
        self.real = Path.write_bytes

    def __call__(self, path: Path, data: bytes) -> int:
        if self.left == 0:
            self.real(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        self.left -= 1
        return self.real(path, data)


@pytest.mark.parametrize("files", [0, 5, 19])
def test_a_full_disk_leaves_nothing(
    plan: BundlePlan,
    known_graphs: GraphBytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: int,
) -> None:
    disk = _FullDisk(files)
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: disk(path, data))
    with pytest.raises(ExportError, match="No space left on device; nothing was left behind"):
        write_bundle(plan, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_bundle(
    plan: BundlePlan,
    known_graphs: GraphBytes,
    bundle_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Path(shutil.copytree(bundle_folder, tmp_path / "tiny"))
    before = _contents(out)
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if target == out and path.name != ".tiny.old":
            raise OSError(5, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ExportError, match="Input/output error"):
        write_bundle(plan, out, force=True)
    assert _contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_bundle_is_replaced_only_by_force(
    plan: BundlePlan, known_graphs: GraphBytes, bundle_folder: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(bundle_folder, tmp_path / "tiny"))
    (out / "stray.txt").write_text("an old file", encoding="utf-8")
    before = _contents(out)
    with pytest.raises(ExportError, match="exists; choose another --out, or replace it with"):
        write_bundle(plan, out)
    assert _contents(out) == before
    replaced = write_bundle(dataclasses.replace(plan, bundle_version="0.2.0"), out, force=True)
    assert replaced.manifest.version == "0.2.0"
    assert Bundle.open(out, require_trust=False).sha256 == replaced.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_that_is_no_bundle_is_never_replaced(plan: BundlePlan, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"miaow")
    with pytest.raises(ExportError, match="is no bundle, so that it is not replaced"):
        write_bundle(plan, tmp_path / "photos", force=True)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"miaow"


def test_a_folder_that_cannot_be_is_refused_before_any_work(
    plan: BundlePlan, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out in (tmp_path / "file" / "tiny", tmp_path / "none" / "tiny"):
        with pytest.raises(ExportError, match="does not exist; create it first"):
            write_bundle(plan, out)


def test_a_checkpoint_without_calibration_is_refused(
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_export("--checkpoint", trained.uncalibrated, "--out", tmp_path / "tiny") == 1
    answer = capsys.readouterr()
    assert "run `fundus-train calibrate` on it first" in answer.err
    assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_softmax_checkpoint_is_refused(plan: BundlePlan, tmp_path: Path) -> None:
    config = dataclasses.replace(plan.checkpoint.model_config, task="softmax")
    other = dataclasses.replace(plan.checkpoint, model_config=config)
    with pytest.raises(ExportError, match="trained with task 'softmax'"):
        write_bundle(dataclasses.replace(plan, checkpoint=other), tmp_path / "tiny")


def test_a_report_of_another_checkpoint_is_refused(
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = json.loads(trained.validation.read_text(encoding="utf-8"))
    assert report["checkpoint"]["sha256"] == sha256_of_file(trained.checkpoint)
    report["checkpoint"]["sha256"] = sha256_of_file(trained.uncalibrated)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(report), encoding="utf-8")
    options = ["--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny"]
    assert run_export(*options, "--evaluation", other) == 1
    assert "evaluate this checkpoint again" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"checkpoint": {"sha256": "0"}}', "7"])
def test_what_is_no_report_is_refused(
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    report = tmp_path / "report.json"
    report.write_text(text, encoding="utf-8")
    options = ["--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny"]
    assert run_export(*options, "--evaluation", report) == 1
    assert "is no report of `fundus-train evaluate --out`" in capsys.readouterr().err


def test_data_without_the_checkpoints_patients_is_refused(
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = (trained.data / "full_df.csv").read_text(encoding="utf-8").splitlines()
    shutil.copytree(trained.data, tmp_path / "odir")
    few = "\n".join(lines[:3]) + "\n"
    (tmp_path / "odir" / "full_df.csv").write_text(few, encoding="utf-8")
    options = ["--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny"]
    assert run_export(*options, "--data", tmp_path / "odir", "--cache-dir", tmp_path / "c") == 1
    assert "use the data set that the split was made from" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


def test_data_of_other_classes_is_refused(
    trained: Any,
    run_export: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(trained.data, tmp_path / "odir")
    table = tmp_path / "odir" / "full_df.csv"
    header, rows = table.read_text(encoding="utf-8").split("\n", 1)
    table.write_text(f"{header.strip().removesuffix('O')}X\n{rows}", encoding="utf-8")
    options = ["--checkpoint", trained.checkpoint, "--out", tmp_path / "tiny"]
    assert run_export(*options, "--data", tmp_path / "odir", "--cache-dir", tmp_path / "c") == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert str(tmp_path / "odir") in said
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["bundle"], ["bundle", "--precision", "fp8"], ["bundle", "--pairs", "0"]]
)
def test_what_the_parser_refuses_is_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        export.main(arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["bundle", "--help"], ["keygen", "--help"], ["verify", "--help"], ["--version"]],
)
def test_help_imports_neither_torch_nor_onnx(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from fundus_export.commands.export import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as stopped:\n    assert stopped.code == 0\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'cv2'} & set(sys.modules)))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stdout.splitlines()[-1] == "[]"


def test_the_model_card_says_what_the_model_is_from_and_what_it_is_not_for(
    bundle_folder: Path,
) -> None:
    card = (bundle_folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "8 to train, 4 to validate, 4 kept for a test" in card
    assert "## On 4 validation patients" in card
    assert "## On 4 test patients" in card
    assert "figures lean to the good side" in card
    assert "Nothing was chosen on these patients." in card
    assert re.search(r"\| AUC, macro \| \d\.\d{3} \| \d\.\d{3}–\d\.\d{3} \|", card)
    assert "Not a medical device" in card
    assert "Research use only" in card
    assert "ODIR-5K" in card
    assert "at 64 px" in card
    for row in ("| N normal | 4 |", "| C cataract | 4 |", "| D diabetic retinopathy | 0 |"):
        assert row in card
    assert not re.search(r"None|nan|\{|\}", card)


@pytest.mark.parametrize(
    ("trained_on", "words"),
    [(8, "8 of these patients were trained on"), (0, "None of these patients was trained on.")],
)
def test_the_model_card_says_whether_a_whole_data_set_was_trained_on(
    bundle_folder: Path, checkpoint: Checkpoint, trained_on: int, words: str
) -> None:
    report = Bundle.open(bundle_folder).manifest.reported["metrics"]["evaluations"][0]
    data = {**report["data"], "split": "all", "name": "clinic", "patients_trained_on": trained_on}
    card = model_card("tiny", checkpoint, [{**report, "data": data}])
    assert words in card
    assert f"## On all {data['patients']} patients of clinic" in card
    assert "lean to the good side" not in card


def test_the_model_card_of_the_users_own_data_does_not_speak_of_odir(
    checkpoint: Checkpoint,
) -> None:
    own = dataclasses.replace(
        checkpoint, training={**checkpoint.training, "data_layout": "plain-csv"}
    )
    card = model_card("mine", own, [])
    assert "ODIR" not in card
    assert "The user's own data set" in card
    assert "Not a medical device" in card


def test_real_pairs_are_compared_as_they_are_given(
    plan: BundlePlan, known_graphs: GraphBytes, tmp_path: Path
) -> None:
    eyes = np.random.default_rng(0).normal(size=(2, 3, 3, 64, 64)).astype(np.float32)
    given = dataclasses.replace(plan, pairs=PreparedPairs(eyes[0], eyes[1], "three of them"))
    parity = write_bundle(given, tmp_path / "tiny").manifest.reported["parity"]
    assert (parity["pairs"], parity["source"]) == (3, "three of them")
