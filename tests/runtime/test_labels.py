from __future__ import annotations

import pickle

import pytest

from fundus_runtime.canonical import canonical_json, sha256_hex, sha256_of_file
from fundus_runtime.errors import BundleError, FundusError, UngradableError
from fundus_runtime.labels import EYES, ODIR_CLASSES, ClassList


def test_odir_letters_are_in_the_official_order() -> None:
    assert "".join(ODIR_CLASSES.letters) == "NDGCAHMO"
    assert ODIR_CLASSES.normal == "N"
    assert ODIR_CLASSES.name_of("G") == "glaucoma"
    assert EYES == ("left", "right")


def test_class_list_survives_its_dictionary() -> None:
    for classes in (ODIR_CLASSES, ClassList(("x",), ("thing",))):
        assert ClassList.from_dict(classes.to_dict()) == classes


@pytest.mark.parametrize(
    "values",
    [
        {"letters": ["a"], "names": ["x"]},
        {"letters": ["a"], "names": ["x"], "normal": None, "more": 1},
        {"letters": [], "names": [], "normal": None},
        {"letters": ["a", "a"], "names": ["x", "y"], "normal": None},
        {"letters": ["a"], "names": ["x", "y"], "normal": None},
        {"letters": ["a"], "names": ["x"], "normal": "b"},
        {"letters": ["a"], "names": ["x"], "normal": 1},
        {"letters": ["a", ""], "names": ["x", "y"], "normal": None},
        {"letters": [1], "names": ["x"], "normal": None},
        {"letters": "ab", "names": ["x", "y"], "normal": None},
        [],
    ],
)
def test_impossible_class_lists_are_refused(values: object) -> None:
    with pytest.raises(BundleError):
        ClassList.from_dict(values)


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1.5, "a": ["é", None]}) == '{"a":["é",null],"b":1.5}'.encode()
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_hash_of_a_file_is_the_hash_of_its_bytes(tmp_path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"fundus" * 300_000)
    assert sha256_of_file(file) == sha256_hex(b"fundus" * 300_000)
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_ungradable_error_says_reason_and_hint_and_survives_pickling() -> None:
    error = UngradableError("too_dark", "add light")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, FundusError)
    assert (copy.reason, copy.hint, str(copy)) == ("too_dark", "add light", "too_dark: add light")
