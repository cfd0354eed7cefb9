"""Keeping freed memory is a setting of glibc that changes no number."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from fundus_training.memory import keep_freed_memory

# In a process of its own: the setting cannot be taken back.
PROGRAM = """
import resource
import torch
from fundus_training.memory import keep_freed_memory

taken = keep_freed_memory()
torch.ones(8 << 20).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
sums = {float(torch.full((8 << 20,), 0.5).sum()) for _ in range(50)}
print(taken, sums, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs glibc on Linux"
)
def test_freed_tensors_are_reused_without_new_page_faults() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    taken, sums, faults = answer.stdout.split()
    assert (taken, sums) == ("True", "{4194304.0}")
    # 50 tensors of 32 MiB would fault 8192 pages in each; the heap may grow for the first few
    assert int(faults) < 15 * 8192


def test_nothing_happens_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fundus_training.memory.sys.platform", "darwin")
    assert keep_freed_memory() is False
    monkeypatch.setattr("fundus_training.memory.sys.platform", "linux")
    monkeypatch.setattr("fundus_training.memory.platform.libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
