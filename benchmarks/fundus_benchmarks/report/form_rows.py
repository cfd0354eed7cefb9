"""Rows of the `faithfulness` part: forms of a model against the validated one, and their speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fundus_benchmarks.report.latency_rows import Row, fastest_own, is_peer
from fundus_benchmarks.report.numerals import measured
from fundus_runtime.labels import ODIR_CLASSES

__all__ = ["TimedForm", "form_name", "letters_of", "timed_forms", "untimed_forms"]


@dataclass(frozen=True)
class TimedForm:
    """A form whose score and whose pair were both measured.

    Attributes:
        name: of the form.
        model: which model's.
        score: of the challenge.
        pair: row of the `latency` part.
        is_peer: a peer in FP32, which the validated model's score is given to; its own
            preprocessing was not scored.
        interval: of the score, as the 95 % interval of its difference from the validated model's
            gives it; None where that is not known.
    """

    name: str
    model: str
    score: float
    pair: Row
    is_peer: bool = False
    interval: tuple[float, float] | None = None


def form_name(row: Row) -> str:
    """Model, dialect, and the engine that executed it."""
    parts = [str(row[key]) for key in ("model", "dialect") if row.get(key)]
    name = " ".join(parts) or "form"
    engine = [str(row[key]) for key in ("backend", "provider") if row.get(key)]
    return f"{name}, {' '.join(engine)}" if engine else name


def letters_of(rows: Sequence[Row]) -> list[str]:
    """The classes that have an AUC: ODIR's in their own order, then others."""
    found = dict.fromkeys(letter for row in rows for letter in row.get("auc_reference") or {})
    known = [letter for letter in ODIR_CLASSES.letters if letter in found]
    return [*known, *(letter for letter in found if letter not in known)]


def timed_forms(forms: Sequence[Row], latency: Sequence[Row]) -> list[TimedForm]:
    """Each form with its pair; beside each model the FP32 peers: PyTorch and the fastest."""
    found = []
    for form in forms:
        pair, score = _pair(form, latency), measured(form.get("score"))
        if pair is not None and score is not None:
            name, model = form_name(form), str(form["model"])
            found.append(TimedForm(name, model, score, pair, interval=_interval(form)))
    for model in dict.fromkeys(one.model for one in found):
        found += _peers(model, forms, latency)
    return found


def untimed_forms(forms: Sequence[Row], latency: Sequence[Row]) -> list[str]:
    """The forms that were counted and whose pair was not timed on this machine."""
    return [form_name(form) for form in forms if _pair(form, latency) is None]


def _interval(form: Row) -> tuple[float, float] | None:
    keys = ("score_reference", "score_difference_lower", "score_difference_upper")
    score, low, high = (measured(form.get(key)) for key in keys)
    return None if score is None or low is None or high is None else (score + low, score + high)


def _pair(form: Row, latency: Sequence[Row]) -> Row | None:
    """The product's pair in this form; on the form's own engine where it says which."""
    engine = [key for key in ("backend", "provider") if form.get(key)]
    rows = [
        row
        for row in latency
        if all(row.get(key) == form.get(key) for key in ("model", "dialect", *engine))
    ]
    return fastest_own(rows, "pair", "cpu") or fastest_own(rows, "pair", "gpu")


def _peers(model: str, forms: Sequence[Row], latency: Sequence[Row]) -> list[TimedForm]:
    own = [form for form in forms if form.get("model") == model]
    scores = (measured(form.get("score_reference")) for form in own)
    score = next((one for one in scores if one is not None), None)
    rows = [
        row
        for row in latency
        if row.get("model") == model
        and row.get("stage") == "pair"
        and is_peer(row)
        and "FP32" in str(row["contender"])
        and measured(row.get("p50_ms")) is not None
    ]
    if score is None or not rows:
        return []
    fastest = min(rows, key=lambda row: float(row["p50_ms"]))
    plain = [row for row in rows if row["contender"] == "PyTorch FP32" and row is not fastest]
    return [
        TimedForm(str(row["contender"]), model, score, row, is_peer=True)
        for row in (fastest, *plain)
    ]
