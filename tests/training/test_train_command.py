"""`fundus-train fit` as a user meets it: exit status, messages, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fundus_training.checkpoint import load_checkpoint
from fundus_training.commands import train

TINY = {"model": {"trunk": "mobilenet_v2"}, "train": {"batch_size": 4}}


@pytest.fixture(scope="module")
def run_of(
    tmp_path_factory: pytest.TempPathFactory,
    make_odir: Callable[..., Path],
    row_of: Callable[..., Any],
) -> Callable[..., int]:
    """Run `fundus-train fit` on ten rendered patients with a model as small as can be."""
    folder = tmp_path_factory.mktemp("command")
    rows = [row_of(k, letters="NDG"[k % 3]) for k in range(10)]
    make_odir(folder / "odir" / "full.csv", folder / "odir" / "images", rows)
    config = folder / "config.json"
    config.write_text(json.dumps(TINY), encoding="utf-8")
    common = ["--preset", "tiny", "--config", str(config), "--cache-dir", str(folder / "cache")]

    def run(*arguments: object, data: Path = folder / "odir") -> int:
        given = ["fit", "--data", str(data), *common, "--epochs", "1", *map(str, arguments)]
        return train.main(given)

    return run


def test_a_fit_says_what_it_made_and_what_comes_next(
    run_of: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_of("--out", tmp_path / "run") == 0
    answer = capsys.readouterr()
    assert f"{tmp_path / 'run' / 'best.safetensors'} (" in answer.out
    assert "epoch 1 of 1" in answer.out
    assert "next: fundus-train calibrate --checkpoint" in answer.out
    assert load_checkpoint(tmp_path / "run" / "best.safetensors").model_config.image_size == 64


def test_a_folder_with_a_run_is_refused_unless_told(
    run_of: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run_of("--out", out) == 0
    before = (out / "last.safetensors").read_bytes()
    assert run_of("--out", out) == 2
    assert "holds a run already; go on with --resume, replace it with" in capsys.readouterr().err
    assert (out / "last.safetensors").read_bytes() == before
    assert run_of("--out", out, "--resume") == 0
    assert (out / "last.safetensors").read_bytes() == before
    assert run_of("--out", out, "--force") == 0


def test_no_regularisation_reaches_the_run(run_of: Callable[..., int], tmp_path: Path) -> None:
    assert run_of("--out", tmp_path / "run", "--no-regularisation", "--limit", 8) == 0
    checkpoint = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert checkpoint.model_config.dropout == 0.0
    assert checkpoint.training["config"]["train"]["ema_decay"] == 0.0
    assert set(checkpoint.training["config"]["augment"].values()) == {0.0}
    assert len(checkpoint.split.ids("all")) == 8


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit"],
        ["fit", "--data", "somewhere"],
        ["fit", "--out", "somewhere"],
    ],
)
def test_missing_options_are_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(arguments) == 2
    assert "fit needs --data and --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fti"],
        ["fit", "--preset", "huge"],
        ["fit", "--epochs", "0"],
        ["fit", "--limit", "-3"],
        ["fit", "--limit", "few"],
        ["fit", "--resume", "--force"],
    ],
)
def test_what_the_parser_refuses_is_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 2


def test_a_device_that_is_not_there_is_wrong_usage(
    run_of: Callable[..., int], tmp_path: Path
) -> None:
    assert run_of("--out", tmp_path / "run", "--device", "tpu9") == 2


def test_an_out_that_is_a_file_is_wrong_usage(run_of: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    assert run_of("--out", tmp_path / "run") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "is not there, so nothing can be resumed"),
        (["--init-weights", "none.safetensors"], "none.safetensors do not exist"),
        (["--limit", "1"], "leaves no patient for val"),
        (["--classes", "A,B"], "has the classes N D G C A H M O, but A B were asked for"),
        (["--config", "none.json"], "none.json cannot be read as JSON"),
    ],
)
def test_a_failure_ends_with_its_reason_and_leaves_nothing(
    run_of: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert run_of("--out", tmp_path / "run", *arguments) == 1
    answer = capsys.readouterr()
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_not_there_is_said(
    run_of: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_of("--out", tmp_path / "run", data=tmp_path / "none") == 1
    assert "none does not exist; give a data set's folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["fit", "--help"], ["fit"], ["calibrate", "--help"]]
)
def test_what_needs_no_model_does_not_import_torch(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from fundus_training.commands.train import main\n"
        "try:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as stopped:\n    code = stopped.code\n"
        "heavy = {'torch', 'cv2', 'sklearn', 'tensorboard', 'onnx'} & set(sys.modules)\n"
        "print(code, sorted(heavy), file=sys.stderr)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    expected = 2 if arguments == ["fit"] else 0
    assert answer.stderr.splitlines()[-1] == f"{expected} []"


def test_two_epochs_on_real_photographs_make_a_checkpoint(
    fundus_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--preset", "tiny", "--data", fundus_data / "odir", "--limit", 64]
    arguments += ["--epochs", 2, "--out", tmp_path / "run", "--cache-dir", tmp_path / "cache"]
    assert train.main([str(argument) for argument in arguments]) == 0
    assert "epoch" in capsys.readouterr().out
    checkpoint = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert len(checkpoint.split.ids("all")) == 64
    assert checkpoint.training["epochs_done"] == 2
