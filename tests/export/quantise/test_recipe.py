"""A recipe makes the same graphs again, from its file alone, and for its own model alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fundus_export.errors import ExportError
from fundus_export.graphs import GraphBytes
from fundus_export.quantise.ranges import RangeMethod, TensorRange
from fundus_export.quantise.recipe import Recipe, rounded_ranges
from fundus_runtime.canonical import sha256_hex

SOURCE = GraphBytes(b"an encoder", b"a head", 18)
RANGES = {
    "encoder": {"image": TensorRange(-1.5, 2.25, 3.0, (0.5, -0.25, 0.0))},
    "head": {"x": TensorRange(0.0, 7.5, 9.0), "dead": TensorRange(0.0, 0.0, 0.0, (0.0,))},
}
RECIPE = Recipe(
    graphs={"encoder": sha256_hex(SOURCE.encoder), "head": sha256_hex(SOURCE.head)},
    preprocess_sha256="5" * 64,
    images={"sha256": "1" * 64, "eyes": 3, "pairs": 1, "files": [{"sha256": "2" * 64}]},
    method=RangeMethod("percentile", 99.9),
    ranges=RANGES,
    raised={"int8-trt": {"encoder": ("conv1", "conv7")}},
)


def values() -> dict[str, Any]:
    return dict(json.loads(RECIPE.to_bytes()))


def read(changed: dict[str, Any]) -> Recipe:
    return Recipe.from_bytes(json.dumps(changed).encode())


def test_a_recipe_is_read_back_as_it_was_written() -> None:
    assert Recipe.from_bytes(RECIPE.to_bytes()) == RECIPE
    assert Recipe.from_bytes(RECIPE.to_bytes()).to_bytes() == RECIPE.to_bytes()
    assert RECIPE.to_bytes().endswith(b"}\n")


def test_its_bytes_do_not_depend_on_the_order_in_which_it_was_made() -> None:
    turned = Recipe(
        graphs=dict(reversed(RECIPE.graphs.items())),
        preprocess_sha256=RECIPE.preprocess_sha256,
        images=dict(reversed(RECIPE.images.items())),
        method=RECIPE.method,
        ranges={part: dict(reversed(found.items())) for part, found in RANGES.items()},
        raised=RECIPE.raised,
    )
    assert turned.to_bytes() == RECIPE.to_bytes()


def test_rounded_ranges_survive_the_file_and_stay_ranges() -> None:
    exact = {
        "a": TensorRange(-1 / 3, 2 / 3, 2 / 3, (1 / 7, -1e-9 / 3)),
        # rounding up both must leave the largest the largest
        "b": TensorRange(-0.99999996, 1.00000004, 1.00000004),
        "c": TensorRange(0.0, 1.23456789e-30, 1.23456789e-30),
        "d": TensorRange(-2e38, 0.0, 2.9999999999e38),
    }
    rounded = rounded_ranges(exact)
    again = rounded_ranges(rounded)
    assert again == rounded
    written = replace(RECIPE, ranges={"encoder": rounded, "head": {}}).to_bytes()
    read_back = Recipe.from_bytes(written)
    assert read_back.ranges["encoder"] == rounded
    for name, found in rounded.items():
        for one, other in zip(
            (found.low, found.high, found.largest, *found.means),
            (exact[name].low, exact[name].high, exact[name].largest, *exact[name].means),
            strict=True,
        ):
            assert one == pytest.approx(other, rel=1e-6)


def test_raised_products_are_kept_by_dialect_and_part() -> None:
    assert RECIPE.raised_in("int8-trt", "encoder") == ("conv1", "conv7")
    assert RECIPE.raised_in("int8-trt", "head") == ()
    assert RECIPE.raised_in("int8-cpu", "encoder") == ()
    more = RECIPE.with_raised("int8-cpu", {"encoder": (), "head": ("gemm",)})
    assert more.raised_in("int8-cpu", "head") == ("gemm",)
    assert more.raised_in("int8-trt", "encoder") == ("conv1", "conv7")
    assert "encoder" not in more.raised["int8-cpu"]
    assert RECIPE.raised_in("int8-cpu", "head") == ()


def test_magnitudes_are_those_that_were_seen_not_those_that_were_chosen() -> None:
    assert RECIPE.largest("encoder") == {"image": 3.0}
    assert RECIPE.largest("head") == {"x": 9.0, "dead": 0.0}


@pytest.mark.parametrize("part", ["encoder", "head"])
def test_a_recipe_for_other_graphs_is_refused(part: str) -> None:
    RECIPE.require_for(SOURCE)
    other = GraphBytes(
        b"another" if part == "encoder" else SOURCE.encoder,
        b"another" if part == "head" else SOURCE.head,
        18,
    )
    with pytest.raises(ExportError, match=f"made for the FP32 {part} .* calibrate again"):
        RECIPE.require_for(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "no fundus-edge quantisation recipe of schema version 1"),
        ({"format": "notes"}, "no fundus-edge quantisation recipe"),
        ({"comment": "hello"}, "its keys are"),
        ({"ranges": {"encoder": {}}}, "KeyError"),
        ({"ranges": {"encoder": {"x": [1, 2, 3, []]}, "head": {}}}, "are no range"),
        ({"ranges": {"encoder": {"x": [0, 1, 1]}, "head": {}}}, "ValueError"),
        ({"ranges": {"encoder": {"x": [0, "a lot", 1, []]}, "head": {}}}, "ValueError"),
        ({"graphs": {"encoder": "0"}}, "KeyError"),
        ({"method": {"name": "entropy", "percentile": 99}}, "expected percentile or minmax"),
        ({"method": "minmax"}, "TypeError"),
        ({"raised": [1]}, "AttributeError"),
    ],
)
def test_what_is_no_recipe_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=rf"recipe\.json is no recipe: .*{message}.*calibrate"):
        read({**values(), **change})


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_mean_that_is_no_number_is_refused(value: str) -> None:
    text = RECIPE.to_bytes().replace(b"[0.5,-0.25,0.0]", f"[0.5,{value},0.0]".encode())
    assert text != RECIPE.to_bytes()
    with pytest.raises(ExportError, match=f"{value} is no number"):
        Recipe.from_bytes(text)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"5", b"\xff\xfe", b"[" * 100_000])
def test_bytes_of_another_kind_are_refused(data: bytes) -> None:
    with pytest.raises(ExportError, match=r"mine\.json is no recipe"):
        Recipe.from_bytes(data, where="mine.json")
