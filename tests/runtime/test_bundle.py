from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fundus_runtime.bundle as bundle_module
import fundus_runtime.shipped as shipped_module
from fundus_runtime.bundle import Bundle
from fundus_runtime.canonical import sha256_of_file
from fundus_runtime.errors import BundleError, BundleTamperedError, BundleUntrustedError
from fundus_runtime.shipped import default_bundle

ENCODER = "graphs/encoder.onnx"


@pytest.fixture
def edit(sign_bundle: Callable[[Path], Path]) -> Callable[[Path, Callable[[dict], object]], None]:
    """Edits a manifest and signs it again, so that the fault is a signer's own."""

    def change_manifest(folder: Path, change: Callable[[dict], object]) -> None:
        file = folder / "manifest.json"
        values = json.loads(file.read_text("utf-8"))
        change(values)
        file.write_text(json.dumps(values), "utf-8")
        sign_bundle(folder)

    return change_manifest


def test_whole_bundle_opens(shared_bundle: Path) -> None:
    bundle = Bundle.open(shared_bundle)
    assert bundle.path == shared_bundle
    assert bundle.sha256 == sha256_of_file(shared_bundle / "manifest.json")
    assert bundle.trust == "signed"
    assert bundle.manifest.name == "tiny"
    assert bundle.file(ENCODER) == shared_bundle / ENCODER
    encoder, head = bundle.graph_bytes(bundle.manifest.graphs_for("cpu"))
    assert encoder == (shared_bundle / ENCODER).read_bytes()
    assert head == (shared_bundle / "graphs/head.onnx").read_bytes()


def test_text_path_and_link_to_the_folder_open(shared_bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(shared_bundle)
    assert Bundle.open(str(link)).sha256 == Bundle.open(shared_bundle).sha256


def test_files_outside_the_manifest_cannot_be_asked_for(shared_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"lists no file '\.\./x'; it lists MODEL_CARD\.md"):
        Bundle.open(shared_bundle).file("../x")


def test_missing_folder_and_missing_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no folder"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"\xff\xfe", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[]", "holds a list, expected an object"),
        (b'{"format": NaN}', "NaN is no JSON number"),
        (b'{"format": 1, "format": 2}', "a key appears twice"),
        (b"{}", "states the format None"),
    ],
)
def test_unreadable_manifests_are_refused(
    bundle_copy: Path, sign_bundle, content: bytes, words: str
) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    sign_bundle(bundle_copy)
    with pytest.raises(BundleError, match=words) as caught:
        Bundle.open(bundle_copy)
    assert str(bundle_copy) in str(caught.value)


def set_in(*path: str, to: object) -> Callable[[dict], None]:
    def change(values: dict) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = to

    return change


def drop(*path: str) -> Callable[[dict], None]:
    def change(values: dict) -> None:
        for key in path[:-1]:
            values = values[key]
        del values[path[-1]]

    return change


RECORD = {"sha256": "0" * 64, "bytes": 1}
MANIFEST_FAULTS = {
    "other format": (set_in("format", to="zip"), "states the format 'zip', expected"),
    "newer schema": (
        set_in("schema_version", to=2),
        "has schema version 2, but .* reads 1; update",
    ),
    "schema no number": (set_in("schema_version", to="1"), "states the schema version '1'"),
    "schema true": (set_in("schema_version", to=True), "states the schema version True"),
    "unknown key": (set_in("surprise", to=1), r"unknown keys \['surprise'\]"),
    "missing key": (drop("calibration"), r"lacks \['calibration'\]"),
    "medical claim": (set_in("not_a_medical_device", to=False), "for research only"),
    "name no text": (set_in("name", to=""), "name must be a text"),
    "spec hash": (
        set_in("preprocess_sha256", to="0" * 64),
        "records .*'0{64}'.* hashes to [0-9a-f]{64}",
    ),
    "spec changed": (set_in("preprocess", "size", to=96), "records preprocess_sha256"),
    "spec key": (set_in("preprocess", "surprise", to=1), "preprocess: .*surprise"),
    "spec no object": (set_in("preprocess", to=[]), "preprocess must be an object"),
    "classes": (drop("classes", "names"), "a class list needs exactly the keys"),
    "calibration classes": (drop("calibration", "eye", "M"), "calibration is for the classes"),
    "calibration eye": (drop("calibration", "eye"), "calibration lacks 'eye'"),
    "temperature": (set_in("calibration", "patient", "N", "temperature", to=0), "above 0"),
    "point classes": (drop("operating_points", "points", "even", "N"), "operating point 'even'"),
    "point default": (set_in("operating_points", "default", to="x"), "default operating point 'x'"),
    "points list": (set_in("operating_points", "points", to=[]), "must map names"),
    "threshold": (
        set_in("operating_points", "points", "even", "N", "threshold", to=2),
        "threshold of N must be within 0 and 1, got 2",
    ),
    "graph not listed": (
        set_in("graphs", "fp32", "head", to="x.onnx"),
        "which `files` does not list",
    ),
    "graph keys": (drop("graphs", "fp32", "opset"), "needs the keys"),
    "default graphs": (
        set_in("default_graphs", "cpu", to="int8"),
        r"'int8', but graphs has \['fp32'\]",
    ),
    "file record": (set_in("files", ENCODER, "sha256", to="AB"), "64 lower-case hexadecimal"),
    "file size": (set_in("files", ENCODER, "bytes", to=-1), "a whole number"),
    "files list": (set_in("files", to=[]), "files must be an object"),
    "parent path": (set_in("files", "../outside", to=RECORD), "plain paths within the bundle"),
    "inner parent path": (set_in("files", "graphs/../../x", to=RECORD), "plain paths within"),
    "absolute path": (set_in("files", "/etc/passwd", to=RECORD), "plain paths within the bundle"),
    "backslash": (set_in("files", "graphs\\x", to=RECORD), "plain paths within the bundle"),
    "drive": (set_in("files", "C:x", to=RECORD), "plain paths within the bundle"),
    "doubled slash": (set_in("files", "graphs//x", to=RECORD), "plain paths within the bundle"),
    "dot": (set_in("files", "./x", to=RECORD), "plain paths within the bundle"),
    "empty name": (set_in("files", "", to=RECORD), "plain paths within the bundle"),
    "the manifest itself": (set_in("files", "manifest.json", to=RECORD), "plain paths within"),
    "the signature": (set_in("files", "signature.json", to=RECORD), "plain paths within"),
}


@pytest.mark.parametrize("fault", MANIFEST_FAULTS)
def test_faulty_manifests_are_refused(bundle_copy: Path, edit, fault: str) -> None:
    change, words = MANIFEST_FAULTS[fault]
    edit(bundle_copy, change)
    with pytest.raises(BundleError, match=words) as caught:
        Bundle.open(bundle_copy)
    assert str(bundle_copy / "manifest.json") in str(caught.value)


def test_bundle_without_graphs_for_the_engine_is_refused(bundle_copy: Path, edit) -> None:
    edit(bundle_copy, set_in("default_graphs", to={"cuda": "fp32"}))
    with pytest.raises(BundleError, match=r"graphs for \['cuda'\], none for 'cpu'"):
        Bundle.open(bundle_copy).manifest.graphs_for("cpu")


def test_what_is_only_reported_is_kept(bundle_copy: Path, edit) -> None:
    edit(bundle_copy, set_in("metrics", to={"challenge_score": 0.8}))
    edit(bundle_copy, set_in("parity", to=None))
    reported = Bundle.open(bundle_copy).manifest.reported
    assert reported == {"metrics": {"challenge_score": 0.8}, "parity": None}


def test_missing_file_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / ENCODER).unlink()
    with pytest.raises(
        BundleTamperedError, match=r"lacks graphs/encoder\.onnx, which .* lists; copy"
    ):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("name", [ENCODER, "MODEL_CARD.md"])
def test_one_flipped_bit_is_refused(bundle_copy: Path, name: str) -> None:
    file = bundle_copy / name
    before = sha256_of_file(file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleTamperedError, match=f"{re.escape(name)} is not the file") as caught:
        Bundle.open(bundle_copy)
    assert before in str(caught.value)
    assert sha256_of_file(file) in str(caught.value)


def test_truncated_and_lengthened_files_are_refused(bundle_copy: Path) -> None:
    file = bundle_copy / ENCODER
    data = file.read_bytes()
    for other in (data[:-1], data + b"\0", b""):
        file.write_bytes(other)
        with pytest.raises(BundleTamperedError, match=f"has {len(other)} bytes"):
            Bundle.open(bundle_copy)


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "graphs/.DS_Store", "new/deep/file"])
def test_unknown_files_are_refused(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle_copy / name).write_bytes(b"x")
    with pytest.raises(BundleTamperedError, match=rf"holds {re.escape(name)}, which .* not list"):
        Bundle.open(bundle_copy)


def test_links_are_refused_even_to_the_right_content(bundle_copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    (bundle_copy / ENCODER).rename(outside)
    (bundle_copy / ENCODER).symlink_to(outside)
    with pytest.raises(BundleTamperedError, match=r"graphs/encoder\.onnx is a link, but"):
        Bundle.open(bundle_copy)


def test_linked_folders_are_refused(bundle_copy: Path, tmp_path: Path) -> None:
    shutil.move(bundle_copy / "graphs", tmp_path / "graphs")
    (bundle_copy / "graphs").symlink_to(tmp_path / "graphs", target_is_directory=True)
    with pytest.raises(BundleTamperedError, match="graphs is a link"):
        Bundle.open(bundle_copy)


def test_linked_manifest_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    shutil.move(bundle_copy / "manifest.json", tmp_path / "manifest.json")
    (bundle_copy / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(BundleTamperedError, match=r"manifest\.json is a link"):
        Bundle.open(bundle_copy)


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are POSIX")
def test_special_files_are_refused_without_waiting_for_them(bundle_copy: Path) -> None:
    (bundle_copy / ENCODER).unlink()
    os.mkfifo(bundle_copy / ENCODER)
    with pytest.raises(BundleTamperedError, match="is a special file"):
        Bundle.open(bundle_copy)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_are_a_bundle_error(bundle_copy: Path) -> None:
    (bundle_copy / ENCODER).chmod(0)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(bundle_copy)


def test_failing_disk_is_a_bundle_error(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(bundle_module.hashlib, "sha256", fail)
    with pytest.raises(BundleError, match=r"cannot be read: .*Input/output error"):
        Bundle.open(bundle_copy)


def test_huge_manifest_is_refused(bundle_copy: Path) -> None:
    with (bundle_copy / "manifest.json").open("ab") as stream:
        stream.truncate(17 * 1024 * 1024)
    with pytest.raises(BundleError, match="expected at most"):
        Bundle.open(bundle_copy)


def test_shipped_trust_needs_the_recorded_hash_and_no_signature(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "shipped.json"
    monkeypatch.setattr(shipped_module, "_HASHES", record)
    (bundle_copy / "signature.json").unlink()
    for recorded in (None, {}, {"tiny": "0" * 64}):
        if recorded is not None:
            record.write_text(json.dumps(recorded))
        with pytest.raises(BundleUntrustedError, match="is not signed"):
            Bundle.open(bundle_copy)
    record.write_text(json.dumps({"tiny": sha256_of_file(bundle_copy / "manifest.json")}))
    bundle = Bundle.open(bundle_copy)
    assert (bundle.trust, bundle.signer) == ("shipped", None)


def test_another_bundle_in_the_shipped_ones_place_is_refused(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "shipped.json"
    monkeypatch.setattr(shipped_module, "_HASHES", record)
    monkeypatch.setattr(shipped_module, "shipped_places", lambda: (tmp_path / "no", bundle_copy))
    monkeypatch.delenv("FUNDUS_BUNDLE", raising=False)
    record.write_text(json.dumps({"tiny": sha256_of_file(bundle_copy / "manifest.json")}))
    assert Bundle.open().trust == "shipped"
    record.write_text(json.dumps({"tiny": "0" * 64}))
    for path in (None, bundle_copy):
        with pytest.raises(BundleTamperedError, match="not the one that this package ships"):
            Bundle.open(path)


def test_environment_names_the_default_bundle(
    shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNDUS_BUNDLE", str(shared_bundle))
    assert default_bundle() == shared_bundle
    assert Bundle.open().path == shared_bundle
    for name in ("none", "a" * 300):
        monkeypatch.setenv("FUNDUS_BUNDLE", str(shared_bundle / name))
        with pytest.raises(BundleError, match=r"\$FUNDUS_BUNDLE is .* which is no folder"):
            default_bundle()


def test_explicit_path_wins_over_the_environment(
    shared_bundle: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNDUS_BUNDLE", str(shared_bundle))
    assert Bundle.open(bundle_copy).path == bundle_copy


def test_packaged_bundle_comes_before_the_source_trees(
    shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNDUS_BUNDLE", "")
    package = tmp_path / "checkout" / "runtime" / "fundus_runtime"
    package.mkdir(parents=True)
    monkeypatch.setattr(shipped_module, "_PACKAGE", package)
    inside, beside = package / "bundles" / "edge", tmp_path / "checkout" / "bundles" / "edge"
    with pytest.raises(BundleError, match="no bundle") as caught:
        default_bundle()
    for place in ("none was given", "$FUNDUS_BUNDLE is not set", str(inside), str(beside)):
        assert place in str(caught.value)
    shutil.copytree(shared_bundle, beside)
    assert default_bundle() == beside
    shutil.copytree(shared_bundle, inside)
    assert default_bundle() == inside
