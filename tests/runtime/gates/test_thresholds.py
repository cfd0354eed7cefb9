"""Thresholds in a file, and their fit to a camera."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from faults import blurred, noisy

from fundus_runtime.commands.screen import main
from fundus_runtime.errors import UsageError
from fundus_runtime.gates import GateThresholds, read_thresholds
from fundus_runtime.gates.figures import EyeFigures
from fundus_runtime.gates.refit import GradedEye, refit


def test_thresholds_survive_a_file(tmp_path: Path) -> None:
    bounds = GateThresholds(min_detail=2.5, min_side=3)
    file = tmp_path / "gates.json"
    file.write_text(json.dumps(bounds.to_dict()))
    assert read_thresholds(file) == bounds


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    file = tmp_path / "gates.json"
    file.write_text('{"format": "fundus-edge gate thresholds", "min_level": 40}')
    assert read_thresholds(file) == GateThresholds(min_level=40)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"format": "fundus-edge gate thresholds", "min_sharpness": 1}', "min_sharpness"),
        ('{"min_level": 40}', "format"),
        ('{"format": "fundus-edge gate thresholds", "min_level": "dark"}', "finite number"),
        ('{"format": "fundus-edge gate thresholds", "min_level": NaN}', "finite number"),
        ('{"format": "fundus-edge gate thresholds", "min_level": true}', "finite number"),
        ("[]", "no JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "gates.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_thresholds(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.json"):
        read_thresholds(tmp_path / "nothing.json")


def eyes(grade: str, qualities: list[float]) -> list[GradedEye]:
    figures = EyeFigures(100, 150, 60, 1.7, 0, 0, 1, 15, 0)
    return [
        GradedEye(f"{grade}{i}", grade, replace(figures, quality=quality))
        for i, quality in enumerate(qualities)
    ]


def fitted(all_eyes: list[GradedEye], refuse_good: float = 0.02):
    return refit(all_eyes, refuse_good=refuse_good, start=GateThresholds())


def test_good_photographs_alone_set_the_quality_by_the_share_to_refuse() -> None:
    good = eyes("good", [float(q) for q in range(100)])
    assert fitted(good, 0.05).thresholds.min_quality == 5
    assert fitted(good, 0.05).refused == {"good": 0.05}


def test_rejects_move_the_quality_between_the_grades() -> None:
    good, reject = [5.0 + i / 10 for i in range(50)], [-5.0 + i / 10 for i in range(50)]
    result = fitted(eyes("good", good) + eyes("reject", reject))
    assert -0.1 < result.thresholds.min_quality <= 5
    assert result.refused == {"good": 0, "reject": 1}
    assert result.counts == {"good": 50, "usable": 0, "reject": 50}


def test_no_grade_of_rejects_refuses_more_good_than_asked() -> None:
    good, reject = [float(i) for i in range(100)], [50.0 + i for i in range(100)]
    result = fitted(eyes("good", good) + eyes("reject", reject), 0.03)
    assert result.refused["good"] <= 0.03


def test_photographs_without_a_field_of_view_count_as_refused() -> None:
    good = eyes("good", [float(q) for q in range(40)])
    result = fitted([*good, GradedEye("dark", "reject", None)])
    assert result.refused["reject"] == result.cross_validated["reject"] == 1


def test_too_few_good_photographs_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 20"):
        fitted(eyes("good", [1.0] * 19) + eyes("reject", [0.0] * 50))


def test_both_eyes_of_a_patient_stay_in_one_fold() -> None:
    # as odd and even positions both eyes of the outlier would lie in two folds, and each would
    # set the bound that lets the other pass
    qualities = [10.0] * 60
    pairs = [
        GradedEye(f"good/{i // 2}_{side}.jpg", "good", eye.figures)
        for i, eye in enumerate(eyes("good", qualities))
        for side in [("left", "RIGHT")[i % 2]]
    ]
    outlier = eyes("good", [2.0])[0].figures
    pairs[20:22] = [replace(eye, figures=outlier) for eye in pairs[20:22]]
    result = fitted(pairs, 0.0)
    assert result.refused["good"] == 0
    assert result.cross_validated["good"] == pytest.approx(2 / 60)


def test_eyes_of_a_patient_belong_together_across_grades() -> None:
    left, right = (
        GradedEye("good/7_left.jpg", "good", None),
        GradedEye("reject/7_right.png", "reject", None),
    )
    assert left.patient == right.patient == "7"
    assert GradedEye("good/right.jpg", "good", None).patient == "right"


def test_good_photographs_of_too_few_patients_are_refused() -> None:
    figures = eyes("good", [1.0])[0].figures
    names = [f"{'good' * (i // 2)}/{i % 4}_left.jpg" for i in range(24)]
    with pytest.raises(UsageError, match="of 4 patients"):
        fitted([GradedEye(name, "good", figures) for name in names])


def test_side_and_copies_keep_their_thresholds() -> None:
    start = GateThresholds(min_side=4, min_same=0.9)
    good = eyes("good", [float(q) for q in range(40)])
    bounds = refit(good, refuse_good=0.02, start=start).thresholds
    assert (bounds.min_side, bounds.min_same) == (4, 0.9)


@pytest.fixture(scope="module")
def camera(eye, field_of, tmp_path_factory) -> Path:
    """Photographs of one camera, sorted."""
    folder = tmp_path_factory.mktemp("camera")
    small = cv2.resize(eye, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    field = field_of(small)
    rng = np.random.default_rng(0)
    for grade, count in (("good", 24), ("reject", 6)):
        (folder / grade).mkdir()
        for i in range(count):
            frame = noisy(small, field, float(rng.uniform(0, 3)))
            if grade == "reject":
                frame = blurred(frame, field, 10 + i)
            cv2.imwrite(str(folder / grade / f"{i}.png"), frame[:, :, ::-1])
    (folder / "good" / "note.png").write_text("no photograph")
    return folder


def test_the_command_fits_a_camera_and_says_what_it_refuses(camera, tmp_path, capsys) -> None:
    out = tmp_path / "gates.json"
    assert main(["calibrate-gates", str(camera), "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["photographs"] == {"good": 24, "usable": 0, "reject": 6}
    assert summary["unreadable"] == 1
    assert summary["refused"] == {"good": 0, "reject": 1}
    bounds = read_thresholds(out)
    assert bounds.to_dict() == summary["thresholds"]
    assert bounds != GateThresholds()


def test_a_folder_without_grades_holds_good_photographs(camera, tmp_path, capsys) -> None:
    out = tmp_path / "gates.json"
    assert main(["calibrate-gates", str(camera / "good"), "--out", str(out)]) == 0
    assert "good: 24 photographs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["nowhere"], 2),
        (["."], 2),
        ([".", "--refuse-good", "80"], 2),
        ([".", "--refuse-good", "0"], 2),
    ],
)
def test_the_command_refuses_what_it_cannot_fit(
    words, status, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        found = main(["calibrate-gates", *words, "--out", "gates.json"])
    except SystemExit as error:
        found = error.code
    assert found == status
    assert not (tmp_path / "gates.json").exists()


def test_the_command_does_not_overwrite(camera, tmp_path, capsys) -> None:
    out = tmp_path / "gates.json"
    out.write_text("mine")
    assert main(["calibrate-gates", str(camera), "--out", str(out)]) == 1
    assert out.read_text() == "mine"
