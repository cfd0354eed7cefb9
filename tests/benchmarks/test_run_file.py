import json

import pytest

from fundus_benchmarks.results.run_file import machine_name, new_part, read_part, write_part


def test_a_part_comes_back_as_it_was_written(tmp_path) -> None:
    part = new_part("growth", [{"curve": "threads"}], command="python benchmarks/growth.py")
    assert read_part(write_part(part, tmp_path / "run")) == part
    assert part["machine"]["usable_processors"] >= 1
    assert part["versions"]["numpy"]


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="no part 'speed'"):
        new_part("speed", [], command="none")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"format": "another"}, "no part of a benchmark"),
        ([], "no part of a benchmark"),
        ({"format": "fundus-edge benchmark", "schema_version": 99, "part": "growth"}, "99"),
        ({"format": "fundus-edge benchmark", "schema_version": 1, "part": "speed"}, "'speed'"),
    ],
)
def test_other_files_are_refused(tmp_path, content, said) -> None:
    path = tmp_path / "growth.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said):
        read_part(path)


def test_a_machine_is_named_by_its_device_or_its_processor() -> None:
    plain = {"device": None, "processor": "AMD EPYC 7R13 (x)", "usable_processors": 2}
    assert machine_name(plain) == "amd-epyc-7r13-x-2-cpus"
    jetson = {"device": "NVIDIA Jetson AGX Orin", "processor": "ARM", "usable_processors": 12}
    assert machine_name(jetson) == "nvidia-jetson-agx-orin-12-cpus"
