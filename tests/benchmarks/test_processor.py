"""A processor is known by its numbers, and results of two of one name are not compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_run import MACHINE, MACHINE_NAME, Part, drawn_parts, on

from fundus_benchmarks.report.sections_run import other_processors
from fundus_benchmarks.results.kept import (
    RESULTS,
    ResultsError,
    Run,
    comparable,
    keep,
    kept_runs,
    previous,
)
from fundus_benchmarks.results.processor import (
    PROCESSOR,
    is_same_processor,
    may_be_same_processor,
    processor_identity,
)
from fundus_benchmarks.results.run_file import new_part

GENOA = "AuthenticAMD family 25 model 17 stepping 1"
MILAN = "AuthenticAMD family 25 model 1 stepping 1"

_X86 = """processor\t: {}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu vme

"""
# A board with large and small cores, as aarch64 lists them; Orin's have no name at all.
_ARM = """processor\t: {}
BogoMIPS\t: 62.50
Features\t: fp asimd
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {}
CPU revision\t: 1

"""


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        (_X86.format(0) + _X86.format(1), GENOA),
        (
            _ARM.format(0, "0xd42") + _ARM.format(1, "0xd42"),
            "implementer 0x41 part 0xd42 variant 0x0 revision 1",
        ),
        (
            _ARM.format(0, "0xd46") + _ARM.format(1, "0xd48") + _ARM.format(2, "0xd46"),
            "implementer 0x41 part 0xd46 variant 0x0 revision 1, "
            "implementer 0x41 part 0xd48 variant 0x0 revision 1",
        ),
        (
            "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143\n",
            "GenuineIntel family 6 model 143",
        ),
        ("processor : 0\nhart : 2\nisa : rv64\n", None),
        ("", None),
    ],
)
def test_a_processor_is_told_by_its_numbers(
    tmp_path: Path, text: str, identity: str | None
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor_identity(tmp_path / "cpuinfo") == identity


def test_a_host_without_the_file_tells_nothing(tmp_path: Path) -> None:
    assert processor_identity(tmp_path / "cpuinfo") is None


def test_every_part_says_which_processor_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "fundus_benchmarks.results.run_file.processor_identity"
    monkeypatch.setattr(module, lambda: GENOA)
    machine = new_part("growth", [], command="none")["machine"]
    assert machine[PROCESSOR] == GENOA
    assert PROCESSOR not in machine["not_available"]
    monkeypatch.setattr(module, lambda: None)
    machine = new_part("growth", [], command="none")["machine"]
    assert machine[PROCESSOR] is None
    assert PROCESSOR in machine["not_available"]


def test_what_is_not_known_may_be_the_same() -> None:
    assert may_be_same_processor(GENOA, GENOA)
    assert may_be_same_processor(GENOA, None)
    assert may_be_same_processor(None, None)
    assert not may_be_same_processor(GENOA, MILAN)


def test_what_is_not_known_is_not_known_to_be_the_same() -> None:
    assert is_same_processor(GENOA, GENOA)
    assert not is_same_processor(GENOA, MILAN)
    assert not is_same_processor(GENOA, None)
    assert not is_same_processor(None, None)


def test_parts_of_two_processors_are_no_run() -> None:
    parts = drawn_parts()
    with pytest.raises(ResultsError, match=f"more than one processor: latency from {GENOA}, gr"):
        Run.of([of(parts["latency"], GENOA), of(parts["growth"], MILAN)])
    assert Run.of([parts["latency"], of(parts["growth"], GENOA)]).processor == GENOA
    assert Run.of([parts["latency"]]).processor is None


def test_the_previous_run_is_one_on_the_same_processor() -> None:
    older, old, new = (
        _run(day, one) for day, one in zip("789", (GENOA, MILAN, GENOA), strict=True)
    )
    assert previous(new, "latency", [older, old]) is older
    assert previous(new, "latency", [old]) is None


def test_a_run_known_to_be_of_the_processor_goes_before_later_ones_that_do_not_tell() -> None:
    oldest, same, other, unknown = (
        _run(day, one) for day, one in zip("5678", (GENOA, GENOA, MILAN, None), strict=True)
    )
    runs = [oldest, same, other, unknown]
    assert previous(_run("9", GENOA), "latency", runs) is same
    assert previous(_run("9", GENOA), "latency", [other, unknown]) is unknown
    assert previous(_run("9", None), "latency", runs) is unknown
    # a run of the processor that lacks the part is no measure of it
    growth = Run.of([of(on(drawn_parts()["growth"], "2026-11-06"), GENOA)])
    assert previous(_run("9", GENOA), "latency", [growth, unknown]) is unknown


def test_a_run_that_does_not_tell_its_processor_is_named_so() -> None:
    assert _run("7", GENOA).day_and_commit == "2026-11-07, commit 0123456789ab"
    assert _run("7", None).day_and_commit == (
        "2026-11-07, commit 0123456789ab (its processor is not stated)"
    )


def test_runs_from_before_processors_were_told_are_compared_as_ever() -> None:
    unknown, new = _run("7", None), _run("9", GENOA)
    assert previous(new, "latency", [unknown]) is unknown
    assert previous(_run("9", None), "latency", [_run("7", GENOA)]) is not None
    runs = [run for folder in RESULTS.iterdir() for run in kept_runs(folder.name)]
    assert runs
    assert comparable(GENOA, runs) == [run for run in runs if run.processor in (None, GENOA)]


def test_both_are_kept_under_the_machine_s_name(tmp_path: Path) -> None:
    for one in (_run("7", GENOA), _run("8", MILAN)):
        keep(one, tmp_path)
    assert [run.processor for run in kept_runs(MACHINE_NAME, tmp_path)] == [GENOA, MILAN]


def test_what_is_not_compared_is_said() -> None:
    runs = [_run("6", MILAN), _run("7", MILAN), _run("8", None)]
    (said,) = other_processors(_run("9", GENOA), runs)
    assert said.startswith(f"2 kept runs of {MACHINE_NAME} not compared: measured on {MILAN}, ")
    assert GENOA in said
    assert list(other_processors(_run("9", MILAN), runs)) == []
    assert list(other_processors(_run("9", None), runs)) == []


def of(part: Part, processor: str | None) -> Part:
    """The same part, measured on a processor; None as before these were told."""
    told = {} if processor is None else {PROCESSOR: processor}
    return {**part, "machine": {**MACHINE, **told}}


def _run(day: str, processor: str | None) -> Run:
    return Run.of([of(on(drawn_parts()["latency"], f"2026-11-0{day}"), processor)])
