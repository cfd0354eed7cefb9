"""Power over time becomes energy an exam; clocks, alerts and events become a verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fundus_benchmarks.jetson import tegrastats_log
from fundus_benchmarks.jetson.row import jetson_row, missing_of
from fundus_benchmarks.jetson.stretches import Series, Stretch
from fundus_benchmarks.jetson.sustained import Plan, Recording, TimedExam
from fundus_benchmarks.jetson.tegrastats import TegrastatsError, parse_line
from fundus_benchmarks.jetson.tegrastats_log import Sampled, TegrastatsLog
from fundus_benchmarks.jetson.throttling import ClockReading, JetsonNodes, NodeWatch
from fundus_runtime.result import EngineIdentity

ENGINE = EngineIdentity("tensorrt", "TensorRT", 4, "int8-trt", "int8-trt", "int8")
CPU = EngineIdentity("onnxruntime", "CPUExecutionProvider", 4, "int8-cpu", "int8-cpu", "int8")
REST, READY, LOAD = Stretch(0.0, 10.0), Stretch(12.0, 22.0), Stretch(22.0, 122.0)


def sampled(at_s: float, rails: str = "VDD_IN 5000mW/1mW", mhz: int = 1500) -> Sampled:
    heat = 40 + at_s / 10
    line = f"RAM 1/2MB CPU [9%@{mhz},5%@729,off] EMC_FREQ 3%@2133 tj@{heat:.3f}C cpu@40C {rails}"
    return Sampled(at_s, parse_line(line))


def samples(
    rails: Callable[[float], str], every_s: float = 0.1, end_s: float = 123.0
) -> tuple[Sampled, ...]:
    return tuple(sampled(k * every_s, rails(k * every_s)) for k in range(int(end_s / every_s) + 1))


def one_step(at_s: float) -> str:
    """5 W until the load begins, 12 W from then on; at the step itself the mean of both."""
    milliwatts = 5000 if at_s < 21.99 else (8500 if at_s < 22.01 else 12000)
    return f"VDD_IN {milliwatts}mW/1mW VDD_SOC 1000mW/1mW"


def readings(mhz: Sequence[float | None], alerts: tuple[str, ...] | None = ()) -> Any:
    return tuple(ClockReading(22.5 + k, one, alerts) for k, one in enumerate(mhz))


STEADY = Recording(
    plan=Plan(load_s=100.0),
    engine=ENGINE,
    golden_pairs=32,
    rest=REST,
    ready=READY,
    load=LOAD,
    # 10 ms an exam in the first half of the load, 12 ms in the second
    exams=[
        TimedExam(22.0 + k / 2, 10.0 if k <= 100 else 12.0, {"encode": 4.0, "head": 1.0})
        for k in range(1, 201)
    ],
    samples=samples(one_step),
    readings=readings([1300.0] * 100),
    gpu_bound_mhz=1300.0,
    cpu_bound_mhz=2201.6,
    clocks_pinned=True,
    events={"oc1": 0, "oc2": 0, "oc3": 0},
)


def test_energy_is_the_area_below_the_power() -> None:
    power = Series((0.0, 1.0, 2.0, 4.0), (10.0, 20.0, 20.0, 0.0))
    # 0.5 s from 15 to 20 W, 1 s at 20 W, 1 s from 20 to 10 W
    assert power.integral(Stretch(0.5, 3.0)) == pytest.approx(8.75 + 20.0 + 15.0)
    assert power.integral(Stretch(1.25, 1.75)) == pytest.approx(10.0)
    assert power.integral(Stretch(0.0, 4.0)) == pytest.approx(15.0 + 20.0 + 20.0)


@pytest.mark.parametrize("stretch", [Stretch(-0.1, 2.0), Stretch(1.0, 4.1)])
def test_there_is_no_energy_of_a_time_that_was_not_sampled(stretch: Stretch) -> None:
    assert Series((0.0, 4.0), (10.0, 20.0)).integral(stretch) is None
    assert Series((), ()).integral(Stretch(0.0, 0.0)) is None


def test_energy_an_exam_is_gross_and_without_the_board_at_rest() -> None:
    power = jetson_row(STEADY, model="edge")["power"]
    # the load: 0.1 s from 8.5 to 12 W, then 99.9 s at 12 W
    gross_j = 1.025 + 99.9 * 12.0
    assert power["gross_j_per_exam"] == pytest.approx(gross_j / 200, abs=1e-5)
    assert power["net_j_per_exam"] == pytest.approx((gross_j - 100 * 5.0) / 200, abs=1e-5)
    assert (power["rest_w"], power["ready_w"]) == (5.0, pytest.approx(5.018, abs=1e-3))
    assert (power["rails"], power["covers"]) == (["VDD_IN"], "module")
    assert power["samples"] == 1001
    assert power["longest_gap_ms"] == 100


def test_the_rails_of_an_agx_orin_are_added_up() -> None:
    rails = "VDD_GPU_SOC 3000mW/1mW VDD_CPU_CV 1000mW/1mW VIN_SYS_5V0 4000mW/1mW"
    recording = replace(STEADY, samples=samples(lambda _: rails))
    assert jetson_row(recording, model="edge")["power"]["load_w"] == 8.0


def test_a_board_whose_total_is_not_known_has_no_energy() -> None:
    row = jetson_row(replace(STEADY, samples=samples(lambda _: "VDD_GPU 1mW/1mW")), model="edge")
    assert row["power"]["covers"] is None
    assert row["power"]["gross_j_per_exam"] is None
    assert row["power"]["load_w"] is None
    (missing,) = missing_of(row)
    assert missing["what"] == "energy"
    assert "VDD_GPU" in missing["why"]


def test_a_hole_in_the_samples_is_no_energy() -> None:
    holed = [one for one in STEADY.samples if not 60.0 < one.at_s < 61.2]
    row = jetson_row(replace(STEADY, samples=holed), model="edge")
    assert row["power"]["gross_j_per_exam"] is None
    assert row["power"]["rest_w"] == 5.0
    assert row["power"]["longest_gap_ms"] == 1200
    assert [one["what"] for one in missing_of(row)] == ["energy"]


def test_fresh_is_how_the_load_begins_and_sustained_how_it_ends() -> None:
    row = jetson_row(STEADY, model="edge")
    assert row["fresh"]["pair"]["p50_ms"] == 10.0
    assert row["sustained"]["pair"]["p99_ms"] == 12.0
    assert row["fresh"]["pair"]["count"] == 60
    assert row["fresh"]["stages"]["encode"]["p50_ms"] == 4.0
    assert (row["seconds"], row["exams"]) == (100.0, 200)


def test_a_short_load_is_halved() -> None:
    short = replace(STEADY, load=Stretch(22.0, 42.0))
    row = jetson_row(short, model="edge")
    assert row["fresh"]["seconds"] == row["sustained"]["seconds"] == 10.0


def test_heat_and_clocks_are_told_over_the_load() -> None:
    row = jetson_row(STEADY, model="edge")
    assert row["temperatures_c"]["tj"] == {
        "rest": 40.5,
        "fresh": 43.7,
        "sustained": 50.7,
        "highest": 52.2,
    }
    assert row["clocks_mhz"]["gpu"]["allowed"] == 1300.0
    assert row["clocks_mhz"]["cpu"]["sustained"] == 1500.0
    assert row["clocks_mhz"]["memory"]["lowest"] == 2133.0
    assert len(row["series"]) == 100
    assert row["series"][0] == {
        "t_s": 0.5,
        "pair_ms": 10.0,
        "power_w": 12.0,
        "hottest_c": 42.2,
        "cpu_mhz": 1500.0,
        "gpu_mhz": 1300.0,
        "memory_mhz": 2133.0,
    }


def test_a_board_that_kept_its_clocks_was_not_throttled() -> None:
    row = jetson_row(STEADY, model="edge")
    assert row["throttled"] is False
    assert row["throttled_because"] == row["throttling_not_told"] == missing_of(row) == []


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (
            {"readings": readings([1300.0] * 50 + [1100.0] * 50)},
            "the gpu clock fell from 1300 to 1100 MHz",
        ),
        (
            {"readings": readings([1300.0] * 50 + [1100.0] * 50), "clocks_pinned": False},
            "the gpu clock fell from 1300 to 1100 MHz, the governor being free to do so",
        ),
        (
            {"readings": readings([1300.0] * 4, ("gpu-throttle-alert",))},
            "gpu-throttle-alert was on in 4 of 4 readings",
        ),
        ({"events": {"oc1": 0, "oc3": 7}}, "oc3: 7 events"),
    ],
)
def test_what_slows_the_chip_down_is_said(change: dict[str, Any], because: str) -> None:
    row = jetson_row(replace(STEADY, **change), model="edge")
    assert row["throttled"] is True
    assert row["throttled_because"] == [because]


def test_without_anything_to_read_nobody_says_no() -> None:
    blind = replace(STEADY, readings=readings([None] * 100, None), events=None)
    row = jetson_row(blind, model="edge")
    assert row["throttled"] is None
    assert row["throttling_not_told"] == ["gpu clock", "throttle alerts", "over-current events"]
    assert [one["what"] for one in missing_of(row)] == ["gpu clock", "throttling"]


def test_the_clock_of_an_idle_gpu_means_nothing() -> None:
    falling = readings([1300.0] * 50 + [306.0] * 50)
    row = jetson_row(replace(STEADY, engine=CPU, readings=falling), model="edge")
    assert row["throttled"] is False


def test_where_sysfs_has_no_gpu_tegrastats_tells_its_clock() -> None:
    lines = [
        Sampled(one.at_s, replace(one.sample, gpu=replace(one.sample.cores[0], clocks_mhz=(9, 11))))
        for one in STEADY.samples
    ]
    row = jetson_row(replace(STEADY, readings=readings([None] * 9), samples=lines), model="edge")
    assert row["clocks_mhz"]["gpu"]["fresh"] == 11.0


def write(root: Path, files: dict[str, object]) -> JetsonNodes:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return JetsonNodes(root)


ORIN = {
    "class/devfreq/17000000.gpu/cur_freq": 1020000000,
    "class/devfreq/17000000.gpu/min_freq": 1020000000,
    "class/devfreq/17000000.gpu/max_freq": 1020000000,
    "class/devfreq/15340000.vic/cur_freq": 729600000,
    "devices/system/cpu/cpufreq/policy0/scaling_min_freq": 1728000,
    "devices/system/cpu/cpufreq/policy0/scaling_max_freq": 1728000,
    "class/thermal/cooling_device0/type": "pwm-fan",
    "class/thermal/cooling_device0/cur_state": 3,
    "class/thermal/cooling_device1/type": "cpu-throttle-alert",
    "class/thermal/cooling_device1/cur_state": 0,
    "class/thermal/cooling_device2/type": "gpu-throttle-alert",
    "class/thermal/cooling_device2/cur_state": 1,
    "class/hwmon/hwmon3/oc1_event_cnt": 0,
    "class/hwmon/hwmon3/oc1_throt_en": 1,
    "class/hwmon/hwmon3/oc2_event_cnt": 4,
    "class/hwmon/hwmon3/oc2_throt_en": 0,
    "class/hwmon/hwmon3/oc3_event_cnt": 37,
}


def test_the_nodes_of_an_orin_are_read(tmp_path: Path) -> None:
    nodes = write(tmp_path, ORIN)
    reading = nodes.read()
    assert reading.gpu_mhz == nodes.gpu_bound_mhz() == 1020.0
    assert nodes.cpu_bound_mhz() == 1728.0
    assert reading.alerts == ("gpu-throttle-alert",)
    # oc2 is counted there but slows nothing down
    assert nodes.over_current() == {"oc1": 0, "oc3": 37}
    assert nodes.clocks_pinned() is True


def test_clocks_with_a_choice_are_not_pinned(tmp_path: Path) -> None:
    loose = {**ORIN, "devices/system/cpu/cpufreq/policy0/scaling_min_freq": 729600}
    assert write(tmp_path, loose).clocks_pinned() is False


def test_thors_video_engines_are_not_its_gpu(tmp_path: Path) -> None:
    nodes = write(
        tmp_path,
        {
            "class/devfreq/gpu-gpc-0/cur_freq": 1575000000,
            "class/devfreq/gpu-nvd-0/cur_freq": 1692000000,
        },
    )
    assert nodes.read().gpu_mhz == 1575.0


def test_nodes_that_are_not_there_or_make_no_sense_are_no_answer(tmp_path: Path) -> None:
    nodes = JetsonNodes(tmp_path)
    reading = nodes.read()
    assert (reading.gpu_mhz, reading.alerts) == (None, None)
    assert nodes.over_current() is None
    assert nodes.clocks_pinned() is None
    assert nodes.cpu_bound_mhz() is None
    odd = write(tmp_path, {**ORIN, "class/devfreq/17000000.gpu/cur_freq": "<unsupported>"})
    assert odd.read().gpu_mhz is None


def test_nodes_are_read_again_and_again(tmp_path: Path) -> None:
    nodes = write(tmp_path, ORIN)
    with NodeWatch(nodes, every_s=0.01) as watch:
        time.sleep(0.2)
    assert len(watch.readings) > 3
    times = [one.at_s for one in watch.readings]
    assert times == sorted(times)


@pytest.fixture
def tegrastats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of this name and with these lines of shell on the path, first."""

    def put(script: str) -> None:
        program = tmp_path / "tegrastats"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return put


def test_lines_are_joined_with_the_time_at_which_they_came(
    tegrastats: Callable[[str], None],
) -> None:
    tegrastats(
        'echo "a warning"; n=0; while :; do n=$((n+1)); '
        'echo "RAM $n/99MB CPU [1%@$2] VDD_IN 5mW/5mW"; sleep 0.05; done'
    )
    before = time.perf_counter()
    with TegrastatsLog(interval_ms=50) as log:
        while len(found := log.samples()) < 5 and time.perf_counter() < before + 10:
            time.sleep(0.05)
    after = time.perf_counter()
    assert [one.sample.ram_used_mb for one in found] == list(range(1, len(found) + 1))
    core = found[0].sample.cores[0]
    assert core is not None
    assert core.clocks_mhz == (50,)  # the interval that was asked for
    times = [one.at_s for one in found]
    assert before < times[0] < times[-1] < after
    assert (times[-1] - times[0]) / (len(times) - 1) > 0.04


def test_no_program_is_left_behind(tegrastats: Callable[[str], None], tmp_path: Path) -> None:
    tegrastats(f"echo $$ > {tmp_path}/pid; while :; do echo RAM 1/2MB; sleep 0.05; done")
    with TegrastatsLog():
        number = (tmp_path / "pid").read_text().strip()
        assert Path("/proc", number).exists()
    assert not Path("/proc", number).exists()


def test_a_program_that_says_nothing_of_use_is_a_typed_error(
    tegrastats: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tegrastats_log, "_FIRST_LINE_S", 0.3)
    tegrastats("echo 'cannot open the power monitor' >&2; exit 1")
    with pytest.raises(TegrastatsError, match="cannot open the power monitor"), TegrastatsLog():
        pass
    tegrastats("exec sleep 60")
    with pytest.raises(TegrastatsError, match="no line that can be read"), TegrastatsLog():
        pass


def test_without_the_program_there_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TegrastatsError, match="no tegrastats on the path"), TegrastatsLog():
        pass
