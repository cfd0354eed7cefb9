"""Lines that real boards printed come out as numbers; what is no line is a typed error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus_benchmarks.jetson.board_power import input_w, power_input
from fundus_benchmarks.jetson.tegrastats import (
    Clocked,
    Rail,
    TegraSample,
    TegrastatsError,
    parse_line,
)

DATA = Path(__file__).with_name("data") / "tegrastats.txt"
RECORDED = dict(re.findall(r"^# (\w+): .*\n(.+)$", DATA.read_text("utf-8"), re.MULTILINE))


def recorded(name: str) -> TegraSample:
    return parse_line(RECORDED[name])


def test_every_line_of_the_file_is_read() -> None:
    lines = [line for line in DATA.read_text("utf-8").splitlines() if line[:1] not in ("#", "")]
    assert list(RECORDED.values()) == lines
    assert len(lines) >= 12


@pytest.mark.parametrize(
    ("name", "ram", "swap"),
    [
        ("agx_orin_jetpack_5", (1282, 62795), (0, 31398)),
        ("agx_orin_jetpack_6", (18207, 62841), (86, 31420)),
        ("agx_orin_jetpack_7", (999, 62841), (None, None)),
        ("orin_nano", (3452, 7620), (1518, 16384)),
        ("thor", (17842, 125772), (None, None)),
        ("thor_jetpack_7_2", (36529, 125749), (11, 4096)),
    ],
)
def test_memory_is_used_and_total(name: str, ram: object, swap: object) -> None:
    sample = recorded(name)
    assert (sample.ram_used_mb, sample.ram_total_mb) == ram
    assert (sample.swap_used_mb, sample.swap_total_mb) == swap


def test_every_core_has_its_own_load_and_clock() -> None:
    cores = recorded("agx_orin_jetpack_6").cores
    assert len(cores) == 12
    assert cores[0] == Clocked(14, (2188,))
    assert cores[4] == Clocked(46, (1267,))
    assert cores[11] == Clocked(10, (1036,))


def test_cores_that_are_off_have_neither() -> None:
    cores = recorded("agx_orin_cores_off").cores
    assert cores == (Clocked(0, (729,)),) * 8 + (None,) * 4


def test_cores_may_share_a_clock() -> None:
    cores = parse_line("RAM 1/2MB CPU [0%, 5%,off]@2601").cores
    assert cores == (Clocked(0, (2601,)), Clocked(5, (2601,)), None)


@pytest.mark.parametrize(
    ("name", "memory", "gpu"),
    [
        ("agx_orin_jetpack_5", Clocked(0, (2133,)), Clocked(0, (0,))),
        ("agx_orin_jetpack_5_busy", Clocked(1, (2133,)), Clocked(14, (407, 407))),
        ("orin_nano_busy", Clocked(43, (2133,)), Clocked(63, (621,))),
        ("orin_nano", None, Clocked(0, ())),
        ("thor_as_root", Clocked(0, (2750,)), Clocked(None, (314, 314, 314))),
        ("thor", None, None),
        ("thor_jetpack_7_2", None, None),
    ],
)
def test_memory_and_gpu_tell_what_the_user_may_see(
    name: str, memory: Clocked | None, gpu: Clocked | None
) -> None:
    sample = recorded(name)
    assert sample.memory == memory
    assert sample.gpu == gpu


def test_temperatures_have_lower_case_names_on_every_release() -> None:
    old, new = recorded("agx_orin_jetpack_5_busy"), recorded("orin_nano_busy")
    assert old.temperatures_c["cpu"] == 77.281
    assert old.temperatures_c["tdiode"] == 62.25
    assert new.temperatures_c["gpu"] == 53.343
    assert list(recorded("thor").temperatures_c) == ["cpu", "tj", "soc012", "soc345"]


def test_of_a_temperature_now_and_its_highest_now_counts() -> None:
    assert recorded("agx_orin_jetpack_7").temperatures_c["tj"] == 42.906


def test_a_sensor_that_is_off_has_no_temperature() -> None:
    sample = recorded("agx_orin_jetpack_5")
    assert "gpu" not in sample.temperatures_c
    assert "GPU@-256C" in sample.other


@pytest.mark.parametrize(
    ("name", "rail", "power"),
    [
        ("agx_orin_jetpack_5_busy", "VDD_CPU_CV", Rail(14312, 12415)),
        ("agx_orin_jetpack_7", "VIN_SYS_5V0", Rail(3918, 3952)),
        ("orin_nx", "VDD_IN", Rail(4304, 4304)),
        ("thor_jetpack_7_2", "VIN", Rail(87426, 43713)),
        ("thor_below_zero", "VDD_GPU", Rail(-392, -392)),
    ],
)
def test_a_rail_is_now_and_on_average(name: str, rail: str, power: Rail) -> None:
    assert recorded(name).rails[rail] == power


def test_channels_that_are_not_connected_are_no_rails() -> None:
    assert list(recorded("agx_orin_jetpack_5").rails) == [
        "VDD_GPU_SOC",
        "VDD_CPU_CV",
        "VIN_SYS_5V0",
        "VDDQ_VDD2_1V8AO",
    ]


@pytest.mark.parametrize(
    ("name", "watts", "covers"),
    [
        # 2399 + 400 + 4032; VDDQ_VDD2_1V8AO is a part of VIN_SYS_5V0
        ("agx_orin_jetpack_5", 6.831, "module"),
        ("agx_orin_jetpack_5_busy", 22.43, "module"),
        ("agx_orin_cores_off", 4.519, "module"),
        ("agx_orin_jetpack_7", 6.71, "module"),
        ("orin_nx", 4.304, "module"),
        ("orin_nano_busy", 12.479, "module"),
        ("thor", 16.802, "board"),
        ("thor_jetpack_7_2", 87.426, "board"),
        ("thor_below_zero", 15.004, "board"),
    ],
)
def test_the_input_is_the_boards_own_total(name: str, watts: float, covers: str) -> None:
    rails = recorded(name).rails
    source = power_input(rails)
    assert source is not None
    assert source.covers == covers
    assert input_w(rails, source) == pytest.approx(watts)


def test_no_total_is_made_up() -> None:
    rails = dict(recorded("thor").rails)
    source = power_input(rails)
    del rails["VIN"]
    assert source is not None
    assert power_input(rails) is None
    assert input_w(rails, source) is None


def test_what_is_not_known_is_kept_aside() -> None:
    sample = parse_line(RECORDED["orin_nano"] + " NPU_FREQ 7%@800 FAN 40rpm [3, 4] x@y")
    assert sample.rails == recorded("orin_nano").rails
    assert sample.other[-6:] == ("NPU_FREQ", "7%@800", "FAN", "40rpm", "[3, 4]", "x@y")
    assert recorded("thor_below_zero").other == ("(lfb 35x4MB)", "CPU", "[2%@972,...]")


def test_nothing_of_a_whole_line_gets_lost() -> None:
    sample = recorded("agx_orin_jetpack_6")
    line = RECORDED["agx_orin_jetpack_6"]
    aside = "NVENC 79%@166 NVDEC off NVJPG off NVJPG1 off VIC 36%@115 OFA off NVDLA0 off NVDLA1 off"
    assert " ".join(sample.other[2:]) == f"{aside} PVA0_FREQ off APE 174"
    assert sample.date == "05-09-2026 18:42:06"
    assert parse_line(line.partition(" RAM ")[1] + line.partition(" RAM ")[2]).date is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "05-09-2026 18:42:06",
        "tegrastats: command needs root",
        "RAM much CPU [0%@729]",
        "RAM 9999999999/1MB",
        "VDD_IN 4304mW/4304mW",
        "RAM 1/2MB " + "x" * 10000,
    ],
)
def test_what_is_no_line_is_a_typed_error(line: str) -> None:
    with pytest.raises(TegrastatsError, match="is no line of tegrastats"):
        parse_line(line)


WORDS = sorted({word for line in RECORDED.values() for word in line.split()})


@given(
    st.one_of(
        st.text(),
        st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=12))).map(" ".join),
        st.tuples(st.sampled_from(sorted(RECORDED.values())), st.integers(0, 700), st.text()).map(
            lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
        ),
    )
)
def test_any_text_is_a_sample_or_a_typed_error(line: str) -> None:
    try:
        sample = parse_line(line)
    except TegrastatsError:
        return
    assert sample.ram_total_mb >= 0
    assert all(core is None or core.load_percent is not None for core in sample.cores)
