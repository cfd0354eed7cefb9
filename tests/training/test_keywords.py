"""ODIR's diagnostic keywords as eye-level labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from fundus_runtime.labels import ODIR_CLASSES
from fundus_training.data.keywords import (
    keywords_from_text,
    labels_from_keywords,
    patient_labels_from_eyes,
)
from fundus_training.data.records import load_records


def labels(letters: str) -> tuple[int, ...]:
    return tuple(int(letter in letters) for letter in ODIR_CLASSES.letters)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("normal fundus", "N"),
        ("moderate non proliferative retinopathy", "D"),
        ("mild nonproliferative retinopathy", "D"),
        ("severe proliferative diabetic retinopathy", "D"),
        ("suspected diabetic retinopathy", "D"),
        ("suspected glaucoma", "G"),
        ("cataract", "C"),
        ("dry age-related macular degeneration", "A"),
        ("hypertensive retinopathy", "H"),
        ("pathological myopia", "M"),
        ("myopic maculopathy", "M"),
        ("macular epiretinal membrane", "O"),
        ("refractive media opacity", "O"),
    ],
)
def test_each_keyword_names_its_class(text: str, letters: str) -> None:
    assert labels_from_keywords(text) == labels(letters)


@pytest.mark.parametrize("comma", ["，", ",", "， ", "、"])
def test_every_kind_of_comma_separates_keywords(comma: str) -> None:
    assert labels_from_keywords(f"Glaucoma{comma}drusen") == labels("GO")


def test_remarks_on_quality_do_not_make_an_eye_abnormal() -> None:
    assert labels_from_keywords("lens dust，normal fundus") == labels("N")
    assert labels_from_keywords("low image quality，cataract") == labels("C")


@pytest.mark.parametrize("text", ["", " ， ", "lens dust", "anterior segment image"])
def test_an_eye_of_which_nothing_is_said_has_no_labels(text: str) -> None:
    assert labels_from_keywords(text) is None


def test_normal_is_dropped_beside_a_finding() -> None:
    assert labels_from_keywords("normal fundus，drusen") == labels("O")


def test_keywords_are_trimmed_and_lowered() -> None:
    assert keywords_from_text(" Lens  Dust，, Cataract ") == ("lens dust", "cataract")


def test_a_patient_has_the_union_and_normal_only_alone() -> None:
    assert patient_labels_from_eyes(labels("N"), labels("DO")) == labels("DO")
    assert patient_labels_from_eyes(labels("N"), labels("N")) == labels("N")
    assert patient_labels_from_eyes(labels("N"), None) == labels("N")
    assert patient_labels_from_eyes(None, None) is None


def test_keywords_reproduce_the_released_patient_labels(fundus_data: Path) -> None:
    records = load_records(fundus_data / "odir").records
    agreeing = sum(
        patient_labels_from_eyes(record.left_labels, record.right_labels) == record.labels
        for record in records
    )
    # All 2,319 do; one patient in a thousand leaves room for another copy of the collection.
    assert agreeing >= 0.999 * len(records)
