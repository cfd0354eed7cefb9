from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fundus_runtime.backends.open import BACKENDS
from fundus_runtime.backends.settings import PROVIDERS
from fundus_runtime.commands import arguments
from fundus_runtime.commands.arguments import MAX_MEGAPIXELS
from fundus_runtime.commands.screen import build_parser, main
from fundus_runtime.photograph import DEFAULT_MAX_MEGAPIXELS
from fundus_runtime.version import __version__


def test_pair_is_printed_as_a_table(pair, shared_bundle, capsys) -> None:
    assert main([*map(str, pair), "--bundle", str(shared_bundle)]) == 0
    printed = capsys.readouterr()
    assert "FINDINGS  ->  refer" in printed.out
    assert "findings: D diabetic retinopathy" in printed.out
    assert "latency" in printed.out
    assert "Not a medical device" in printed.out
    assert "tiny 1.2.3 (signed, signer " in printed.out


def test_json_is_all_that_goes_to_standard_output(pair, shared_bundle, capsys) -> None:
    assert main([*map(str, pair), "--json", "--bundle", str(shared_bundle)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values["probabilities"]) == list("NDGCAHMO")
    assert values["outcome"] == "findings"
    assert values["time_ms"]["decode"] > 0


@pytest.mark.parametrize("eye", ["left", "right"])
def test_one_eye_says_that_the_other_is_absent(pair, shared_bundle, capsys, eye) -> None:
    words = [f"--{eye}-only", str(pair[0]), "--bundle", str(shared_bundle)]
    other = "right" if eye == "left" else "left"
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["outcome"] == "ungradable"
    assert values["eyes"][other]["status"] == "absent"
    assert values["eyes"][eye]["status"] == "ok"
    assert values["probabilities"]["D"] > 0.6
    assert main(words) == 0
    assert f"no photograph of the {other} eye" in capsys.readouterr().out


def test_ungradable_exam_is_a_result_without_probabilities(
    tmp_path, write, shared_bundle, capsys
) -> None:
    black = str(write(tmp_path / "black.png", np.zeros((200, 200, 3), np.uint8)))
    assert main([black, black, "--bundle", str(shared_bundle), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["outcome"], values["refer"], values["probabilities"]) == ("ungradable", True, {})
    assert main([black, black, "--bundle", str(shared_bundle)]) == 0
    table = capsys.readouterr().out
    assert table.startswith("UNGRADABLE  ->  refer")
    assert "normal" not in table.lower()


def test_refused_photograph_fails_with_one_line(pair, shared_bundle, tmp_path, capsys) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    words = [str(tmp_path / "empty.jpg"), str(pair[1]), "--bundle", str(shared_bundle)]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "fundus-screen: error:" in printed.err
    assert "empty.jpg is empty" in printed.err
    assert "Traceback" not in printed.err


def test_limit_of_pixels_is_an_option(pair, shared_bundle, capsys) -> None:
    words = [*map(str, pair), "--bundle", str(shared_bundle), "--max-megapixels", "0.01"]
    assert main(words) == 1
    assert "the limit is 0.01" in capsys.readouterr().err
    assert build_parser().parse_args([]).max_megapixels == DEFAULT_MAX_MEGAPIXELS == MAX_MEGAPIXELS


def test_operating_point_and_threads_are_options(pair, shared_bundle, capsys) -> None:
    words = [*map(str, pair), "--bundle", str(shared_bundle), "--json", "--threads", "1"]
    assert main([*words, "--operating-point", "keen"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["operating_point"] == "keen"
    assert values["engine"]["threads"] == 1
    assert main([*words, "--operating-point", "none"]) == 2
    assert "it has even, keen" in capsys.readouterr().err


def test_altered_bundle_fails(pair, bundle_copy, capsys) -> None:
    (bundle_copy / "MODEL_CARD.md").write_text("changed")
    assert main([*map(str, pair), "--bundle", str(bundle_copy)]) == 1
    assert "MODEL_CARD.md is not the file" in capsys.readouterr().err


def test_environment_names_the_bundle(pair, shared_bundle, monkeypatch, capsys) -> None:
    monkeypatch.setenv("FUNDUS_BUNDLE", str(shared_bundle))
    assert main([*map(str, pair), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"]["name"] == "tiny"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["one.jpg"],
        ["1.jpg", "2.jpg", "3.jpg"],
        ["1.jpg", "2.jpg", "--left-only", "3.jpg"],
        ["--left-only", "1.jpg", "--right-only", "2.jpg"],
        ["--pairs", "folder"],
        ["1.jpg", "2.jpg", "--csv", "out.csv"],
        ["1.jpg", "2.jpg", "--one-eye"],
        ["--pairs", "folder", "--csv", "o.csv", "--report", "r.html"],
        ["1.jpg", "2.jpg", "--threads", "0"],
        ["1.jpg", "2.jpg", "--max-megapixels", "nan"],
        ["1.jpg", "2.jpg", "--surprise"],
        ["", "2.jpg"],
        ["--left-only", ""],
        ["--pairs", "", "--csv", "out.csv"],
        ["--pairs", "folder", "--csv", ""],
        ["1.jpg", "2.jpg", "--bundle", ""],
        ["demo"],
        ["demo", "--out", ""],
        ["doctor", "more"],
    ],
)
def test_wrong_usage_exits_with_two(words, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["doctor"], ["demo"]])
def test_version_and_help_are_everywhere(words, capsys) -> None:
    for option, text in (("--version", __version__), ("--help", "usage:")):
        with pytest.raises(SystemExit) as caught:
            main([*words, option])
        assert caught.value.code == 0
        assert text in capsys.readouterr().out


def test_backends_and_providers_are_those_of_the_library(pair, shared_bundle, capsys) -> None:
    assert (arguments.BACKENDS, arguments.PROVIDERS) == (BACKENDS, PROVIDERS)
    words = [*map(str, pair), "--bundle", str(shared_bundle)]
    assert main([*words, "--backend", "onnxruntime", "--provider", "cpu"]) == 0
    assert main([*words, "--backend", "tensorrt", "--provider", "cuda"]) == 2
    assert "takes no provider" in capsys.readouterr().err


def test_help_loads_neither_engine_nor_pixels() -> None:
    code = (
        "import sys\n"
        "from fundus_runtime.commands.screen import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'numpy', 'PIL', 'simplejpeg', 'onnxruntime', 'onnx', 'torch', 'jinja2', 'tqdm'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_library_loads_no_engine_until_one_is_opened() -> None:
    code = (
        "import sys\n"
        "import fundus_runtime.screener, fundus_runtime.report, fundus_runtime.doctor\n"
        "import fundus_runtime.backends.onnxruntime, fundus_runtime.commands.pairs\n"
        "heavy = {'onnxruntime', 'onnx', 'torch', 'tensorrt', 'jinja2'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_pipe_is_no_traceback(pair, shared_bundle) -> None:
    command = [sys.executable, "-m", "fundus_runtime.commands.screen", *map(str, pair)]
    process = subprocess.Popen(
        [*command, "--bundle", str(shared_bundle)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 1
    assert b"Traceback" not in errors
    assert b"Exception ignored" not in errors
    process.stderr.close()


def test_report_is_written_and_not_overwritten(pair, shared_bundle, tmp_path, capsys) -> None:
    report = tmp_path / "report.html"
    words = [*map(str, pair), "--bundle", str(shared_bundle), "--report", str(report)]
    assert main(words) == 0
    first = report.read_text("utf-8")
    assert "<h1>Findings</h1>" in first
    assert main(words) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "left.png",
        "report.html",
        "right.png",
    ]


def test_demo_screens_its_photograph_and_says_what_it_is(
    shared_bundle, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "new" / "demo"
    for _ in range(2):
        assert main(["demo", "--out", str(out), "--bundle", str(shared_bundle)]) == 0
    printed = capsys.readouterr()
    values = json.loads((out / "result.json").read_text("utf-8"))
    page = (out / "report.html").read_text("utf-8")
    for text in (printed.out, values["warnings"][0], page):
        assert "mirror image" in text
        assert "Mikael Häggström" in text
    assert "latency" in printed.out
    assert values["eyes"]["left"]["status"] == values["eyes"]["right"]["status"] == "ok"
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "result.json"]


def test_demo_refuses_an_impossible_folder(shared_bundle, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "demo"
    assert main(["demo", "--out", str(out), "--bundle", str(shared_bundle)]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_terminal_without_unicode_gets_escapes(shared_bundle, tmp_path) -> None:
    words = ["demo", "--out", str(tmp_path / "demo"), "--bundle", str(shared_bundle)]
    command = [sys.executable, "-m", "fundus_runtime.commands.screen", *words]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert r"Mikael H\xe4ggstr\xf6m" in done.stdout


def test_json_is_ascii_whatever_the_file_names_are(pair, shared_bundle, tmp_path, capsys) -> None:
    pair[0].rename(tmp_path / "1_left.png")
    out = os.fsdecode(os.fsencode(tmp_path) + b"/\xff \xc3\xbc.csv")
    words = ["--pairs", str(tmp_path), "--csv", out, "--json"]
    assert main([*words, "--bundle", str(shared_bundle)]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["csv"] == out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_full_standard_output_is_one_line_and_no_traceback(shared_bundle) -> None:
    command = [sys.executable, "-m", "fundus_runtime.commands.screen", "doctor"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--bundle", str(shared_bundle)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "standard output cannot be written: No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_demo_that_cannot_make_its_page_writes_nothing(
    shared_bundle, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["demo", "--out", str(tmp_path / "demo"), "--bundle", str(shared_bundle)]) == 1
    assert "fundus-edge[demo]" in capsys.readouterr().err
    assert list((tmp_path / "demo").iterdir()) == []
