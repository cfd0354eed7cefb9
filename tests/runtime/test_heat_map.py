"""Heat maps explain an eye's probabilities exactly, in the photograph's own pixels."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fundus_runtime.calibration import Calibration, ClassCalibration
from fundus_runtime.errors import ResultError, UsageError
from fundus_runtime.heat_map import HeatMaps
from fundus_runtime.heat_picture import heat_picture
from fundus_runtime.preprocess import CropBox
from fundus_runtime.report import render_report
from fundus_runtime.result import ExamResult
from fundus_runtime.screener import Screener

BOX = CropBox(10, -20, 110, 180)  # reaches beyond the photograph on top
# FP32 means in two orders, then a sigmoid
CLOSE = 1e-5


def maps_of(*classes: list[list[float]], box: CropBox = BOX) -> HeatMaps:
    letters = tuple("DGC"[: len(classes)])
    evidence = np.array(classes, np.float32)
    return HeatMaps(letters, evidence, box, 32 * evidence.shape[2])


@pytest.fixture(scope="module")
def screener(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable[..., Path],
    graphs: dict[str, Callable[..., bytes]],
) -> Iterator[Screener]:
    folder = tmp_path_factory.mktemp("maps") / "tiny"
    make_bundle(folder, encoder=graphs["encoder"](eye_maps=True))
    with Screener.open(folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def result(screener: Screener, draw: Callable[..., np.ndarray]) -> ExamResult:
    return screener.screen(draw("D", seed=1), draw("N", seed=2), color="rgb")


def test_the_mean_of_the_evidence_is_the_eyes_own_probability(result: ExamResult) -> None:
    for eye in (result.left, result.right):
        assert eye.heat_maps is not None
        for letter, probability in eye.probabilities.items():
            mean = float(eye.heat_maps.of(letter).mean())
            assert 1 / (1 + np.exp(-mean)) == pytest.approx(probability, abs=CLOSE)


def test_calibration_goes_into_every_cell() -> None:
    calibration = Calibration(("D", "G"), (ClassCalibration(2.0, 1.0), ClassCalibration()))
    raw = np.array([[[4.0, -2.0]], [[3.0, 5.0]]], np.float32)
    found = HeatMaps.from_encoder(raw, calibration, BOX, size=64)
    assert found.of("D").tolist() == [[3.0, 0.0]]
    assert found.of("G").tolist() == [[3.0, 5.0]]
    probability = calibration.apply(raw.mean(axis=(1, 2)))[0]
    assert 1 / (1 + np.exp(-found.of("D").mean())) == pytest.approx(probability, abs=CLOSE)


def test_numbers_that_are_none_are_refused() -> None:
    raw = np.full((1, 2, 2), np.nan, np.float32)
    with pytest.raises(ResultError, match="not finite"):
        HeatMaps.from_encoder(raw, Calibration.identity(("D",)), BOX, size=64)


def test_the_box_is_the_disc_in_the_photograph(result: ExamResult) -> None:
    eye = result.left
    assert eye.heat_maps is not None
    assert eye.field_of_view is not None
    box, disc = eye.heat_maps.box, eye.field_of_view
    assert box.left_px <= disc["center_x_px"] - disc["radius_x_px"] <= box.left_px + 8
    assert box.bottom_px >= disc["center_y_px"] + disc["radius_y_px"] >= box.bottom_px - 8


def test_a_lesion_lights_the_cell_that_it_lies_in(
    screener: Screener, draw: Callable[..., np.ndarray]
) -> None:
    frame = draw("N", seed=3, width=640, height=560)
    before = screener.screen(frame, None, color="rgb").left.heat_maps
    assert before is not None
    for x, y in ((250, 200), (400, 330), (320, 420)):
        ill = frame.copy()
        ill[y - 8 : y + 9, x - 8 : x + 9] = (255, 60, 30)
        after = screener.screen(ill, None, color="rgb").left.heat_maps
        assert after is not None
        rise = after.of("D") - before.of("D")
        assert divmod(int(rise.argmax()), after.grid[1]) == after.cell_at(x, y)


def test_cells_lie_side_by_side_and_know_their_pixels() -> None:
    maps = maps_of([[0.0] * 7] * 7, box=CropBox(100, -20, 100 + 448, -20 + 448))
    # strided convolutions look around the first pixel of each stretch, here two wide
    assert maps.first_cell_px == (-19.0, 101.0)
    assert maps.cell_size_px == (64.0, 64.0)
    for row in range(7):
        for column in range(7):
            cell = maps.cell_box(row, column)
            assert (cell.left_px, cell.top_px) == (69 + 64 * column, -51 + 64 * row)
            assert (cell.width_px, cell.height_px) == (64, 64)
            assert maps.cell_at(101 + 64 * column, -19 + 64 * row) == (row, column)
    # beyond the last cell the crop goes on a little
    assert maps.cell_at(547, 427) == (6, 6)
    assert maps.cell_at(99, 0) is None
    assert maps.cell_at(100, 428) is None
    with pytest.raises(UsageError, match="no cell 7, 0"):
        maps.cell_box(7, 0)


@pytest.mark.parametrize(("size", "count", "stride"), [(224, 7, 32), (100, 4, 32), (448, 14, 32)])
def test_the_stride_follows_from_the_grid(size: int, count: int, stride: int) -> None:
    evidence = np.zeros((1, count, count), np.float32)
    maps = HeatMaps(("D",), evidence, CropBox(0, 0, size, size), size)
    assert maps.cell_size_px == (stride, stride)


def test_a_map_on_the_photograph_is_the_cells_at_their_centres() -> None:
    maps = maps_of([[1.0, 2.0], [3.0, 5.0]], box=CropBox(10, -20, 10 + 64, -20 + 64))
    drawn = maps.on_frame("D", height=150, width=200)
    assert drawn.shape == (150, 200)
    assert np.isnan(drawn[:, :10]).all()
    assert np.isnan(drawn[:, 74:]).all()
    assert np.isnan(drawn[44:]).all()
    assert np.isfinite(drawn[:44, 10:74]).all()
    # centres: columns 10.5 and 42.5, rows -19.5 and 12.5
    assert drawn[12, 10] == pytest.approx(3.0)
    assert drawn[12, 42] == pytest.approx(5.0)
    assert drawn[12, 26] == pytest.approx(4.0)
    assert drawn[40, 60] == pytest.approx(5.0)
    crop = maps.over_crop("D", side=64)
    assert np.array_equal(crop[20:], drawn[:44, 10:74])


def test_the_peak_is_the_cell_that_speaks_most() -> None:
    maps = maps_of([[1.0, 2.0], [7.0, 5.0]], [[-1.0, -2.0], [-7.0, -0.5]])
    assert maps.peak("D") == (1, 0)
    assert maps.peak("G") == (1, 1)
    with pytest.raises(UsageError, match="no class 'X'; there are D G"):
        maps.peak("X")


def test_maps_of_other_classes_than_the_letters_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 classes .* \(2, 4, 4\)"):
        HeatMaps(("D", "G", "C"), np.zeros((2, 4, 4), np.float32), BOX, 64)


def test_the_json_form_is_small_and_says_the_same(result: ExamResult) -> None:
    maps = result.left.heat_maps
    assert maps is not None
    text = json.dumps(result.left.to_dict()["heat_maps"])
    values = json.loads(text)
    assert len(text) < 10_000
    assert (values["rows"], values["columns"]) == maps.grid
    for letter in maps.letters:
        # three decimals
        assert np.abs(np.array(values["evidence"][letter]) - maps.of(letter)).max() <= 6e-4


def test_a_bundle_without_maps_screens_as_before(
    shared_bundle: Path, draw: Callable[..., np.ndarray]
) -> None:
    with Screener.open(shared_bundle, threads=1) as opened:
        plain = opened.screen(draw("D", seed=1), draw("N", seed=2), color="rgb")
    assert plain.left.probabilities
    assert plain.left.heat_maps is None
    assert plain.to_dict()["eyes"]["left"]["heat_maps"] is None
    assert "heat map" not in render_report(plain, draw("D", seed=1), draw("N", seed=2))


def test_an_absent_eye_has_no_maps(screener: Screener, draw: Callable[..., np.ndarray]) -> None:
    found = screener.screen(draw("D", seed=1), None, color="rgb")
    assert found.left.heat_maps is not None
    assert found.right.heat_maps is None


def test_an_exam_eye_by_eye_gives_the_same_maps(
    screener: Screener, result: ExamResult, draw: Callable[..., np.ndarray]
) -> None:
    with screener.begin() as exam:
        exam.add("right", draw("N", seed=2), color="rgb")
        exam.add("left", draw("D", seed=1), color="rgb")
        found = exam.result()
    for ours, theirs in ((found.left, result.left), (found.right, result.right)):
        assert ours.heat_maps is not None
        assert theirs.heat_maps is not None
        assert np.array_equal(ours.heat_maps.evidence, theirs.heat_maps.evidence)


def test_pictures_are_clear_without_evidence_and_red_with_much() -> None:
    picture = heat_picture(np.array([[-9.0, 0.0], [8.0, 90.0]], np.float32))
    assert picture.shape[2] == 4
    assert picture[0, 0, 3] == 0
    assert picture[0, 1, 3] == 0
    assert picture[1, 0].tolist() == [255, 235, 60, 115]
    assert picture[1, 1].tolist() == [225, 30, 20, 165]


def test_the_report_lays_every_class_but_normal_over_the_photograph(
    result: ExamResult, draw: Callable[..., np.ndarray]
) -> None:
    page = render_report(result, draw("D", seed=1), draw("N", seed=2))
    assert "<script" not in page
    normal = result.classes.normal
    letters = [letter for letter in result.classes.letters if letter != normal]
    assert len(letters) == len(result.classes.letters) - 1
    assert not re.search(rf'<label for="heat-\d+"[^>]*>{normal} ', page)
    overlays = re.findall(r'<image class="heat heat-(\d+)"[^>]*href="([^"]+)"([^>]*)/>', page)
    assert [int(index) for index, _, _ in overlays] == [*range(1, len(letters) + 1)] * 2
    # the right eye comes first on the page
    for eye, part in (
        (result.right, overlays[: len(letters)]),
        (result.left, overlays[len(letters) :]),
    ):
        assert eye.heat_maps is not None
        box = eye.heat_maps.box
        for letter, (_, uri, where) in zip(letters, part, strict=True):
            assert f'x="{box.left_px}" y="{box.top_px}"' in where
            assert f'width="{box.width_px}" height="{box.height_px}"' in where
            data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
            drawn = np.asarray(Image.open(io.BytesIO(data)))
            assert np.array_equal(drawn, heat_picture(eye.heat_maps.over_crop(letter, side=96)))
    shown = re.findall(r'id="(heat-[a-z0-9]+)" checked', page)
    first = letters.index(result.findings[0]) + 1 if result.findings else "none"
    assert shown == [f"heat-{first}"]
