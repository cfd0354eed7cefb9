"""Measured ranges on disk: used where everything is the same, refused everywhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fundus_export.errors import ExportError
from fundus_export.quantise.images import CalibrationImages
from fundus_export.quantise.range_cache import RangeKey, cache_file, load_or_measure
from fundus_export.quantise.ranges import RangeMethod, TensorRange
from fundus_runtime.canonical import canonical_json, sha256_hex

GRAPH, ENCODER = b"the head", b"the encoder"
METHOD = RangeMethod("percentile", 99.9)
RANGES = {
    "relu": TensorRange(0.0, 0.1 + 0.2, 7.5, (0.1, 1e-30)),
    "conv": TensorRange(-1e-7, 3.0000000000000004, 3.5),
    "dead": TensorRange(0.0, 0.0, 0.0),
}


@pytest.fixture
def key(images: CalibrationImages) -> RangeKey:
    return RangeKey.of(GRAPH, images, METHOD, list(RANGES), encoder=ENCODER)


@pytest.fixture
def written(key: RangeKey, tmp_path: Path) -> Path:
    path = cache_file(tmp_path / "cache", key)
    assert load_or_measure(key, lambda: RANGES, path=path) == RANGES
    return path


def never() -> dict[str, TensorRange]:
    pytest.fail("measured although a file is there")


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a file as somebody would who also corrects its hash."""
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    content["sha256"] = sha256_hex(canonical_json(content))
    path.write_text(json.dumps(content))


def test_what_was_measured_comes_back_exactly_and_is_not_measured_again(
    key: RangeKey, written: Path
) -> None:
    again = load_or_measure(key, never, path=written)
    assert again == RANGES
    assert list(again) == list(RANGES)


def test_nothing_but_the_file_is_left(key: RangeKey, written: Path) -> None:
    assert list(written.parent.iterdir()) == [written]
    assert key.sha256[:32] in written.name


def test_without_a_path_it_is_measured_every_time(key: RangeKey) -> None:
    calls: list[None] = []

    def measure() -> dict[str, TensorRange]:
        calls.append(None)
        return RANGES

    for _ in range(2):
        assert load_or_measure(key, measure, path=None) == RANGES
    assert len(calls) == 2


def _others(images: CalibrationImages) -> dict[str, RangeKey]:
    names = list(RANGES)
    fewer = replace(images, files=images.files[:-1])
    spec = replace(images, spec=replace(images.spec, illumination_gain=3.0))
    both = {"encoder": ENCODER}
    return {
        "graph": RangeKey.of(b"another head", images, METHOD, names, **both),
        "encoder": RangeKey.of(GRAPH, images, METHOD, names, encoder=b"another encoder"),
        "photographs": RangeKey.of(GRAPH, fewer, METHOD, names, **both),
        "preprocessing": RangeKey.of(GRAPH, spec, METHOD, names, **both),
        "method": RangeKey.of(GRAPH, images, RangeMethod("minmax"), names, **both),
        "tensors": RangeKey.of(GRAPH, images, METHOD, names[1:], **both),
    }


SIDES = ("graph", "encoder", "photographs", "preprocessing", "method", "tensors")


@pytest.mark.parametrize("side", SIDES)
def test_ranges_of_another_calibration_are_refused_with_both_sides_named(
    side: str, key: RangeKey, written: Path, images: CalibrationImages
) -> None:
    other = _others(images)[side]
    before = written.read_bytes()
    with pytest.raises(ExportError) as refused:
        load_or_measure(other, never, path=written)
    message = str(refused.value)
    came, asked = (getattr(one, side) for one in (key, other))
    short = [value if side == "method" else value[:12] for value in (came, asked)]
    assert f"({side} {short[0]} instead of {short[1]})" in message
    assert "remove the file" in message
    assert written.read_bytes() == before


@pytest.mark.parametrize("side", SIDES)
def test_another_calibration_has_another_file(
    side: str, key: RangeKey, images: CalibrationImages, tmp_path: Path
) -> None:
    assert cache_file(tmp_path, _others(images)[side]) != cache_file(tmp_path, key)


def test_another_percentile_is_another_method(key: RangeKey, images: CalibrationImages) -> None:
    finer = RangeKey.of(
        GRAPH, images, RangeMethod("percentile", 99.99), list(RANGES), encoder=ENCODER
    )
    assert finer.sha256 != key.sha256


def test_the_order_of_tensors_does_not_matter(key: RangeKey, images: CalibrationImages) -> None:
    turned = RangeKey.of(GRAPH, images, METHOD, list(RANGES)[::-1], encoder=ENCODER)
    assert turned == key


def test_another_way_of_measuring_is_refused(key: RangeKey, written: Path) -> None:
    newer = replace(key, measurement=key.measurement + 1)
    with pytest.raises(ExportError, match="measurement 1 instead of 2"):
        load_or_measure(newer, never, path=written)


def test_a_number_changed_by_hand_is_noticed(key: RangeKey, written: Path) -> None:
    text = written.read_text()
    assert "7.5" in text
    written.write_text(text.replace("7.5", "7.6"))
    with pytest.raises(ExportError, match=r"it was changed after it was written; remove it"):
        load_or_measure(key, never, path=written)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[1, 2]", b'"text"', b"\xff\xfe", b'{"format": NaN}', b"[" * 100_000),
        b'{"format": "fundus-edge activation ranges"}',
    ],
)
def test_a_file_that_is_no_cache_is_refused_and_kept(
    key: RangeKey, written: Path, content: bytes
) -> None:
    written.write_bytes(content)
    with pytest.raises(ExportError, match="is no whole file of measured ranges"):
        load_or_measure(key, never, path=written)
    assert written.read_bytes() == content


def test_a_file_cut_anywhere_is_refused(key: RangeKey, written: Path) -> None:
    whole = written.read_bytes()
    for length in range(0, len(whole.rstrip()), 17):
        written.write_bytes(whole[:length])
        with pytest.raises(ExportError, match="is no whole file"):
            load_or_measure(key, never, path=written)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["ranges"].update(relu=[1.0, 2.0, 3.0, []]), "are no range"),
        (lambda content: content["ranges"].update(relu=[0.0, 1.0]), "unpack"),
        (lambda content: content["ranges"].update(relu=["x", 1.0, 1.0, []]), "convert"),
        (lambda content: content["ranges"].update(relu=None), "unpack"),
        (lambda content: content["ranges"].update(relu=[0, 10**400, 10**400, []]), "too large"),
        (lambda content: content["ranges"].pop("relu"), "other tensors than it says"),
        (lambda content: content.pop("ranges"), "other tensors than it says"),
    ],
)
def test_what_cannot_be_ranges_is_refused_even_under_a_right_hash(
    key: RangeKey, written: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    rewritten(written, change)
    with pytest.raises(ExportError, match=words):
        load_or_measure(key, never, path=written)


def test_a_folder_that_cannot_be_written_is_refused_before_measuring(
    key: RangeKey, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="cannot keep measured ranges"):
        load_or_measure(key, never, path=tmp_path / "file" / "ranges.json")


def test_a_folder_in_the_files_place_is_refused(key: RangeKey, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be read: Is a directory"):
        load_or_measure(key, never, path=tmp_path)


def test_an_interrupted_measurement_leaves_nothing(key: RangeKey, tmp_path: Path) -> None:
    def interrupted() -> dict[str, TensorRange]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_measure(key, interrupted, path=tmp_path / "ranges.json")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(
    key: RangeKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fundus_runtime.atomic.os.fsync", full)
    with pytest.raises(ExportError, match=r"No space left on device.* free space"):
        load_or_measure(key, lambda: RANGES, path=tmp_path / "ranges.json")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_another_process_wrote_meanwhile_is_not_replaced(
    key: RangeKey, tmp_path: Path
) -> None:
    path = tmp_path / "ranges.json"

    def slow() -> dict[str, TensorRange]:
        load_or_measure(key, lambda: RANGES, path=path)
        return {**RANGES, "relu": TensorRange(0.0, 1.0, 1.0)}

    assert load_or_measure(key, slow, path=path) == RANGES


def test_ranges_of_other_tensors_than_asked_for_are_not_kept(key: RangeKey, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="other tensors were measured"):
        load_or_measure(key, dict, path=tmp_path / "ranges.json")
    assert list(tmp_path.iterdir()) == []
