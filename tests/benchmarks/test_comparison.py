"""A slowdown beyond noise is found, and a slow day of the host is not taken for one."""

from __future__ import annotations

import pytest
from drawn_run import Part, drawn_part, drawn_parts, on, times_of

from fundus_benchmarks.results.comparison import LEAST_MARGIN, Comparison, compare
from fundus_benchmarks.results.kept import Run

SECOND_EYES = {("edge", "second_eye"), ("paper", "second_eye")}


def test_the_same_times_are_noise() -> None:
    found = _compared({}, {})
    assert {change.verdict for change in found.changes} == {"noise"}
    assert found.hosts["cpu"].ratio == 1
    assert (found.appeared, found.gone, dict(found.versions)) == ((), (), {})


def test_a_stage_that_takes_longer_is_slower_and_nothing_else_is() -> None:
    found = _compared({}, {"second_eye": 1.3})
    assert _rows(found, "slower") == SECOND_EYES
    assert [change.ratio for change in found.own("slower")] == pytest.approx([1.3, 1.3])
    assert found.own("faster") == ()


def test_a_stage_that_takes_less_is_faster() -> None:
    found = _compared({}, {"second_eye": 0.7})
    assert (_rows(found, "faster"), _rows(found, "slower")) == (SECOND_EYES, set())


def test_a_slow_host_is_no_slowdown() -> None:
    found = _compared({}, {"host": 1.5})
    assert _rows(found, "slower") == set()
    assert found.hosts["cpu"].ratio == pytest.approx(1.5, rel=1e-3)


def test_a_slowdown_on_a_slow_host_is_found() -> None:
    assert _rows(_compared({}, {"host": 1.5, "second_eye": 1.3}), "slower") == SECOND_EYES


def test_a_slowdown_that_a_fast_host_hides_is_found() -> None:
    found = _compared({}, {"host": 0.8, "second_eye": 1.25})
    assert _rows(found, "slower") == SECOND_EYES
    assert all(change.new_ms == pytest.approx(change.old_ms) for change in found.own("slower"))


@pytest.mark.parametrize(("longer", "slower"), [(1.09, set()), (1.12, SECOND_EYES)])
def test_up_to_the_margin_is_noise(longer: float, slower: set[object]) -> None:
    assert _rows(_compared({}, {"second_eye": longer}), "slower") == slower


def test_within_the_old_runs_tail_is_noise() -> None:
    old, new = _run({}, "2026-11-18"), _run({"second_eye": 1.3}, "2026-11-20")
    for row in old.parts["latency"]["rows"]:
        row["p90_ms"] = 1.4 * row["p50_ms"]
    assert _rows(compare(old, new), "slower") == set()


def test_peers_that_scatter_widen_the_margin() -> None:
    old, new = _run({}, "2026-11-18"), _run({"second_eye": 1.15}, "2026-11-20")
    peers = [row for row in new.parts["latency"]["rows"] if row["contender"] != "runtime"]
    for place, row in enumerate(peers):
        row["p50_ms"] *= 1.2 if place % 2 else 1 / 1.2
    found = compare(old, new)
    assert found.hosts["cpu"].margin > 1.5 * LEAST_MARGIN
    assert _rows(found, "slower") == set()


def test_a_peer_whose_package_changed_tells_nothing_of_the_host() -> None:
    old, new = _run({}, "2026-11-18"), _run({}, "2026-11-20")
    new.parts["latency"]["versions"]["openvino"] = "2027.1.0"
    for row in new.parts["latency"]["rows"]:
        if row["contender"].startswith("OpenVINO"):
            row |= {key: row[key] / 2 for key in ("p50_ms", "p90_ms")}
    found = compare(old, new)
    assert found.versions == {"openvino": ("2026.4.1", "2027.1.0")}
    assert found.hosts["cpu"].ratio == 1
    assert {c.key.contender for c in found.changes if c.verdict == "faster"} == {
        "OpenVINO FP32",
        "OpenVINO BF16",
        "OpenVINO INT8",
    }


def test_too_few_peers_leave_the_host_unknown() -> None:
    found = compare(*(_own_alone(times) for times in (1.0, 1.2)))
    assert not found.hosts["cpu"].known
    assert found.hosts["cpu"].ratio == 1
    assert [change.verdict for change in found.changes] == ["slower"]


def test_a_row_timed_a_few_times_is_not_judged() -> None:
    (change,) = compare(_own_alone(1.0, count=4), _own_alone(2.0)).changes
    assert change.verdict == "too few"


def test_gpu_rows_are_held_to_the_gpus_own_peers() -> None:
    old, new = ([*_gpu_rows(peer, own)] for peer, own in ((10.0, 2.0), (20.0, 4.0)))
    found = compare(*(Run.of([drawn_part("latency", rows)]) for rows in (old, new)))
    assert found.hosts["gpu"].ratio == pytest.approx(2.0)
    assert not found.hosts["cpu"].known
    assert {change.verdict for change in found.changes} == {"noise"}


def test_rows_of_one_run_alone_and_rows_without_a_time_are_not_compared() -> None:
    old, new = _run({}, "2026-11-18"), _run({}, "2026-11-20")
    gone = old.parts["latency"]["rows"][0]
    new.parts["latency"]["rows"][0] = {**gone, "p50_ms": None}
    new.parts["latency"]["rows"].append({**gone, "stage": "retouch"})
    found = compare(old, new)
    assert [key.stage for key in found.gone] == [gone["stage"]]
    assert [key.stage for key in found.appeared] == ["retouch"]


def _compared(old: dict[str, float], new: dict[str, float]) -> Comparison:
    return compare(_run(old, "2026-11-18"), _run(new, "2026-11-20"))


def _run(times: dict[str, float], day: str) -> Run:
    return Run.of([on(drawn_parts(**times)["latency"], day)])


def _rows(found: Comparison, verdict: str) -> set[tuple[str | None, str]]:
    return {(change.key.model, change.key.stage) for change in found.own(verdict)}


def _own_alone(times: float, count: int = 40) -> Run:
    row = {"model": "edge", "stage": "pair", "contender": "runtime", "provider": "cpu"}
    return Run.of([drawn_part("latency", [{**row, **times_of(10 * times, count)}])])


def _gpu_rows(peer_ms: float, own_ms: float) -> list[Part]:
    row = {"model": "edge", "stage": "pair", "provider": "cuda"}
    names = ("PyTorch FP32", "PyTorch BF16", "ONNX Runtime FP32")
    return [
        {**row, "contender": "runtime", **times_of(own_ms)},
        *({**row, "contender": name, **times_of(peer_ms)} for name in names),
    ]
