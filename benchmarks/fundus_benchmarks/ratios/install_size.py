"""How large the robot's install is: a fresh environment with the `cpu` extra and its byte code."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fundus_benchmarks.results.run_file import ROOT

__all__ = ["cpu_install_mb"]

# What every environment has before anything is installed.
_NOT_OURS = ("pip", "setuptools", "wheel")


def cpu_install_mb() -> float:
    """10^6 bytes of all packages that `pip install '.[cpu]'` brings.

    Raises:
        subprocess.CalledProcessError: the install failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "bin", "python")
        _call(sys.executable, "-m", "venv", folder)
        constraints = str(ROOT / "constraints.txt")
        _call(python, "-m", "pip", "install", "--quiet", "-c", constraints, f"{ROOT}[cpu]")
        (packages,) = Path(folder, "lib").glob("python*/site-packages")
        return sum(_size(part) for part in packages.iterdir() if not _is_tool(part)) / 1e6


def _is_tool(part: Path) -> bool:
    return part.name.split("-")[0].lower() in _NOT_OURS


def _size(part: Path) -> int:
    if part.is_file():
        return part.stat().st_size
    return sum(file.stat().st_size for file in part.rglob("*") if file.is_file())


def _call(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
