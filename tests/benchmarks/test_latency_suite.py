"""`pytest benchmarks` itself, on its quickest contenders."""

import pytest
from own_pytest import run_pytest

from fundus_benchmarks.results.run_file import read_part


@pytest.mark.slow
def test_what_is_timed_becomes_a_part_of_a_run(tmp_path) -> None:
    chosen = "gates or preprocessing or (encoder and cpu and edge and not peer)"
    done = run_pytest("benchmarks", "-k", chosen, "--seconds", "0.1", "--parts", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    part = read_part(tmp_path / "latency.json")
    rows = {(row["stage"], row["contender"], row["dialect"]): row for row in part["rows"]}
    assert {stage for stage, _, _ in rows} == {"gates", "preprocessing", "encoder_1", "encoder_2"}
    one = rows["encoder_1", "runtime", "int8-cpu"]
    assert one["model"] == "edge"
    assert one["threads"] == 2
    assert 0 < one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"] <= one["max_ms"]
    assert "from PyTorch FP32" in one["verified"]
    assert ("encoder_1", "runtime", "fp32") in rows
    assert [one["what"] for one in part["missing"]].count("preprocessing by CUDA") <= 1


def test_nothing_is_written_where_nothing_is_timed(tmp_path) -> None:
    done = run_pytest("benchmarks", "-k", "gates", "--benchmark-disable", "--parts", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not list(tmp_path.iterdir())
