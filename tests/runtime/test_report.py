from __future__ import annotations

import base64
import builtins
import re
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fundus_runtime.errors import ResultError
from fundus_runtime.gates import GATES, read_thresholds
from fundus_runtime.gates.gate_list import LIKENESS_MEANING
from fundus_runtime.report import render_report, write_report
from fundus_runtime.result import ExamResult, EyeResult
from fundus_runtime.screener import Screener
from fundus_runtime.table import format_result


@pytest.fixture(scope="module")
def screener(shared_bundle):
    with Screener.open(shared_bundle) as opened:
        yield opened


def render(result: ExamResult) -> str:
    return render_report(result, None, None)


def body(page: str) -> str:
    return page.split("</style>")[1]


def test_page_holds_everything_and_refers_to_nothing_outside(screener, draw) -> None:
    left, right = draw("D", seed=1), draw("D", seed=2)
    result = screener.screen(left, right, color="rgb")
    page = render_report(result, left, right)
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "http" not in body(page)
    assert page.count("data:image/jpeg;base64,") == 2
    assert page.count("data:image/png;base64,") == 2
    for text in (
        "For research only. Not a medical device.",
        "REFER",
        "diabetic retinopathy",
        result.bundle.sha256,
        result.bundle.encoder_sha256,
        result.bundle.preprocess_sha256,
        result.package_version,
        "signed with a key that this machine trusts",
        result.bundle.signer,
        "CPUExecutionProvider",
        "by hand",
        "Right eye (OD)",
        "Left eye (OS)",
    ):
        assert text in page
    assert "DO NOT REFER" not in page


def test_pictures_are_the_photograph_and_what_was_made_of_it(screener, draw) -> None:
    left, right = draw("D", seed=1, width=1500, height=1000), draw("N", seed=2)
    result = screener.screen(left, right, color="rgb")
    page = render_report(result, left, right)

    def pictures(kind: str) -> list[np.ndarray]:
        found = re.findall(rf"data:image/{kind};base64,([A-Za-z0-9+/=]+)", page)
        data = [np.frombuffer(base64.b64decode(one), np.uint8) for one in found]
        return [cv2.imdecode(one, cv2.IMREAD_COLOR)[:, :, ::-1] for one in data]

    shown_right, shown_left = pictures("jpeg")
    assert shown_left.shape == (480, 720, 3)
    assert shown_right.shape == right.shape
    made_right, made_left = pictures("png")
    assert np.array_equal(made_left, result.left.picture.visible())
    assert np.array_equal(made_right, result.right.picture.visible())


def test_bars_and_marks_are_where_the_numbers_say(screener, draw) -> None:
    result = screener.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
    page = render_report(result, None, None)
    widths = [float(one) for one in re.findall(r'class="fill" style="width: ([0-9.]+)%', page)]
    marks = [float(one) for one in re.findall(r'class="threshold" style="left: ([0-9.]+)%', page)]
    assert widths == pytest.approx([100 * p for p in result.probabilities.values()], abs=0.01)
    assert marks == [60.0] * 8


@pytest.mark.parametrize("outcome", ["ungradable", "findings", "uncertain", "normal"])
def test_only_normal_looks_and_reads_normal(screener, draw, outcome) -> None:
    black = np.zeros((200, 200, 3), np.uint8)
    frames = {
        "ungradable": (draw("N"), black),
        "findings": (draw("D"), draw("D", seed=2)),
        "uncertain": (draw("uncertain"), draw("uncertain", seed=2)),
        "normal": (draw("N"), draw("N", seed=2)),
    }[outcome]
    result = screener.screen(*frames, color="rgb")
    page = body(render_report(result, *frames))
    table = format_result(result)
    assert result.outcome == outcome
    assert f'class="outcome {outcome}"' in page
    normal = outcome == "normal"
    assert ("DO NOT REFER" in page) == normal
    assert ('class="outcome normal"' in page) == normal
    assert ("<h1>Normal</h1>" in page) == normal
    assert ("do not refer" in table) == normal
    assert table.startswith(f"{outcome.upper()}  ->  {'do not ' if normal else ''}refer")
    # of the four, N is above its threshold in the two that show two normal eyes, or one
    row = next(line for line in table.splitlines() if line.startswith("N  "))
    assert ("*" in row) == normal
    assert ('class="present normal-class"' in page) == normal
    assert ("cannot make the exam normal" in table) == (outcome == "ungradable")


def test_absent_and_ungradable_eyes_say_why(screener, draw) -> None:
    result = screener.screen(draw("N"), None, color="rgb")
    page = body(render_report(result, draw("N"), None))
    assert "No photograph" in page
    assert "Only one eye could be screened" in page
    assert "no photograph of the right eye" in page
    black = np.zeros((200, 200, 3), np.uint8)
    both = screener.screen(black, black, color="rgb")
    page = body(render_report(both, black, black))
    assert "No eye could be screened" in page
    assert page.count(both.left.reason) == 2


def test_gates_show_figures_and_thresholds_and_which_one_refused(
    shared_bundle, lenient_gates, draw
) -> None:
    strict = replace(read_thresholds(lenient_gates), min_visible_percent=99.0)
    with Screener.open(shared_bundle, gates=strict) as opened:
        result = opened.screen(draw("D"), draw("D", seed=2)[40:], color="rgb")
    page = render_report(result, draw("D"), draw("D", seed=2)[40:])
    assert page.count('<ul class="gates"') == 2
    refused = re.findall(
        r'<li class="failed">([^<]+) <b>([\d.]+) %</b> &ge; ([\d.]+): refused', page
    )
    figure = result.right.quality.figures[0]
    assert refused == [("visible", f"{figure.value:g}", "99")]
    assert "field_of_view_cut" in page


def test_every_figure_of_the_gates_is_explained_once(shared_bundle, lenient_gates, draw) -> None:
    with Screener.open(shared_bundle, gates=read_thresholds(lenient_gates)) as opened:
        result = opened.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
    page = render_report(result, None, None)
    assert [gate.meaning for gate in GATES] == [f.meaning for f in result.left.quality.figures]
    for meaning in (*(gate.meaning for gate in GATES), LIKENESS_MEANING):
        assert page.count(f"<dd>{meaning}</dd>") == 1
    assert len({gate.meaning for gate in GATES}) == len(GATES)


@pytest.mark.parametrize("seeds", [(1, 2), (1, 1)])
def test_how_alike_both_photographs_are_is_shown(shared_bundle, lenient_gates, draw, seeds) -> None:
    with Screener.open(shared_bundle, gates=read_thresholds(lenient_gates)) as opened:
        result = opened.screen(*(draw("D", seed=seed) for seed in seeds), color="rgb")
    shown = re.findall(r">likeness <b>(-?[\d.]+)</b> &le; ([\d.]+)(: refused)?<", render(result))
    like = result.likeness
    assert [(float(value), float(bound), bool(word)) for value, bound, word in shown] == [
        (like.rounded(3), like.threshold, seeds == (1, 1))
    ]


def test_no_figure_that_refuses_reads_as_its_threshold(shared_bundle, lenient_gates, draw) -> None:
    with Screener.open(shared_bundle, gates=read_thresholds(lenient_gates)) as opened:
        result = opened.screen(draw("D", seed=1), draw("D", seed=2), color="rgb")
    likeness = replace(result.likeness, value=0.60000012, threshold=0.6, passed=False)
    page = render(replace(result, likeness=likeness))
    assert "likeness <b>0.6000001</b> &le; 0.6: refused" in page


def test_plans_that_ran_are_named(screener, draw) -> None:
    result = screener.screen(draw("D"), None, color="rgb")
    plans = {"encoder": "a" * 64, "head": "b" * 64}
    engine = replace(result.engine, plan_sha256=plans)
    page = render_report(replace(result, engine=engine), None, None)
    assert re.findall(r"Plan SHA-256, (\w+)</dt><dd>(\w)\2{63}</dd>", page) == [
        ("encoder", "a"),
        ("head", "b"),
    ]


def test_text_from_outside_is_escaped(screener, draw) -> None:
    result = screener.screen(draw("D"), draw("D", seed=2), color="rgb")
    attack = '<img src=x onerror="alert(1)">'
    hostile = replace(
        result,
        warnings=(attack,),
        intended_use=attack,
        left=EyeResult("left", "ungradable", reason=attack, hint=attack),
        bundle=replace(result.bundle, name=attack, trust=attack),
    )
    page = render_report(hostile, None, None)
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x") == 6


def test_writing_is_atomic_and_keeps_existing_files(screener, draw, tmp_path: Path) -> None:
    result = screener.screen(draw("D"), None, color="rgb")
    target = tmp_path / "report.html"
    assert write_report(result, draw("D"), None, target) == target
    with pytest.raises(ResultError, match="exists already"):
        write_report(result, draw("D"), None, target)
    with pytest.raises(ResultError, match="does not exist"):
        write_report(result, draw("D"), None, tmp_path / "none" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_missing_jinja2_names_the_extra(screener, draw, monkeypatch: pytest.MonkeyPatch) -> None:
    result = screener.screen(draw("D"), None, color="rgb")
    real_import = builtins.__import__

    def without_jinja2(name, *rest, **more):
        if name == "jinja2":
            raise ImportError(name)
        return real_import(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "jinja2", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_jinja2)
    with pytest.raises(ResultError, match=r'pip install "fundus-edge\[demo\]"'):
        render_report(result, draw("D"), None)
