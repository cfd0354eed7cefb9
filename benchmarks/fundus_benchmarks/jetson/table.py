"""The part `jetson` as lines of text; what the board did not tell is called unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["jetson_table"]

_CLOCK_COLUMNS = ("fresh", "sustained", "allowed")


def jetson_table(part: Mapping[str, Any]) -> str:
    """The part as lines of text."""
    (row,), machine = part["rows"], part["machine"]
    power = row["power"]
    lines = [
        f"{_or_unknown(machine['device'])}, Jetson Linux {_or_unknown(part['l4t'])}, power mode "
        f"{_or_unknown(machine['power_mode'])}, clocks pinned {_yes_no(row['clocks_pinned'])}",
        f"{row['model']}, {row['dialect']} ({row['precision']}) on {row['provider']}, "
        f"{row['exams']} exams in {row['seconds']:g} s",
        "",
        f"{'milliseconds':<26} {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8} {'times':>7}",
        *(line for when in ("fresh", "sustained") for line in _latency_lines(row[when], when)),
        "",
        f"{'power':<26} at rest {_unit(power['rest_w'], 'W')}, open and waiting "
        f"{_unit(power['ready_w'], 'W')}, exams {_unit(power['load_w'], 'W')}",
        f"{'energy an exam':<26} {_unit(power['gross_j_per_exam'], 'J')}, without the board at "
        f"rest {_unit(power['net_j_per_exam'], 'J')}; {_covers(power)}",
        *(
            f"{name + ' clock':<26} "
            + ", ".join(f"{when} {_unit(clock[when], 'MHz')}" for when in _CLOCK_COLUMNS)
            for name, clock in row["clocks_mhz"].items()
        ),
        f"{'degrees Celsius':<26} " + _heat(row["temperatures_c"]),
        f"{'throttled':<26} {_yes_no(row['throttled'])}"
        + "".join(f"; {why}" for why in row["throttled_because"]),
        *(f"not told: {one['what']} ({one['why']})" for one in part["missing"]),
    ]
    return "\n".join(lines)


def _latency_lines(found: Mapping[str, Any], when: str) -> list[str]:
    rows = {f"{when}, pair": found["pair"]}
    rows |= {f"  {stage.replace('_', ' ')}": timing for stage, timing in found["stages"].items()}
    return [_timing_line(words, timing) for words, timing in rows.items() if timing is not None]


def _timing_line(words: str, timing: Mapping[str, float]) -> str:
    columns = " ".join(f"{timing[key]:8.2f}" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms"))
    return f"{words:<26} {columns} {timing['count']:7d}"


def _covers(power: Mapping[str, Any]) -> str:
    if power["covers"] is None:
        return "the board's total is not known"
    carrier = "with" if power["covers"] == "board" else "without"
    return f"{' + '.join(power['rails'])}, {carrier} the carrier board"


def _heat(temperatures: Mapping[str, Mapping[str, float | None]]) -> str:
    return ", ".join(
        f"{sensor} {_or_unknown(heat['rest'])} to {_or_unknown(heat['highest'])}"
        for sensor, heat in temperatures.items()
    )


def _unit(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g} {unit}"


def _or_unknown(value: object) -> str:
    return "unknown" if value is None else str(value)


def _yes_no(value: bool | None) -> str:
    return "unknown" if value is None else ("yes" if value else "no")
