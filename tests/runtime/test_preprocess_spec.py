"""The contract itself: what a spec accepts, how it is written down and what names it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus_runtime.errors import SpecError
from fundus_runtime.preprocess import PreprocessSpec

# Every checkpoint, graph and bundle in use carries this hash. If it changes, they no longer open:
# raise `version` and train again, or undo the change.
DEFAULT_SHA256 = "89f6ad6b71b00d26011fa116407c6bd05a9a2b07d17acc71cf1ebe9e9601d514"

DEFAULT_CANONICAL = (
    b'{"color":"rgb","crop_permille":1000,"field_of_view":"disc","illumination":"subtract",'
    b'"illumination_constant":128.0,"illumination_gain":2.0,"illumination_window_px":37,'
    b'"layout":"NCHW","mask_permille":980,"mean":[0.485,0.456,0.406],"resampling":"area",'
    b'"size":224,"std":[0.229,0.224,0.225],"version":1}'
)

CHANGED = {
    "size": 448,
    "crop_permille": 1050,
    "illumination": "divide",
    "illumination_window_px": 39,
    "illumination_gain": 2.5,
    "illumination_constant": 127.0,
    "mask_permille": 981,
    "mean": (0.5, 0.456, 0.406),
    "std": (0.229, 0.224, 0.25),
}

INVALID: list[tuple[str, Any]] = [
    *(("size", v) for v in (31, 2049, 224.0, "224", True, None)),
    *(("crop_permille", v) for v in (499, 2001, 1000.0)),
    *(("illumination_window_px", v) for v in (36, 1, 2049, 37.0)),
    *(("mask_permille", v) for v in (499, 1001, 980.0)),
    *(("version", v) for v in (0, 2, True, "1")),
    *(("field_of_view", v) for v in ("circle", "", None, ["disc"])),
    *(("resampling", v) for v in ("bilinear", "AREA")),
    *(("illumination", v) for v in ("clahe", None, 0)),
    *(("color", v) for v in ("bgr", "RGB")),
    *(("layout", v) for v in ("NHWC", None)),
    *(("illumination_gain", v) for v in (0, -1.0, float("nan"), float("inf"), "2", True, 10**400)),
    *(("illumination_constant", v) for v in (-0.5, 255.5, float("nan"), None, 10**400)),
    *(("mean", v) for v in ((0.5, 0.5), (0.5,) * 4, 0.5, "rgb", (0.5, 0.5, float("nan")))),
    *(("std", v) for v in ((0.2, 0.2, 0.0), (0.2, -0.2, 0.2), (0.2, 0.2, "0.2"), None)),
]


@st.composite
def specs(draw: st.DrawFn) -> PreprocessSpec:
    unit = st.floats(0, 1)
    positive = st.floats(1e-3, 1e3)
    return PreprocessSpec(
        size=draw(st.integers(32, 2048)),
        crop_permille=draw(st.integers(500, 2000)),
        illumination=draw(st.sampled_from(["subtract", "divide", "none"])),
        illumination_window_px=2 * draw(st.integers(1, 1023)) + 1,
        illumination_gain=draw(positive),
        illumination_constant=draw(st.floats(0, 255)),
        mask_permille=draw(st.integers(500, 1000)),
        mean=draw(st.tuples(unit, unit, unit)),
        std=draw(st.tuples(positive, positive, positive)),
    )


def test_default_contract_is_pinned() -> None:
    assert PreprocessSpec().canonical() == DEFAULT_CANONICAL
    assert PreprocessSpec().sha256 == DEFAULT_SHA256


@given(specs())
def test_hash_is_of_canonical_json_with_sorted_keys_and_no_spaces(spec: PreprocessSpec) -> None:
    text = spec.canonical().decode()
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text
    assert spec.sha256 == hashlib.sha256(spec.canonical()).hexdigest()


@given(specs())
def test_spec_survives_a_file(spec: PreprocessSpec) -> None:
    again = PreprocessSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.sha256 == spec.sha256


def test_order_of_keys_does_not_change_the_hash() -> None:
    backwards = dict(reversed(PreprocessSpec().to_dict().items()))
    assert PreprocessSpec.from_dict(backwards).sha256 == DEFAULT_SHA256


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_every_field_that_can_change_changes_the_hash(name: str) -> None:
    changed = dataclasses.replace(PreprocessSpec(), **{name: CHANGED[name]})
    assert changed.sha256 != DEFAULT_SHA256


def test_no_field_is_left_out_of_the_hash() -> None:
    fields = {f.name for f in dataclasses.fields(PreprocessSpec)}
    assert set(json.loads(PreprocessSpec().canonical())) == fields
    # these have one value each, so no test above can change them
    assert fields - set(CHANGED) == {"field_of_view", "resampling", "color", "layout", "version"}


def test_whole_numbers_given_for_floats_hash_as_the_floats_that_they_equal() -> None:
    ints = PreprocessSpec(
        illumination_gain=2, illumination_constant=128, mean=(0, 1, 0), std=(1, 1, 1)
    )
    floats = PreprocessSpec(
        illumination_gain=2.0,
        illumination_constant=128.0,
        mean=(0.0, 1.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    assert ints.canonical() == floats.canonical()
    assert dataclasses.replace(PreprocessSpec(), illumination_gain=2).sha256 == DEFAULT_SHA256


def test_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PreprocessSpec().size = 448  # type: ignore[misc]


@pytest.mark.parametrize(("name", "value"), INVALID, ids=lambda v: repr(v)[:20])
def test_value_that_does_not_fit_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=name):
        dataclasses.replace(PreprocessSpec(), **{name: value})
    with pytest.raises(SpecError, match=name):
        PreprocessSpec.from_dict({**PreprocessSpec().to_dict(), name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 32),
        ("size", 2048),
        ("crop_permille", 500),
        ("crop_permille", 2000),
        ("illumination_window_px", 3),
        ("illumination_window_px", 2047),
        ("mask_permille", 500),
        ("mask_permille", 1000),
        ("illumination_constant", 0.0),
        ("illumination_constant", 255.0),
    ],
)
def test_ends_of_the_ranges_are_accepted(name: str, value: float) -> None:
    assert dataclasses.replace(PreprocessSpec(), **{name: value}).to_dict()[name] == value


def test_unknown_key_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="sharpen"):
        PreprocessSpec.from_dict({**PreprocessSpec().to_dict(), "sharpen": True})


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(PreprocessSpec)])
def test_missing_key_is_refused_by_name_and_never_filled_in(name: str) -> None:
    fields = PreprocessSpec().to_dict()
    del fields[name]
    with pytest.raises(SpecError, match=name):
        PreprocessSpec.from_dict(fields)
