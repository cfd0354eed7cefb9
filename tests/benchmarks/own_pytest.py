"""`pytest benchmarks` in a process of its own, as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys

from fundus_benchmarks.results.run_file import ROOT


def run_pytest(*words: str, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
    """Run it in the repository's root, without what this process's own pytest was told."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
