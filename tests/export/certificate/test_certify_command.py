"""The command on the tiny bundle: what it stores, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from fundus_export.certificate import Certificate, in_bundle
from fundus_export.certificate.in_bundle import write_certificates
from fundus_export.commands import export
from fundus_export.errors import ExportError
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_hex, sha256_of_file
from fundus_runtime.screener import Screener
from fundus_training.checkpoint import load_checkpoint, save_checkpoint

LENIENT = {"patients": 0, "class_decisions": 1, "referrals": 1, "challenge_score_drop": 1}
Certify = Callable[..., int]


def _shifted(graph: bytes, by: float) -> bytes:
    """The head with another bias behind it, as if lower precision had shifted its logits."""
    model = onnx.load_from_string(graph)
    (output,) = model.graph.output
    for node in model.graph.node:
        if output.name in node.output:
            node.output[list(node.output).index(output.name)] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(by), "shift"))
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "shift"], [output.name]))
    return bytes(model.SerializeToString())


def _edit(folder: Path, change: Callable[[dict[str, Any]], None], **files: bytes) -> None:
    """Change manifest and files of a bundle together; its signature goes."""
    values = json.loads((folder / "manifest.json").read_text("utf-8"))
    for name, data in files.items():
        (folder / name).write_bytes(data)
        values["files"][name] = {"sha256": sha256_hex(data), "bytes": len(data)}
    change(values)
    (folder / "manifest.json").write_text(json.dumps(values), "utf-8")
    (folder / "signature.json").unlink(missing_ok=True)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def signed(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy of the signed bundle in a folder of its own."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "place" / "bundle"))


@pytest.fixture
def bundle(signed: Path) -> Path:
    """An unsigned copy with a second dialect, whose logits are shifted by a constant."""
    head = _shifted((signed / "graphs/head_fp32.onnx").read_bytes(), 1.0)
    recipe = json.dumps({"images": {"files": [{"sha256": "0" * 64}]}}).encode()

    def add_dialect(values: dict[str, Any]) -> None:
        values["graphs"]["int8-cpu"] = {
            **values["graphs"]["fp32"],
            "head": "graphs/head_int8-cpu.onnx",
            "dialect": "int8-cpu",
            "precision": "int8",
        }

    files = {"graphs/head_int8-cpu.onnx": head, "graphs/recipe.json": recipe}
    _edit(signed, add_dialect, **files)
    return signed


@pytest.fixture
def certify(trained: Any, tmp_path: Path) -> Certify:
    """`fundus-export certify` with limits that four patients can keep; the exit status."""
    limits = tmp_path / "limits.json"
    limits.write_text(json.dumps(LENIENT), "utf-8")

    def run(folder: Path, *options: object, limited: bool = True, **others: object) -> int:
        words = {"checkpoint": trained.checkpoint, "data": trained.data, **others}
        named = [word for name, value in words.items() for word in (f"--{name}", value)]
        fixed = ["--cache-dir", trained.cache, "--bootstrap", 20, "--layer-pairs", 1]
        if limited:
            fixed += ["--limits", limits]
        return export.main([str(word) for word in ("certify", folder, *named, *fixed, *options)])

    return run


def test_certificates_are_stored_and_the_bundle_stays_whole(
    bundle: Path, certify: Certify, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certify(bundle) == 0

    opened = Bundle.open(bundle, require_trust=False)
    said = capsys.readouterr().out
    assert f"manifest sha256 {opened.sha256}" in said
    stored = opened.manifest.reported["certificates"]
    certificates = {name: Certificate.from_dict(one) for name, one in stored.items()}
    assert set(certificates) == {"fp32", "int8-cpu"}
    graphs = opened.manifest.graphs["int8-cpu"]
    subject = certificates["int8-cpu"].subject
    assert subject.head_sha256 == opened.manifest.files[graphs.head].sha256
    assert subject.checkpoint_sha256 == opened.manifest.files["checkpoint.safetensors"].sha256
    assert subject.provider == "CPUExecutionProvider"
    assert subject.cpu_features
    assert certificates["fp32"].refit.kept
    assert certificates["fp32"].default.class_decisions.count == 0
    assert certificates["fp32"].layer_errors == ()
    worst = certificates["int8-cpu"].layer_errors[0]
    assert (worst.graph, worst.tensor) == ("head", "logits")
    assert list(bundle.parent.iterdir()) == [bundle]


def test_onnxruntime_is_named_whichever_package_it_comes_from(
    bundle: Path, certify: Certify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it is installed as onnxruntime-gpu."""
    found = Distribution.from_name

    def from_name(name: str) -> Distribution:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(Distribution, "from_name", from_name)
    assert certify(bundle) == 0
    stored = Bundle.open(bundle, require_trust=False).manifest.reported["certificates"]
    engines = {Certificate.from_dict(one).subject.engine for one in stored.values()}
    assert engines == {f"onnxruntime {onnxruntime.__version__}"}


def test_refitted_calibration_goes_to_its_dialect_alone(bundle: Path, certify: Certify) -> None:
    before = json.loads((bundle / "manifest.json").read_text("utf-8"))
    certify(bundle)
    after = json.loads((bundle / "manifest.json").read_text("utf-8"))

    assert "calibration" not in after["graphs"]["fp32"]
    assert after["calibration"] == before["calibration"]
    assert after["operating_points"] == before["operating_points"]
    refitted = after["graphs"]["int8-cpu"]["calibration"]
    for letter, own in before["calibration"]["patient"].items():
        # four patients undo a shift of +1 by half or so, against the pull towards the reference
        assert own["bias"] - 1.5 < refitted["patient"][letter]["bias"] <= own["bias"]
    assert refitted["patient"]["N"]["bias"] < before["calibration"]["patient"]["N"]["bias"] - 0.2
    # the eyes' logits were not touched
    assert refitted["eye"] == before["calibration"]["eye"]


def test_other_certificates_are_left_as_they_are(bundle: Path, certify: Certify) -> None:
    certify(bundle)
    first = json.loads((bundle / "manifest.json").read_text("utf-8"))["certificates"]
    certify(bundle, "--dialect", "int8-cpu", "--seed", 7)
    second = json.loads((bundle / "manifest.json").read_text("utf-8"))["certificates"]

    assert second["fp32"] == first["fp32"]
    assert second["int8-cpu"]["patients"]["halves_seed"] == 7


def test_a_missed_limit_is_stored_and_is_a_failure(
    bundle: Path, certify: Certify, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certify(bundle, limited=False) == 1

    assert "too few patients: 4 with both eyes, at least 400" in capsys.readouterr().out
    opened = Bundle.open(bundle, require_trust=False)
    assert opened.manifest.reported["certificates"]["fp32"]["within_limits"] is False


def test_the_screener_shows_the_certificate(
    bundle: Path, certify: Certify, sign_bundle: Callable[[Path], Path]
) -> None:
    certify(bundle)
    with Screener.open(sign_bundle(bundle)) as screener:
        assert screener.certificate.certified
        assert "on 4 patients" in screener.certificate.statement


def test_certificates_are_also_written_where_asked(
    bundle: Path, certify: Certify, tmp_path: Path
) -> None:
    before, out = _contents(bundle), tmp_path / "certificates.json"

    assert certify(bundle, "--no-write", out=out) == 0
    assert _contents(bundle) == before
    written = json.loads(out.read_text("utf-8"))
    assert {name: Certificate.from_dict(one).within_limits for name, one in written.items()} == {
        "fp32": True,
        "int8-cpu": True,
    }
    assert certify(bundle, "--no-write", out=out) == 2
    assert certify(bundle, "--no-write", "--force", out=out) == 0


def test_signed_bundle_is_refused_before_any_work(
    signed: Path, certify: Certify, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _contents(signed)

    assert certify(signed) == 1
    assert "--drop-signature" in capsys.readouterr().err
    assert _contents(signed) == before


def test_signature_is_dropped_only_when_asked(signed: Path, certify: Certify) -> None:
    assert certify(signed, "--no-write") == 0
    assert (signed / "signature.json").exists()
    assert certify(signed, "--drop-signature") == 0
    assert not (signed / "signature.json").exists()
    assert Bundle.open(signed, require_trust=False).trust == "unsigned"


@pytest.mark.parametrize("split", ["train", "all"])
def test_patients_of_the_training_are_refused(
    bundle: Path, certify: Certify, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certify(bundle, split=split) == 1
    assert "the model was trained on some of them" in capsys.readouterr().err


def test_test_patients_may_judge_as_well(bundle: Path, certify: Certify) -> None:
    assert certify(bundle, "--dialect", "fp32", split="test") == 0
    opened = Bundle.open(bundle, require_trust=False)
    assert opened.manifest.reported["certificates"]["fp32"]["patients"]["split"] == "test"


def test_patients_whose_photographs_calibrated_the_graphs_are_refused(
    bundle: Path, trained: Any, certify: Certify, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = load_checkpoint(trained.checkpoint).split.val[0]
    seen = sha256_of_file(trained.data / "images" / f"{patient}_right.jpg")
    recipe = json.dumps({"images": {"files": [{"sha256": "0" * 64}, {"sha256": seen}]}}).encode()
    _edit(bundle, lambda _: None, **{"graphs/recipe.json": recipe})

    assert certify(bundle) == 1
    assert "1 of 4 patients have a photograph that the calibration of" in capsys.readouterr().err
    assert certify(bundle, "--dialect", "fp32") == 0


def test_copies_of_training_photographs_are_refused(
    bundle: Path, trained: Any, certify: Certify, tmp_path: Path, capsys: Any
) -> None:
    split = load_checkpoint(trained.checkpoint).split
    data = Path(shutil.copytree(trained.data, tmp_path / "data"))
    images = data / "images"
    shutil.copy(images / f"{split.train[0]}_left.jpg", images / f"{split.val[1]}_left.jpg")

    assert certify(bundle, data=data) == 1
    assert "1 of 4 patients have a photograph that the training saw" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", [None, b"{}", b"no json"])
def test_int8_graphs_of_unknown_calibration_are_refused(
    bundle: Path, certify: Certify, recipe: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if recipe is None:
        (bundle / "graphs/recipe.json").unlink()
        _edit(bundle, lambda values: values["files"].pop("graphs/recipe.json"))
    else:
        _edit(bundle, lambda _: None, **{"graphs/recipe.json": recipe})

    assert certify(bundle) == 1
    assert "recipe.json" in capsys.readouterr().err


def test_another_checkpoint_is_refused(
    bundle: Path, trained: Any, certify: Certify, tmp_path: Path, capsys: Any
) -> None:
    checkpoint = load_checkpoint(trained.checkpoint)
    other = tmp_path / "other.safetensors"
    name = next(key for key, value in checkpoint.state.items() if value.is_floating_point())
    checkpoint.state[name] += 1e-3
    save_checkpoint(other, checkpoint)

    assert certify(bundle, checkpoint=other) == 1
    assert "was exported from a checkpoint" in capsys.readouterr().err


def test_bundle_of_another_preprocessing_is_refused(
    bundle: Path, certify: Certify, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Bundle.open(bundle, require_trust=False)
    spec = replace(opened.manifest.spec, illumination="none")

    def change(values: dict[str, Any]) -> None:
        values.update(preprocess=spec.to_dict(), preprocess_sha256=spec.sha256)

    _edit(bundle, change)
    assert certify(bundle) == 1
    assert "the preprocess hash of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # the bundle's own values still fit each other: they go by letter
        ({"letters": [*"DNGCAHMO"]}, "the class list of"),
        ({"normal": None}, "the normal class of"),
    ],
)
def test_bundle_of_another_class_list_is_refused(
    bundle: Path, certify: Certify, capsys: Any, change: dict[str, Any], words: str
) -> None:
    _edit(bundle, lambda values: values["classes"].update(change))
    before = _contents(bundle)

    assert certify(bundle) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "give the checkpoint that the bundle was exported from" in said
    assert _contents(bundle) == before


def _foreign_graph() -> bytes:
    values = [onnx.helper.make_tensor_value_info(name, 1, ["n", 4]) for name in ("x", "y")]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "foreign", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 18)
    return bytes(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no graph", "graphs/head_int8-cpu.onnx of "),
        (_foreign_graph(), "the head graph has the inputs"),
    ],
    ids=["no model", "of others"],
)
def test_a_graph_that_is_not_ours_is_refused(
    bundle: Path, certify: Certify, capsys: Any, data: bytes, words: str
) -> None:
    _edit(bundle, lambda _: None, **{"graphs/head_int8-cpu.onnx": data})
    before = _contents(bundle)

    assert certify(bundle, "--dialect", "int8-cpu") == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert _contents(bundle) == before


def test_unknown_dialect_is_refused(
    bundle: Path, certify: Certify, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certify(bundle, "--dialect", "int4") == 1
    assert "has no int4; it has fp32, int8-cpu" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", '{"patient": 3}', '{"patients": "3"}', '{"referrals": -1}'])
def test_unusable_limits_are_refused(
    bundle: Path, certify: Certify, tmp_path: Path, text: str, capsys: Any
) -> None:
    limits = tmp_path / "other.json"
    limits.write_text(text, "utf-8")

    assert certify(bundle, "--limits", limits) == 1
    assert "limit" in capsys.readouterr().err


class TestWriting:
    @pytest.fixture
    def certificates(self, bundle: Path, certify: Certify, tmp_path: Path) -> Any:
        out = tmp_path / "certificates.json"
        certify(bundle, "--no-write", "--dialect", "fp32", out=out)
        plain = json.loads(out.read_text("utf-8"))
        return {name: Certificate.from_dict(one) for name, one in plain.items()}

    def test_bundle_that_changed_meanwhile_is_refused(
        self, bundle: Path, certificates: Any
    ) -> None:
        opened = Bundle.open(bundle, require_trust=False)
        _edit(bundle, lambda values: values.update(name="another"))
        before = _contents(bundle)

        with pytest.raises(ExportError, match="changed while it was certified"):
            write_certificates(opened, certificates)
        assert _contents(bundle) == before

    def test_full_disk_leaves_bundle_and_signature(
        self, bundle: Path, certificates: Any, sign_bundle: Any, monkeypatch: Any
    ) -> None:
        sign_bundle(bundle)
        opened = Bundle.open(bundle)
        before = _contents(bundle)

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(in_bundle.os, "fsync", full)
        with pytest.raises(ExportError, match="No space left"):
            write_certificates(opened, certificates, drop_signature=True)
        assert _contents(bundle) == before
        assert list(bundle.parent.iterdir()) == [bundle]

    def test_the_folder_is_a_whole_bundle_at_every_step(
        self, bundle: Path, certificates: Any, sign_bundle: Any, monkeypatch: Any
    ) -> None:
        sign_bundle(bundle)
        opened = Bundle.open(bundle)
        states = []

        def spied(name: str) -> None:
            plain = getattr(Path, name)

            def spy(self: Path, *args: Any, **options: Any) -> Any:
                before = Bundle.open(bundle, require_trust=False).trust
                done = plain(self, *args, **options)
                states.append((before, Bundle.open(bundle, require_trust=False).trust))
                return done

            monkeypatch.setattr(Path, name, spy)

        spied("unlink")
        spied("replace")
        write_certificates(opened, certificates, drop_signature=True)

        assert states[0] == ("signed", "unsigned")
        assert {state for pair in states[1:] for state in pair} == {"unsigned"}
