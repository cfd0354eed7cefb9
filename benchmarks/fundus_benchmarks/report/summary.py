"""The few figures of a run that matter most, for the head of the page and the end of a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fundus_benchmarks.report.latency_rows import (
    STAGE_NAMES,
    Row,
    contender_name,
    device_of,
    fastest_own,
    is_peer,
    models_of,
)
from fundus_benchmarks.report.numerals import measured, number, percent, times
from fundus_benchmarks.results.kept import Run

__all__ = ["key_figures"]

_SHOWN = ("pair", "second_eye", "first_result")


def key_figures(run: Run) -> list[tuple[str, str]]:
    """Name and value of each."""
    latency = run.rows("latency")
    return [
        *(figure for model in models_of(latency) for figure in _of_model(latency, model)),
        *_of_forms(run.rows("faithfulness")),
    ]


def _of_model(latency: Sequence[Row], model: str) -> Iterator[tuple[str, str]]:
    rows = [row for row in latency if row.get("model") == model]
    for stage in _SHOWN:
        row = fastest_own(rows, stage) or fastest_own(rows, stage, "gpu")
        if row is not None:
            form = f" ({row['dialect']})" if row.get("dialect") else ""
            yield f"{model}{form}, {STAGE_NAMES[stage]}", f"{number(row['p50_ms'])} ms"
    pair = fastest_own(rows, "pair")
    peer = min(
        (
            row
            for row in rows
            if is_peer(row)
            and row.get("stage") == "pair"
            and device_of(row.get("provider")) == "cpu"
            and measured(row.get("p50_ms")) is not None
        ),
        key=lambda row: float(row["p50_ms"]),
        default=None,
    )
    if pair is not None and peer is not None:
        ratio = times(float(peer["p50_ms"]) / float(pair["p50_ms"]))
        yield f"{model}, pair of the fastest peer, {contender_name(peer)}", ratio


def _of_forms(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for row in rows:
        if row.get("source") == "measured" and measured(row.get("flip_share")) is not None:
            name = " ".join(str(row[key]) for key in ("model", "dialect") if row.get(key))
            changed = f"{percent(row['flip_share'])} (≤ {percent(row.get('flip_upper'))})"
            yield f"{name}, class decisions that differ from FP32", changed
