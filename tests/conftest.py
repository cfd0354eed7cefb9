"""What all tests share: the real photographs, and which tests this machine cannot run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import fundus_runtime
import fundus_runtime._native

# The same examples on every run and no deadline: a test must not fail because its machine is slow
# or its luck bad. HYPOTHESIS_PROFILE=explore looks for new counterexamples.
settings.register_profile(
    "fundus",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fundus"))


@pytest.fixture(scope="session")
def fundus_data() -> Path:
    """The folder with `odir/`, `eyepacs/` and `full_resolution/` that FUNDUS_DATA names."""
    name = os.environ.get("FUNDUS_DATA")
    if not name:
        pytest.skip("needs real photographs: FUNDUS_DATA names no folder")
    folder = Path(name).resolve()
    if not (folder / "odir").is_dir():
        pytest.fail(f"FUNDUS_DATA is {name!r}, which holds no folder odir/; correct or unset it")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_gpu") and os.environ.get("FUNDUS_REQUIRE_GPU") != "1":
        pytest.skip("needs a GPU: FUNDUS_REQUIRE_GPU is not 1")


def pytest_configure() -> None:
    """Refuses the wrong install: FUNDUS_WHEEL_PREFIX names the environment that a wheel is in."""
    prefix = os.environ.get("FUNDUS_WHEEL_PREFIX")
    for module in (fundus_runtime, fundus_runtime._native) if prefix else ():
        origin = Path(str(module.__file__)).resolve()
        if not origin.is_relative_to(Path(str(prefix)).resolve()):
            raise pytest.UsageError(f"{module.__name__} comes from {origin}, not from {prefix}")
