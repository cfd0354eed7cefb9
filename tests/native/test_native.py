"""The native core through its binding."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path

import pytest

import fundus_runtime
from fundus_runtime import _native

X86 = {
    "sse4_1",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
}
ARM = {"asimd", "asimddp", "asimdhp", "i8mm", "bf16"}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/cpuinfo is Linux's")
def test_cpu_features_are_those_the_kernel_reports() -> None:
    flags = {
        flag
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith(("flags", "Features"))
        for flag in line.partition(":")[2].split()
    }
    assert flags, "this kernel lists no processor flags"
    features = _native.cpu_features()
    assert features == {name: name in flags for name in features}


@pytest.mark.parametrize(
    ("machines", "names"), [({"x86_64", "AMD64"}, X86), ({"aarch64", "arm64"}, ARM)]
)
def test_an_architecture_names_its_own_features(machines: set[str], names: set[str]) -> None:
    listed = set(_native.cpu_features())
    if platform.machine() in machines:
        assert listed == names
    else:
        assert not listed & names


def test_every_answer_is_a_plain_bool() -> None:
    assert {type(usable) for usable in _native.cpu_features().values()} <= {bool}


def test_core_package_and_distribution_state_one_version() -> None:
    distribution = importlib.metadata.version("fundus-edge")
    assert _native.version() == fundus_runtime.__version__ == distribution
