from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineError, ImageError, UsageError
from fundus_runtime.labels import ClassList
from fundus_runtime.preparer import EyePreparer
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import Screener
from fundus_runtime.stages import STAGES
from fundus_runtime.table import format_result
from fundus_runtime.version import __version__


@pytest.fixture(scope="module")
def screener(shared_bundle):
    with Screener.open(shared_bundle, threads=1) as opened:
        yield opened


def without_times(result: ExamResult) -> dict:
    values = result.to_dict()
    del values["time_ms"]
    return values


@pytest.mark.parametrize(
    ("left", "right", "outcome", "findings"),
    [
        ("D", "D", "findings", ("D",)),
        ("N", "N", "normal", ()),
        ("uncertain", "uncertain", "uncertain", ()),
    ],
)
def test_outcome_follows_from_both_eyes(screener, draw, left, right, outcome, findings) -> None:
    result = screener.screen(draw(left, seed=1), draw(right, seed=2), color="rgb")
    assert (result.outcome, result.findings) == (outcome, findings)
    assert result.refer == (outcome != "normal")
    assert result.left.status == result.right.status == "ok"
    assert not result.warnings


def test_both_eyes_count(screener, draw) -> None:
    result = screener.screen(draw("D", seed=1), draw("N", seed=2), color="rgb")
    assert result.left.probabilities["D"] > 0.9
    assert result.right.probabilities["D"] < 0.1
    assert 0.2 < result.probabilities["D"] < 0.8


def test_a_ready_pair_is_prepared_on_two_threads_and_graded_alike(
    screener, shared_bundle, draw, monkeypatch
) -> None:
    frames = {"left": draw("D", seed=1), "right": draw("N", seed=2), "color": "rgb"}
    expected = without_times(screener.screen(**frames))
    places: dict[str, int] = {}
    prepare = EyePreparer.frame

    def noted(self, eye, *args, **options):
        places[eye] = threading.get_ident()
        return prepare(self, eye, *args, **options)

    with Screener.open(shared_bundle, threads=2) as two:
        monkeypatch.setattr(EyePreparer, "frame", noted)
        result = without_times(two.screen(**frames))
    assert len({*places.values(), threading.get_ident()}) == 3
    assert result["engine"].pop("threads") == 2
    assert expected["engine"].pop("threads") == 1
    assert result == expected


@pytest.mark.parametrize(
    "case", ["left absent", "right absent", "left black", "right black", "same"]
)
def test_on_two_threads_a_pair_that_is_none_is_graded_as_on_one(
    screener, shared_bundle, draw, case
) -> None:
    frames: dict[str, Any] = {"left": draw("D", seed=1), "right": draw("N", seed=2)}
    eye, _, what = case.partition(" ")
    if case == "same":
        frames["right"] = frames["left"].copy()
    else:
        frames[eye] = None if what == "absent" else np.zeros((200, 200, 3), np.uint8)
    expected = without_times(screener.screen(**frames, color="rgb"))
    with Screener.open(shared_bundle, threads=2) as two:
        two.screen(draw("N", seed=3), draw("N", seed=4), color="rgb")  # fills the memory
        result = without_times(two.screen(**frames, color="rgb"))
    del result["engine"]["threads"], expected["engine"]["threads"]
    assert result == expected
    assert result["outcome"] == "ungradable"


@pytest.mark.parametrize("absent", ["left", "right"])
def test_one_eye_alone_is_screened_but_never_normal(screener, draw, absent) -> None:
    frames = {"left": draw("N"), "right": draw("N"), absent: None}
    result = screener.screen(**frames, color="rgb")
    assert result.outcome == "ungradable"
    assert result.refer
    assert result.eye(absent).status == "absent"
    assert result.eye(absent).probabilities == {}
    assert f"no photograph of the {absent} eye" in result.eye(absent).hint
    other = result.right if absent == "left" else result.left
    # alone, the tiny model's patient is its one eye
    assert result.probabilities == pytest.approx(dict(other.probabilities), abs=1e-6)
    assert result.decisions["N"].probability > result.decisions["N"].threshold
    assert not result.decisions["N"].present


def test_findings_of_one_eye_alone_are_named(screener, draw) -> None:
    result = screener.screen(draw("D"), None, color="rgb")
    assert (result.outcome, result.findings) == ("ungradable", ("D",))


def test_ungradable_eye_is_treated_as_absent_and_says_why(screener, draw) -> None:
    black = np.zeros((200, 200, 3), np.uint8)
    result = screener.screen(draw("N"), black, color="rgb")
    assert result.outcome == "ungradable"
    assert result.right.status == "ungradable"
    assert result.right.reason
    assert result.right.hint
    assert result.right.probabilities == {}
    alone = screener.screen(draw("N"), None, color="rgb")
    assert result.probabilities == alone.probabilities


def test_two_ungradable_eyes_have_no_probabilities(screener) -> None:
    black = np.zeros((200, 200, 3), np.uint8)
    result = screener.screen(black, black, color="rgb")
    assert result.outcome == "ungradable"
    assert result.refer
    assert result.probabilities == {}
    assert result.decisions == {}
    assert result.time_ms["encode"] is None
    assert json.loads(json.dumps(result.to_dict()))["probabilities"] == {}


def test_same_photograph_for_both_eyes_is_refused_for_the_right_one(screener, draw) -> None:
    result = screener.screen(draw("N"), draw("N"), color="rgb")
    assert (result.outcome, result.refer) == ("ungradable", True)
    assert (result.left.status, result.right.status) == ("ok", "ungradable")
    assert result.right.reason == "same_photograph"
    assert "photograph the right eye" in result.right.hint
    assert result.right.probabilities == {}
    assert not result.decisions["N"].present


def test_cut_off_field_of_view_is_pointed_out(screener, draw) -> None:
    result = screener.screen(draw("D")[100:], draw("D", seed=2), color="rgb")
    assert result.left.status == "ok"
    assert any("left: only 66 % of the field of view" in warning for warning in result.warnings)
    assert not screener.screen(draw("D")[40:], draw("D", seed=2), color="rgb").warnings


def test_result_holds_versions_hashes_and_times(screener, draw, shared_bundle) -> None:
    bundle = Bundle.open(shared_bundle)
    values = screener.screen(draw("D", seed=1), draw("D", seed=2), color="rgb").to_dict()
    assert values["bundle"] == {
        "name": "tiny",
        "version": "1.2.3",
        "sha256": bundle.sha256,
        "trust": "signed",
        "signer": bundle.signer,
        "encoder_sha256": bundle.manifest.files["graphs/encoder.onnx"].sha256,
        "head_sha256": bundle.manifest.files["graphs/head.onnx"].sha256,
        "preprocess_sha256": bundle.manifest.spec.sha256,
    }
    assert values["engine"]["provider"] == "CPUExecutionProvider"
    assert values["engine"]["dialect"] == "fp32"
    assert values["degraded"] is False
    assert values["not_a_medical_device"] is True
    assert values["package_version"] == __version__
    assert values["schema_version"] == 2
    assert list(values["probabilities"]) == list("NDGCAHMO")
    decision = values["decisions"]["D"]
    assert decision["present"] is True
    assert decision["threshold"] == values["thresholds"]["D"] == 0.6
    times = values["time_ms"]
    assert list(times) == list(STAGES)
    ran = {name: value for name, value in times.items() if value is not None}
    assert set(STAGES) - set(ran) == {"decode", "encode_left", "encode_right", "second_eye_wait"}
    assert all(value > 0 for value in ran.values())
    assert ran.pop("total") == pytest.approx(sum(ran.values()), abs=0.01)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_files_are_screened_like_frames(screener, draw, pair) -> None:
    from_files = screener.screen_files(*pair)
    from_frames = screener.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
    assert from_files.time_ms["decode"] > 0
    assert without_times(from_files) == without_times(from_frames)


def test_eyes_may_be_prepared_apart(screener, draw) -> None:
    left, right = (
        screener.prepare("left", draw("D"), color="rgb"),
        screener.prepare("right", draw("N"), color="rgb"),
    )
    together = screener.screen(draw("D"), draw("N"), color="rgb")
    assert without_times(screener.screen_prepared(left, right)) == without_times(together)
    with pytest.raises(UsageError, match="got right, left"):
        screener.screen_prepared(right, left)


def test_eye_that_was_prepared_for_another_bundle_is_refused(screener, draw) -> None:
    other = replace(screener.manifest.spec, crop_permille=900)
    left, right = (
        EyePreparer(other, thresholds=None).frame("left", draw("N"), color="rgb"),
        screener.prepare("right", draw("N"), color="rgb"),
    )
    with pytest.raises(UsageError, match="the left eye was prepared by preprocessing") as caught:
        screener.screen_prepared(left, right)
    for spec in (other, screener.manifest.spec):
        assert spec.sha256[:12] in str(caught.value)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((200, 200), np.uint8),
        np.zeros((200, 200, 4), np.uint8),
        np.zeros((200, 200, 3), np.float32),
        np.zeros((10, 10, 3), np.uint8),
        "left.jpg",
    ],
)
def test_arrays_that_are_no_frames_are_refused(screener, draw, frame) -> None:
    with pytest.raises(ImageError):
        screener.screen(frame, draw("D"), color="rgb")


def test_operating_point_may_be_named(shared_bundle, draw) -> None:
    with Screener.open(shared_bundle, operating_point="keen") as keen:
        result = keen.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
    assert result.operating_point == "keen"
    assert set(result.findings) > {"D"}
    with pytest.raises(UsageError, match="it has even, keen"):
        Screener.open(shared_bundle, operating_point="none")


def test_other_class_lists_work(make_bundle, draw, tmp_path: Path) -> None:
    classes = ClassList(("D", "other"), ("diabetic", "something else"), None)
    with Screener.open(make_bundle(tmp_path / "b", classes=classes)) as opened:
        diseased = opened.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
        healthy = opened.screen(draw("N", seed=1), draw("N", seed=2), color="rgb")
    assert (diseased.outcome, diseased.findings) == ("findings", ("D",))
    assert healthy.outcome == "uncertain"


def test_the_encoder_is_told_which_eye_it_sees(make_bundle, graphs, draw, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "sided", encoder=graphs["encoder"](turns_right_eyes=True))
    with Screener.open(folder, threads=1) as opened:
        both = opened.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
        right_alone = opened.screen(None, draw("D", seed=2), color="rgb")
    assert both.left.probabilities["D"] > 0.9
    assert both.right.probabilities["D"] < 0.1
    assert right_alone.right.probabilities == pytest.approx(both.right.probabilities, abs=1e-6)


def test_a_model_that_says_nothing_of_an_eye_alone_is_screened_all_the_same(
    make_bundle, graphs, draw, tmp_path: Path
) -> None:
    encoder = graphs["encoder"](eye_logits=False)
    with Screener.open(make_bundle(tmp_path / "silent", encoder=encoder), threads=1) as opened:
        result = opened.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
    assert (result.outcome, result.findings) == ("findings", ("D",))
    assert result.left.probabilities == result.right.probabilities == {}
    assert "D" in format_result(result)


def test_nan_from_the_engine_is_an_error_not_a_result(make_bundle, graphs, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", head=graphs["head"](answers="nan"))
    with pytest.raises(EngineError, match="NaN or infinity in 'logits'"):
        Screener.open(bundle)


def test_closed_screener_refuses_and_closing_twice_is_allowed(shared_bundle, draw) -> None:
    opened = Screener.open(shared_bundle)
    opened.close()
    opened.close()
    with pytest.raises(EngineError, match="closed"):
        opened.screen(draw("D"), draw("D"), color="rgb")


def test_unknown_backend_is_named(shared_bundle) -> None:
    with pytest.raises(UsageError, match="no backend 'abacus'; there is onnxruntime"):
        Screener.open(shared_bundle, backend="abacus")


def test_threads_may_share_a_screener(screener, draw) -> None:
    frames = {says: (draw(says, seed=1), draw(says, seed=2)) for says in ("D", "N")}
    expected = {
        says: without_times(screener.screen(*pair, color="rgb")) for says, pair in frames.items()
    }
    differences = []

    def work(says: str) -> None:
        for _ in range(20):
            if without_times(screener.screen(*frames[says], color="rgb")) != expected[says]:
                differences.append(says)

    workers = [threading.Thread(target=work, args=(says,)) for says in ("D", "N", "D", "N")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not differences


def test_graph_bytes_are_not_read_again_after_verification(bundle_copy, draw) -> None:
    bundle = Bundle.open(bundle_copy)
    (bundle_copy / "graphs/encoder.onnx").write_bytes(b"changed after it was verified")
    with Screener.open(bundle) as opened:
        assert opened.screen(draw("D"), draw("D", seed=2), color="rgb").outcome == "findings"


def test_per_eye_outputs_that_were_never_taught_are_not_shown(
    make_bundle, draw, tmp_path: Path
) -> None:
    def without_eyes(manifest: dict[str, Any]) -> None:
        manifest["calibration"]["eye"] = None

    bundle = make_bundle(tmp_path / "bundle", change=without_eyes)
    with Screener.open(bundle) as screener:
        result = screener.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
    assert result.outcome == "findings"
    assert result.left.probabilities == result.right.probabilities == {}
    assert format_result(result)
