"""The page stands alone, says what is missing, and takes whatever was measured."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from drawn_run import Part, drawn_part, drawn_parts, on, times_of

import bench_check
from fundus_benchmarks.growth.measured_run import MeasuredRun
from fundus_benchmarks.growth.throughput import curves_of
from fundus_benchmarks.ratios.bars import read_bars
from fundus_benchmarks.report.page import render_page
from fundus_benchmarks.report.plots_faithfulness import auc_per_class, calibration, flips
from fundus_benchmarks.report.plots_growth import growth, history
from fundus_benchmarks.report.plots_latency import latency_by_stage
from fundus_benchmarks.results.comparison import compare
from fundus_benchmarks.results.kept import Run

BARS = read_bars(Path(bench_check.__file__).with_name("bars.toml"))
PLOTS = (
    "latency-edge",
    "latency-paper",
    "limits",
    "score",
    "flips",
    "auc",
    "calibration",
    "growth",
)

# How wide a line of least squares is drawn, and nothing else.
FITTED = "stroke-width: 1.2;"


class _Elements(HTMLParser):
    """Every element of a page with its attributes, and the text that is no style sheet."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._in_style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        self.text += "" if self._in_style else data


@pytest.fixture(scope="module")
def page() -> str:
    return _page(drawn_parts().values())


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    assert "://" not in page
    assert "@import" not in page
    for tag, attributes in _Elements(page).found:
        assert tag not in ("script", "link", "img", "iframe", "object")
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith("#")


def test_every_plot_is_there_with_ids_of_its_own(page: str) -> None:
    elements = _Elements(page).found
    ids = [found["id"] for _, found in elements if "id" in found]
    assert len(ids) == len(set(ids))
    for name in PLOTS:
        assert any(str(one).startswith(f"{name}-") for one in ids), name
    assert sum(tag == "svg" for tag, _ in elements) == len(PLOTS)


def test_machine_versions_settings_and_commands_are_told(page: str) -> None:
    text = _Elements(page).text
    for said in (
        *("Drawn Processor 9000", "8190", "2596.1", "onnxruntime", "1.31.1", "0123456789ab"),
        *("python benchmarks/growth.py", "threads 2, seconds 3", "2026-11-20T10:00:00Z"),
    ):
        assert said in text, said


def test_a_missed_promise_is_marked(page: str) -> None:
    text = _Elements(page).text
    assert "11 of 12 kept" in text
    assert text.count("MISSED") == 1
    assert "79.3" in text


def test_what_could_not_be_measured_is_told_and_escaped(page: str) -> None:
    assert "no CUDA device &lt;here&gt;" in page
    assert "<here>" not in page


def test_names_from_a_run_are_escaped_in_tables_and_plots() -> None:
    part = drawn_parts()["latency"]
    for row in part["rows"]:
        if row["model"] == "edge":
            row["model"] = "<script>alert('$1$')</script>"
    page = _page([part])
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("name", ["latency", "limits", "ratios", "faithfulness", "growth"])
def test_each_part_alone_makes_a_page_that_calls_the_others_missing(name: str) -> None:
    page = _page([drawn_parts()[name]])
    elements = _Elements(page)
    assert elements.text.count("Not measured in this run.") == 5  # the Jetson's part, too
    assert elements.text.count("the whole part") == 4


def test_a_run_without_rows_says_so_instead_of_failing() -> None:
    names = ("latency", "limits", "ratios", "faithfulness", "growth", "jetson")
    page = _page([drawn_part(name, []) for name in names])
    assert "<svg" not in page
    assert "No stage has both a limit and a time in this run." in page
    assert "0 of 12 kept" in page


def test_unknown_values_are_dashes_and_draw_no_plot_of_their_own() -> None:
    parts = drawn_parts()
    for part in parts.values():
        part["rows"] = [_unknown(row) for row in part["rows"]]
    page = _page(parts.values())
    assert "nan" not in _Elements(page).text.lower().replace("maintenance", "")
    assert "<svg" not in page


def test_some_unknown_values_leave_the_plots_of_the_others() -> None:
    parts = drawn_parts()
    parts["latency"]["rows"][0]["p50_ms"] = float("nan")
    parts["faithfulness"]["rows"][0] |= {"flip_upper": None, "refer_share": None, "score": None}
    parts["faithfulness"]["rows"][1]["auc"]["N"] = None
    parts["growth"]["rows"][0]["points"][1] |= {"y": None, "p90": float("nan")}
    parts["growth"]["rows"][0] |= {"slope": None, "intercept": None, "r2": None}
    page = _page(parts.values())
    assert sum(tag == "svg" for tag, _ in _Elements(page).found) == len(PLOTS) - 1  # no score


def test_a_slowdown_is_told_with_the_rule_that_found_it() -> None:
    old = Run.of([on(drawn_parts()["latency"], "2026-11-18", "ffffffffffff")])
    new = Run.of([drawn_parts(host=1.2, second_eye=1.5)["latency"]])
    text = _Elements(render_page(new, compare(old, new), [old, new], BARS)).text
    assert "Against 2026-11-18, commit ffffffffffff (its processor is not stated): 2 of" in text
    assert "took 1.20× the time of then" in text
    assert "90th percentile and more than a margin above its median" in text
    assert "1.50×" in text


def test_a_first_run_has_nothing_to_be_compared_with(page: str) -> None:
    assert "No earlier run with latencies is kept for this machine." in page


def test_plans_alone_stand_beside_the_product_and_are_explained(page: str) -> None:
    part = drawn_parts()["latency"]
    named = {"contender": "trtexec int8-trt", "backend": "trtexec", "provider": "tensorrt"}
    row = {**part["rows"][-1], **named, "model": "edge", "stage": "encoder_1", "threads": 1}
    part["rows"].append({**row, "dialect": "int8-trt", **times_of(0.093, count=9000)})
    text = _Elements(_page([part])).text
    assert "trtexec int8-trt, tensorrt" in text
    assert "runs the same TensorRT plans with nothing around them" in text
    assert "trtexec" not in _Elements(page).text


def test_a_jetsons_minutes_are_shown() -> None:
    page = _page([drawn_part("jetson", [_jetson_row()])])
    text = _Elements(page).text
    assert "throttled: the gpu clock fell from 1300 to 1000 MHz" in text
    assert "clocks pinned by jetson_clocks: –" in text
    assert "0.130" in text
    assert 'id="jetson-0-' in page


def test_plots_are_well_formed_and_the_same_for_the_same_run() -> None:
    rows = drawn_parts()["latency"]["rows"]
    first, second = (latency_by_stage(rows, "edge") for _ in range(2))
    assert first is not None
    assert first == second
    texts = ["".join(one.itertext()) for one in ElementTree.fromstring(first.svg).iter("text")]
    assert "OpenVINO INT8" in texts
    assert "13.0" in texts


def test_a_pair_s_eyes_side_by_side_are_one_length_with_the_rest() -> None:
    rows = [row for row in drawn_parts()["latency"]["rows"] if row["contender"] == "runtime"]
    plot = latency_by_stage(rows, "edge")
    assert plot is not None
    assert "both eyes prepared, and the rest" in plot.svg
    assert "side by side, which was not timed alone" in plot.caption
    plot = latency_by_stage([{**row, "threads": 1} for row in rows], "edge")
    assert plot is not None
    assert "both eyes prepared" not in plot.svg
    assert "side by side" not in plot.caption


def test_slope_and_intercept_stand_in_a_curves_legend() -> None:
    plot = growth(drawn_parts()["growth"]["rows"])
    assert plot is not None
    assert "edge, 9.10 ms + 0.350 ms per megapixel" in plot.svg
    assert "paper, 4.00 ms + 31.0 ms per eye" in plot.svg


def test_a_folders_time_says_its_start_and_pairs_a_second_have_no_line() -> None:
    runs = {n: [MeasuredRun(0.5 + 0.035 * n, 140.0, "")] for n in (8, 32, 128)}
    rows = [curve.row() for curve in curves_of(runs, {"threads": 2})]
    told, rate = (growth([row]) for row in rows[:2])
    assert told is not None
    assert rate is not None
    assert "edge, by the line 0.500 s to start, then 35.0 ms per pair" in told.svg
    texts = ["".join(one.itertext()) for one in ElementTree.fromstring(rate.svg).iter("text")]
    assert "edge" in texts
    assert told.svg.count(FITTED) == 1
    assert FITTED not in rate.svg
    page = _page([drawn_part("growth", rows)])
    assert "by the line 0.500 s to start, then 35.0 ms per pair" in page
    assert "no line" in page


def test_a_curve_over_names_is_drawn_as_bars() -> None:
    points = [{"x": "resnet50", "y": 40.0, "p90": 44.0}, {"x": "resnet152", "y": 79.0}]
    row = {"curve": "trunk", "what": "pair against trunk", "x": "trunk", "points": points}
    plot = growth([row | {"y": "p50", "y_unit": "ms", "slope": None, "intercept": None}])
    assert plot is not None
    assert "resnet152" in plot.svg
    assert "79.0" in plot.svg


def test_there_is_no_plot_without_rows() -> None:
    assert latency_by_stage([], "edge") is None
    assert [draw([]) for draw in (flips, auc_per_class, calibration, growth, history)] == [None] * 5


def _page(parts: Any) -> str:
    run = Run.of(parts)
    return render_page(run, None, [run], BARS)


def _unknown(row: Part) -> Part:
    """A row with every number gone."""
    return {
        key: _unknown(value)
        if isinstance(value, dict)
        else [_unknown(one) for one in value]
        if isinstance(value, list)
        else float("nan")
        if isinstance(value, float)
        else None
        if isinstance(value, int) and key != "x"
        else value
        for key, value in row.items()
    }


def _jetson_row() -> Part:
    load = {"seconds": 30.0, "pair": times_of(9.1), "stages": {"encoder": times_of(4.0)}}
    clock = {"fresh": 1300.0, "sustained": 1000.0, "lowest": 1000.0, "allowed": None}
    return {
        "model": "edge",
        "backend": "tensorrt",
        "provider": "tensorrt",
        "dialect": "int8-trt",
        "seconds": 300.0,
        "exams": 30000,
        "fresh": load,
        "sustained": {**load, "pair": None},
        "power": {"covers": "module", "rails": ["VDD_IN"], "net_j_per_exam": 0.13, "rest_w": None},
        "clocks_pinned": None,
        "clocks_mhz": {"gpu": clock},
        "temperatures_c": {"cpu": {"rest": 40.0, "highest": 71.0}},
        "throttled": True,
        "throttling_not_told": [],
        "throttled_because": ["the gpu clock fell from 1300 to 1000 MHz"],
        "series": [
            {"t_s": 5.0 * k, "pair_ms": 9.0 + k, "power_w": None, "gpu_mhz": 1300.0 - 100 * k}
            for k in range(4)
        ],
    }
