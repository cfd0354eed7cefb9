"""From what was recorded on a Jetson to the figures of its row; `benchmarks/jetson.py` explains it.

What the board does not tell is None, and named with the reason among what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fundus_benchmarks.jetson.board_power import PowerInput, input_w, power_input
from fundus_benchmarks.jetson.stretches import Series, Stretch
from fundus_benchmarks.jetson.sustained import Recording, TimedExam
from fundus_benchmarks.jetson.tegrastats import Clocked, TegraSample
from fundus_runtime.latency.timing import Timing

__all__ = ["jetson_row", "missing_of"]

# Samples come every 100 ms; a hole of this length could hide anything.
_LONGEST_GAP_S = 1.0
# Two stretches of the same load differ by less, and a step of a governor is larger.
_CLOCK_FELL = 0.95
_MOST_POINTS = 120
_CPU_ALONE = "CPUExecutionProvider"

Values = dict[str, "float | None"]


@dataclass(frozen=True)
class _Told:
    """What the board told over time, and the beginning and end of the load.

    Attributes:
        rails: all that tegrastats named.
        source: those that are the input; None where that is not known.
        power_w: the input power.
        clocks_mhz: the highest clock of `cpu`, `gpu` and `memory`.
        temperatures_c: by sensor.
        fresh: the load's beginning.
        sustained: the load's end.
    """

    rails: tuple[str, ...]
    source: PowerInput | None
    power_w: Series
    clocks_mhz: Mapping[str, Series]
    temperatures_c: Mapping[str, Series]
    fresh: Stretch
    sustained: Stretch

    @classmethod
    def of(cls, recording: Recording) -> _Told:
        samples = [(one.at_s, one.sample) for one in recording.samples]
        rails = dict.fromkeys(name for _, sample in samples for name in sample.rails)
        sensors = sorted({name for _, sample in samples for name in sample.temperatures_c})
        source = power_input(rails)
        window = min(recording.plan.window_s, recording.load.seconds / 2)
        return cls(
            rails=tuple(rails),
            source=source,
            power_w=Series.of(
                (at, None if source is None else input_w(sample.rails, source))
                for at, sample in samples
            ),
            clocks_mhz=_clocks(recording),
            temperatures_c={
                name: Series.of((at, sample.temperatures_c.get(name)) for at, sample in samples)
                for name in sensors
            },
            fresh=recording.load.first(window),
            sustained=recording.load.last(window),
        )


def jetson_row(recording: Recording, *, model: str) -> dict[str, Any]:
    """The row of one run.

    Args:
        recording: of the run.
        model: name of the bundle.
    """
    told, engine = _Told.of(recording), asdict(recording.engine)
    names = ("backend", "provider", "dialect", "precision", "threads", "degraded_reason")
    clocks = _clock_figures(recording, told)
    signs, unknown = _signs(recording, clocks), _not_told(recording, clocks)
    return {
        "model": model,
        **{name: engine[name] for name in names},
        "golden_pairs": recording.golden_pairs,
        "seconds": round(recording.load.seconds, 1),
        "exams": len(recording.exams),
        "fresh": _latencies(recording.exams, told.fresh),
        "sustained": _latencies(recording.exams, told.sustained),
        "power": _power_figures(recording, told),
        "clocks_pinned": recording.clocks_pinned,
        "clocks_mhz": clocks,
        "temperatures_c": _temperature_figures(recording, told),
        "throttled": True if signs else (None if unknown else False),
        "throttled_because": signs,
        "throttling_not_told": unknown,
        "series": _series(recording, told),
    }


def missing_of(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the board did not tell, and why, for the part's `missing`."""
    power = row["power"]
    found = []
    if power["covers"] is None:
        rails = ", ".join(power["rails"]) or "none"
        found.append(("energy", f"no total is known of the rails that tegrastats tells: {rails}"))
    elif power["net_j_per_exam"] is None:
        found.append(
            ("energy", f"tegrastats gave no power for more than {_LONGEST_GAP_S:.0f} s on end")
        )
    found += [
        (f"{name} clock", "neither tegrastats nor sysfs tells it to this user")
        for name, clock in row["clocks_mhz"].items()
        if clock["fresh"] is None
    ]
    if row["throttled"] is None:
        found.append(("throttling", "not told: " + ", ".join(row["throttling_not_told"])))
    return [{"what": what, "why": why} for what, why in found]


def _latencies(exams: Sequence[TimedExam], stretch: Stretch) -> dict[str, Any]:
    inside = [exam for exam in exams if stretch.holds(exam.ended_s)]
    stages = dict.fromkeys(stage for exam in inside for stage in exam.stages_ms)
    return {
        "seconds": round(stretch.seconds, 1),
        "pair": _timing(exam.ms for exam in inside),
        "stages": {
            stage: _timing(exam.stages_ms[stage] for exam in inside if stage in exam.stages_ms)
            for stage in stages
        },
    }


def _timing(durations_ms: Iterable[float]) -> dict[str, float] | None:
    durations = list(durations_ms)
    return Timing.of(durations).to_dict() if durations else None


def _power_figures(recording: Recording, told: _Told) -> dict[str, Any]:
    load, exams = recording.load, len(recording.exams)
    gross_j, rest_w = _energy_j(told.power_w, load), _mean_w(told.power_w, recording.rest)
    net_j = None if gross_j is None or rest_w is None else gross_j - rest_w * load.seconds
    return {
        "covers": None if told.source is None else told.source.covers,
        "rails": list(told.rails if told.source is None else told.source.rails),
        "samples": len(told.power_w.within(load)),
        "longest_gap_ms": round(1e3 * told.power_w.longest_gap_s(load)),
        "rest_w": _rounded(rest_w),
        "ready_w": _rounded(_mean_w(told.power_w, recording.ready)),
        "load_w": _rounded(_mean_w(told.power_w, load)),
        "fresh_w": _rounded(_mean_w(told.power_w, told.fresh)),
        "sustained_w": _rounded(_mean_w(told.power_w, told.sustained)),
        "gross_j_per_exam": None if gross_j is None else round(gross_j / exams, 5),
        "net_j_per_exam": None if net_j is None else round(net_j / exams, 5),
    }


def _energy_j(power_w: Series, stretch: Stretch) -> float | None:
    return None if power_w.longest_gap_s(stretch) > _LONGEST_GAP_S else power_w.integral(stretch)


def _mean_w(power_w: Series, stretch: Stretch) -> float | None:
    energy = _energy_j(power_w, stretch)
    return None if energy is None or stretch.seconds == 0 else energy / stretch.seconds


def _clocks(recording: Recording) -> dict[str, Series]:
    """The GPU's from sysfs, and from tegrastats only where that has none."""
    gpu = Series.of((one.at_s, one.gpu_mhz) for one in recording.readings)
    return {
        "cpu": _highest_clock(recording, lambda sample: sample.cores),
        "gpu": gpu if gpu.values else _highest_clock(recording, lambda sample: [sample.gpu]),
        "memory": _highest_clock(recording, lambda sample: [sample.memory]),
    }


def _highest_clock(
    recording: Recording, parts: Callable[[TegraSample], Sequence[Clocked | None]]
) -> Series:
    return Series.of(
        (
            one.at_s,
            max(
                (mhz for part in parts(one.sample) if part for mhz in part.clocks_mhz), default=None
            ),
        )
        for one in recording.samples
    )


def _clock_figures(recording: Recording, told: _Told) -> dict[str, Values]:
    allowed = {"cpu": recording.cpu_bound_mhz, "gpu": recording.gpu_bound_mhz}
    return {
        name: {
            "fresh": _rounded(clock.median(told.fresh), 1),
            "sustained": _rounded(clock.median(told.sustained), 1),
            "lowest": _rounded(clock.lowest(recording.load), 1),
            "allowed": _rounded(allowed.get(name), 1),
        }
        for name, clock in told.clocks_mhz.items()
    }


def _temperature_figures(recording: Recording, told: _Told) -> dict[str, Values]:
    return {
        sensor: {
            "rest": _rounded(heat.median(recording.rest), 1),
            "fresh": _rounded(heat.median(told.fresh), 1),
            "sustained": _rounded(heat.median(told.sustained), 1),
            "highest": _rounded(heat.highest(recording.load), 1),
        }
        for sensor, heat in told.temperatures_c.items()
    }


def _signs(recording: Recording, clocks: Mapping[str, Values]) -> list[str]:
    """All that says that the chip was slowed down during the load."""
    alerts = [one.alerts or () for one in recording.readings if recording.load.holds(one.at_s)]
    signs = [
        f"{alert} was on in {sum(alert in one for one in alerts)} of {len(alerts)} readings"
        for alert in sorted({alert for one in alerts for alert in one})
    ]
    signs += [f"{name}: {n} events" for name, n in (recording.events or {}).items() if n > 0]
    for name in _kept_busy(recording):
        fresh, sustained = clocks[name]["fresh"], clocks[name]["sustained"]
        if fresh is not None and sustained is not None and sustained < _CLOCK_FELL * fresh:
            free = "" if recording.clocks_pinned else ", the governor being free to do so"
            signs.append(f"the {name} clock fell from {fresh:.0f} to {sustained:.0f} MHz{free}")
    return signs


def _not_told(recording: Recording, clocks: Mapping[str, Values]) -> list[str]:
    """Without which nobody can say that nothing was slowed down."""
    during = [one for one in recording.readings if recording.load.holds(one.at_s)]
    unknown = [f"{name} clock" for name in _kept_busy(recording) if clocks[name]["fresh"] is None]
    if all(one.alerts is None for one in during):
        unknown.append("throttle alerts")
    if recording.events is None:
        unknown.append("over-current events")
    return unknown


def _kept_busy(recording: Recording) -> tuple[str, ...]:
    """What the load keeps at its clock; that of an idle GPU means nothing."""
    return ("cpu",) if recording.engine.provider == _CPU_ALONE else ("cpu", "gpu")


def _series(recording: Recording, told: _Told) -> list[Values]:
    """The load over time in equal parts of at least a second; medians of each."""
    load = recording.load
    pairs = Series.of((exam.ended_s, exam.ms) for exam in recording.exams)
    hottest = Series.of(
        (one.at_s, max(one.sample.temperatures_c.values(), default=None))
        for one in recording.samples
    )
    return [
        {
            "t_s": round((part.start_s + part.end_s) / 2 - load.start_s, 2),
            "pair_ms": _rounded(pairs.median(part)),
            "power_w": _rounded(told.power_w.median(part)),
            "hottest_c": _rounded(hottest.median(part), 1),
            **{
                f"{name}_mhz": _rounded(clock.median(part), 1)
                for name, clock in told.clocks_mhz.items()
            },
        }
        for part in load.parts(max(1, min(_MOST_POINTS, int(load.seconds))))
    ]


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
